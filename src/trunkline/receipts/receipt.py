"""Receipt v1: the record, its canonical bytes, and reading it back.

The bytes are RFC 8785 canonical JSON for the values that a receipt may hold: ASCII keys in sorted
order, strings, integers within ±(2⁵³−1), booleans, arrays and objects; no floats, no nulls. The
structs below declare their fields in key order, so msgspec writes canonical bytes directly.
They are hashed and stored as written: a signature is never checked over a re-encoding.

Specified in ``docs/spec/receipt.md``. What a receipt says is the node's word; nothing here judges
whether it is true.
"""

from re import compile as regex
from typing import Annotated, Literal, TypeAlias

import msgspec

from trunkline.base.errors import MalformedError
from trunkline.crypto.canonical import INTEGER_MAX, parse_canonical
from trunkline.crypto.merkle import leaf_hash

RECEIPT_TYPE = "trunkline.receipt/v1"
RECEIPT_DOMAIN = b"trunkline.receipt/v1\n"
RECEIPT_BYTES_MAX = 256 * 1024

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=INTEGER_MAX)]
Hex32: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]

# What these are spelt like is looked at once for a whole receipt, by :func:`_is_spelt`: a pattern
# for each member takes longer than all the rest of reading a receipt.
Digest: TypeAlias = str
"""Of content: salted, unless the gateway drew no blinding (:mod:`trunkline.receipts.hiding`)."""
OptionalDigest: TypeAlias = str
OptionalPlainDigest: TypeAlias = str
RequiredHex32: TypeAlias = str
OptionalHex32: TypeAlias = str
Decimal: TypeAlias = str
"""A number that is no integer, as the shortest decimal that reads back as the same IEEE 754 double
(Python's ``repr``): receipts hold no floats. Empty: absent."""


class ReceiptAttempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An earlier attempt at the same answer, as the gateway told the node."""

    attempt: str
    characters: Count = 0
    """Characters of text that it left behind, where the answer was continued by its text."""
    error: str
    node: str
    tokens: tuple[Count, ...]


class ReceiptCached(msgspec.Struct, frozen=True, kw_only=True):
    """The answer was not made for this attempt: the node had given it before, and kept it."""

    ended_ms: Count
    """When, Unix milliseconds by the node's clock: ``times.ended_ms`` of the receipt below."""
    receipt: Hex32
    """Leaf hash (hex) of the receipt that the node signed then."""


class ReceiptModel(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What really served."""

    fingerprint: str = ""
    """The upstream's own ``system_fingerprint``, where it gave one."""
    numerics: str = ""
    provider: str
    """``embedded``, or the host name of the provider that the node fronts."""
    requested: str
    """The model named in the request."""
    served: str
    """The model's own name: the upstream's ``model`` field, or the embedded model's."""
    weights: OptionalPlainDigest = ""


class ReceiptPolicy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    audit: bool = False
    """The gateway lets verifiers that the node's operator named open it."""
    mode: Literal["private", "batched", "full"]


class ReceiptRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    client: Digest
    """Digest of the body exactly as the app sent it."""
    digest: Digest
    """Digest of the ``request`` bytes that this node was given."""
    format: str
    prompt: OptionalDigest = ""
    """Digest of the rendered prompt's token ids, where the engine is ours."""


class ReceiptResponse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    chunks: Count
    """Unnamed events that this attempt sent."""
    digest: Digest
    """End of the stream's hash chain."""
    finish: tuple[str, ...]
    """Finish reason per choice."""
    prefix: OptionalDigest = ""
    """Digest of the text taken over from earlier attempts."""
    prefix_characters: Count = 0
    """Its Unicode code points."""
    resumed: tuple[Count, ...] = ()
    """Tokens per choice taken over from an earlier attempt."""
    resumed_digest: OptionalDigest = ""
    """Digest of those token ids."""
    status: Count
    """HTTP status that the answer stands for (200)."""
    tokens: OptionalDigest = ""
    """Digest of the whole answer's token ids, where the engine is ours."""


class ReceiptSampling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    caller_nonce: RequiredHex32
    min_p: Decimal = ""
    node_nonce: OptionalHex32 = ""
    nonce_index: Count = 0
    """Place of ``node_nonce`` in the commitment that ``nonces`` is the root of."""
    nonces: OptionalHex32 = ""
    """Root, hex, of the commitment that its node made before (:mod:`trunkline.receipts.nonces`).
    Of an inherited seed these are the words of the node that began the answer."""
    seed: OptionalHex32 = ""
    """The answer's seed, hex, where the engine is ours. See ``trunkline.sampling``."""
    source: Literal["none", "nonces", "caller", "inherited"]
    """Where the seed came from: no seed (a provider's model), both nonces, the request's own
    ``seed`` parameter, or an earlier attempt at this answer."""
    temperature: Decimal = ""
    """With ``top_k``, ``top_p`` and ``min_p``: the sampler as it was set, the node's defaults for
    what the request left open included, where the engine is ours."""
    top_k: Count = 0
    top_p: Decimal = ""


class ReceiptTimes(msgspec.Struct, frozen=True, kw_only=True):
    """Unix milliseconds by the node's clock."""

    arrived_ms: Count
    ended_ms: Count
    first_token_ms: Count


class ReceiptUsage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Counted by the node where the engine is ours, else as the upstream reported."""

    cached: Count = 0
    """Of the prompt: read from the upstream's cache, where it said so."""
    completion: Count
    counted: bool
    """True: counted by this node from token ids. False: the upstream's word."""
    prompt: Count


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """A node's statement about one attempt. Field order is key order; keep it so."""

    answer: str
    attempt: str
    cached: ReceiptCached | msgspec.UnsetType = msgspec.UNSET
    """Absent: the answer was made for this attempt."""
    created_s: Count
    key: str
    """The node's vkey (C2SP signed-note)."""
    model: ReceiptModel
    node: str
    operator: str
    policy: ReceiptPolicy
    previous: OptionalHex32
    """Leaf hash (hex) of this node's receipt before this one; empty for its first."""
    request: ReceiptRequest
    response: ReceiptResponse
    route: tuple[ReceiptAttempt, ...]
    """Attempts before this one, in order."""
    salt: RequiredHex32
    """32 random bytes, hex: what the log holds of this receipt reveals nothing."""
    sampling: ReceiptSampling
    times: ReceiptTimes
    type: Literal["trunkline.receipt/v1"] = "trunkline.receipt/v1"
    usage: ReceiptUsage


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Receipt)


def encode(receipt: Receipt) -> bytes:
    """The receipt's canonical bytes: what is hashed, signed and handed out.

    Raises :class:`MalformedError` for a receipt that :func:`decode` would refuse, so that a node
    never signs one.
    """
    try:
        data = _ENCODER.encode(receipt)
    except (ValueError, OverflowError) as error:
        raise MalformedError("a receipt holds text that is not Unicode") from error
    _read(data)
    return data


def decode(data: bytes) -> Receipt:
    """The receipt that ``data`` spells. Keep ``data`` beside it: only the bytes can be verified.

    Members that this version does not know are ignored, and covered by the hash all the same.
    Raises :class:`MalformedError` for more than ``RECEIPT_BYTES_MAX`` bytes, a missing or wrong
    member, or bytes that are not canonical.
    """
    receipt = _read(data)
    # Writing it again is the cheap proof of canonical bytes. Only a receipt with members from a
    # later version needs the general parser.
    if _ENCODER.encode(receipt) != data:
        value = parse_canonical(data, bytes_max=RECEIPT_BYTES_MAX)
        # The struct takes an absent type for its own: a record has to say what it is.
        if not isinstance(value, dict) or "type" not in value:
            raise MalformedError("not a receipt of version 1")
    return receipt


def receipt_leaf(data: bytes) -> bytes:
    """The 32-byte Merkle leaf hash of a receipt's bytes, in the receipts' own domain.

    The domain line inside the leaf is what keeps a receipt from being taken for any other signed
    record, whatever its bytes are.
    """
    return leaf_hash(RECEIPT_DOMAIN + data)


def _read(data: bytes) -> Receipt:
    if len(data) > RECEIPT_BYTES_MAX:
        raise MalformedError(f"a receipt of {len(data)} bytes exceeds {RECEIPT_BYTES_MAX}")
    try:
        receipt = _DECODER.decode(data)
    except (ValueError, RecursionError) as error:
        # Not the parser's message: it may quote what it read.
        raise MalformedError("not a receipt of version 1") from error
    if not _is_spelt(receipt):
        raise MalformedError("not a receipt of version 1")
    return receipt


_HEX = "[0-9a-f]{64}"
_SALTED = f"(?:sha256|salted):{_HEX}"
_NUMBER = r"[0-9]{1,20}(?:\.[0-9]{1,20})?(?:e-?[0-9]{1,3})?"
_SPELT = regex(
    ",".join(
        (
            *(_SALTED,) * 3,
            *(f"(?:{_SALTED})?",) * 4,
            f"(?:sha256:{_HEX})?",
            *(_HEX,) * 2,
            *(f"(?:{_HEX})?",) * 4,
            *(f"(?:{_NUMBER})?",) * 3,
        )
    )
)


def _is_spelt(receipt: Receipt) -> bool:
    """Whether digests, hex and decimals are written as such. No comma has a place in any of them,
    so none can stand for another."""
    request, response, sampling = receipt.request, receipt.response, receipt.sampling
    written = (
        request.client, request.digest, response.digest,
        request.prompt, response.prefix, response.resumed_digest, response.tokens,
        receipt.model.weights,
        receipt.salt, sampling.caller_nonce,
        receipt.previous, sampling.node_nonce, sampling.nonces, sampling.seed,
        sampling.min_p, sampling.temperature, sampling.top_p,
    )  # fmt: skip
    return _SPELT.fullmatch(",".join(written)) is not None
