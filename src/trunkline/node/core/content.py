"""What opens a receipt to a verifier: made when the answer ends, kept beside it, shown if drawn.

``docs/spec/audit.md``, "Openings". Records that hold words do not show them: no repr here quotes
any. It refuses to open what a receipt does not let be opened.
"""

from typing import Final

import msgspec

from trunkline.base.errors import CorruptStateError
from trunkline.crypto.encoding import encode_base64
from trunkline.receipts import Receipt, salts
from trunkline.schema.attempt import Attempt, SignedReceipt
from trunkline.schema.audit import NonceProof, OpenedContent, OpenedLogprob, OpenedOrigin

HIDDEN: Final = "request.client"
"""The item that stays closed: what else the app's own body held is not the node's to show."""


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """What the node's own engine was given and gave."""

    prompt: tuple[int, ...] = ()
    """Token ids."""
    tokens: tuple[tuple[int, ...], ...] = ()
    """The whole answer's, by choice."""
    vectors: tuple[bytes, ...] = ()
    """Of embeddings, little-endian float32."""
    logprobs: tuple[tuple[OpenedLogprob, ...], ...] = ()
    """Beside ``tokens``, where they were asked for."""

    def __repr__(self) -> str:
        return "Made(…)"


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Of an answer given again: the receipt of when it was made."""

    signed: bytes
    """The :class:`SignedReceipt` as JSON."""
    salts: dict[str, str]

    def __repr__(self) -> str:
        return "Origin(…)"


class Content(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the store keeps to open one receipt with."""

    request: bytes
    salts: dict[str, str]
    made: Made
    origin: Origin | None = None

    def __repr__(self) -> str:
        return "Content(…)"


_DECODER: Final = msgspec.msgpack.Decoder(Content)


class Kept(msgspec.Struct, frozen=True):
    """Content as bytes."""

    data: bytes

    def __repr__(self) -> str:
        return f"Kept({len(self.data)} bytes)"


class Before(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that was given, and may be again: its receipt, and what opens that."""

    signed: bytes
    """The :class:`SignedReceipt` as JSON."""
    content: Kept


def content(
    attempt: Attempt, receipt: Receipt, made: Made | None, before: Before | None = None
) -> Kept | None:
    """What is to be kept for the attempt's receipt; None: nothing that could be checked, or
    nothing that may be. ``before``: of an answer given again, when it was made."""
    origin = None
    if before is not None:
        first = read(before.content.data)
        made, origin = first.made, Origin(signed=before.signed, salts=first.salts)
    if made is None or not receipt.policy.audit or receipt.policy.mode == "private":
        return None
    shown = salts(receipt, bytes.fromhex(attempt.blinding)) if attempt.blinding else {}
    shown.pop(HIDDEN, None)
    kept = Content(request=bytes(attempt.request), salts=shown, made=made, origin=origin)
    return Kept(msgspec.msgpack.encode(kept))


def read(kept: bytes) -> Content:
    """What was kept. Raises :class:`CorruptStateError` for bytes never kept."""
    try:
        return _DECODER.decode(kept)
    except (msgspec.DecodeError, RecursionError):
        raise CorruptStateError("the node's store holds an opening that is none") from None


def origin_of(found: Content) -> SignedReceipt | None:
    """The receipt of when an answer that was given again was made; None for any other."""
    if found.origin is None:
        return None
    return msgspec.json.decode(found.origin.signed, type=SignedReceipt)


def opened(found: Content, nonce: NonceProof | None) -> OpenedContent:
    """What a verifier is shown. ``nonce``: of the answer when it was made."""
    origin = found.origin
    signed = origin_of(found)
    return OpenedContent(
        request=msgspec.Raw(found.request),
        salts=found.salts,
        prompt=found.made.prompt,
        tokens=found.made.tokens,
        vectors=tuple(map(encode_base64, found.made.vectors)),
        logprobs=found.made.logprobs,
        nonce=nonce,
        origin=None
        if origin is None or signed is None
        else OpenedOrigin(signed=signed, salts=origin.salts),
    )
