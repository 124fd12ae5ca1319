"""What a verifier asks a node for, and hears back: the openings of receipts that were drawn.

Specified in ``docs/spec/audit.md``. A node opens only receipts that say they may be audited, only
to verifiers that its operator named, and only what a draw that is in the log has drawn.
"""

import msgspec

from trunkline.schema.attempt import SignedReceipt

OPENINGS_PATH = "/v1/openings"
SELF_TEST_PATH = "/v1/self-test"
VERDICTS_PATH = "/v1/verdicts"
AUDITS_PATH = "/v1/audits"

DEMANDED_MAX = 64
"""Receipts in one demand."""
DEMAND_BYTES_MAX = 128 * 1024
OPENINGS_BYTES_MAX = 64 * 1024 * 1024


class WantedReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """One receipt, by its place in a batch that is in the log."""

    batch: str
    """Root of the batch, 64 hex digits."""
    index: int


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """Body of ``POST /v1/openings``."""

    draw: str
    """The verifier's draw statement, a signed note: who asks, and why these."""
    receipts: tuple[WantedReceipt, ...]
    demand: str
    """Signed note of the verifier that asks (it may be another one than the draw's), over the
    digest of the above: ``trunkline.demand/v1``."""


class NonceProof(msgspec.Struct, frozen=True, kw_only=True):
    """That the node was bound to a nonce before it saw the request."""

    note: str
    """The signed note over the nonces' Merkle root (``trunkline.receipts.nonces``)."""
    index: int
    path: tuple[str, ...]
    """RFC 6962 audit path, base64, from leaf to root."""


class OpenedContent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was asked and answered, as far as a check needs it."""

    request: msgspec.Raw
    """The node's ``request`` bytes, exactly as its receipt's digest binds them."""
    salts: dict[str, str]
    """Salt (hex) by item of the receipt (``trunkline.receipts.hiding``)."""
    prompt: tuple[int, ...] = ()
    """The rendered prompt's token ids."""
    tokens: tuple[tuple[int, ...], ...] = ()
    """The whole answer's token ids per choice, those taken over included."""
    vectors: tuple[str, ...] = ()
    """Of embeddings: each input's vector, little-endian float32, base64."""
    nonce: NonceProof | None = None


class Opening(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One receipt, opened or not."""

    batch: str
    index: int
    signed: SignedReceipt | None = None
    """None: the node says that it has no such receipt."""
    content: OpenedContent | None = None
    reason: str = ""
    """Why there is no content: ``not_audited`` (the receipt does not allow it), ``not_kept``,
    ``expired``, ``not_drawn``, ``unknown``."""


class Openings(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to a demand, in its order."""

    openings: tuple[Opening, ...]
