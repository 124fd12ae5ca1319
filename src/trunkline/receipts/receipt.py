"""Receipt v1: the record, its canonical bytes, and reading it back.

The bytes are RFC 8785 canonical JSON for the values that a receipt may hold: ASCII keys in sorted
order, strings, integers within ±(2⁵³−1), booleans, arrays and objects; no floats, no nulls. The
structs below declare their fields in key order, so msgspec writes canonical bytes directly.
They are hashed and stored as written; verifying never re-encodes them.
"""

from typing import Literal

import msgspec

RECEIPT_TYPE = "trunkline.receipt/v1"
RECEIPT_BYTES_MAX = 256 * 1024


class ReceiptAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """An earlier attempt at the same answer, as the gateway told the node."""

    attempt: str
    error: str
    node: str
    tokens: tuple[int, ...]


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
    weights: str = ""


class ReceiptPolicy(msgspec.Struct, frozen=True, kw_only=True):
    mode: Literal["private", "batched", "full"]


class ReceiptRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    client: str
    """Digest of the body exactly as the app sent it."""
    digest: str
    """Digest of the ``request`` bytes that this node was given."""
    format: str
    prompt: str = ""
    """Digest of the rendered prompt's token ids (uint32 little-endian), where the engine is ours."""


class ReceiptResponse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    chunks: int
    """Unnamed events that this attempt sent."""
    digest: str
    """End of the stream's hash chain."""
    finish: tuple[str, ...]
    """Finish reason per choice."""
    resumed: tuple[int, ...] = ()
    """Tokens per choice taken over from an earlier attempt."""
    resumed_digest: str = ""
    """Digest of those token ids."""
    status: int
    """HTTP status that the answer stands for (200)."""
    tokens: str = ""
    """Digest of the whole answer's token ids, where the engine is ours."""


class ReceiptSampling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    caller_nonce: str
    node_nonce: str = ""
    seed: str = ""
    """The answer's seed, hex, where the engine is ours. See ``trunkline.sampling``."""
    source: Literal["none", "nonces", "caller", "inherited"]
    """Where the seed came from: no seed (a provider's model), both nonces, the request's own
    ``seed`` parameter, or an earlier attempt at this answer."""


class ReceiptTimes(msgspec.Struct, frozen=True, kw_only=True):
    """Unix milliseconds by the node's clock."""

    arrived_ms: int
    ended_ms: int
    first_token_ms: int


class ReceiptUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Counted by the node where the engine is ours, else as the upstream reported."""

    completion: int
    counted: bool
    """True: counted by this node from token ids. False: the upstream's word."""
    prompt: int


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """A node's statement about one attempt. Field order is key order; keep it so."""

    answer: str
    attempt: str
    created_s: int
    key: str
    """The node's vkey (C2SP signed-note)."""
    model: ReceiptModel
    node: str
    operator: str
    policy: ReceiptPolicy
    previous: str
    """Leaf hash (hex) of this node's receipt before this one; empty for its first."""
    request: ReceiptRequest
    response: ReceiptResponse
    route: tuple[ReceiptAttempt, ...]
    """Attempts before this one, in order."""
    salt: str
    """32 random bytes, hex: what the log holds of this receipt reveals nothing."""
    sampling: ReceiptSampling
    times: ReceiptTimes
    type: Literal["trunkline.receipt/v1"] = "trunkline.receipt/v1"
    usage: ReceiptUsage
