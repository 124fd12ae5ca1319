"""What opens a receipt to a verifier: made when the answer ends, kept beside it, shown if drawn.

``docs/spec/audit.md``, "Openings". Records that hold words do not show them: no repr here quotes
any. It refuses to open what a receipt does not let be opened.
"""

from typing import Final

import msgspec

from trunkline.base.errors import CorruptStateError
from trunkline.crypto.encoding import encode_base64
from trunkline.receipts import Receipt, salts
from trunkline.schema.attempt import Attempt
from trunkline.schema.audit import NonceProof, OpenedContent

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

    def __repr__(self) -> str:
        return "Made(…)"


class Content(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the store keeps to open one receipt with."""

    request: bytes
    salts: dict[str, str]
    made: Made

    def __repr__(self) -> str:
        return "Content(…)"


_DECODER: Final = msgspec.msgpack.Decoder(Content)


class Kept(msgspec.Struct, frozen=True):
    """Content as bytes."""

    data: bytes

    def __repr__(self) -> str:
        return f"Kept({len(self.data)} bytes)"


def content(attempt: Attempt, receipt: Receipt, made: Made | None) -> Kept | None:
    """What is to be kept for the attempt's receipt; None: nothing that could be checked, or
    nothing that may be."""
    if made is None or not receipt.policy.audit or receipt.policy.mode == "private":
        return None
    shown = salts(receipt, bytes.fromhex(attempt.blinding)) if attempt.blinding else {}
    shown.pop(HIDDEN, None)
    kept = Content(request=bytes(attempt.request), salts=shown, made=made)
    return Kept(msgspec.msgpack.encode(kept))


def opened(kept: bytes, nonce: NonceProof | None) -> OpenedContent:
    """What a verifier is shown. Raises :class:`CorruptStateError` for bytes never kept."""
    try:
        found = _DECODER.decode(kept)
    except (msgspec.DecodeError, RecursionError):
        raise CorruptStateError("the node's store holds an opening that is none") from None
    return OpenedContent(
        request=msgspec.Raw(found.request),
        salts=found.salts,
        prompt=found.made.prompt,
        tokens=found.made.tokens,
        vectors=tuple(map(encode_base64, found.made.vectors)),
        nonce=nonce,
    )
