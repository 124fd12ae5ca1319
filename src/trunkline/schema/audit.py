"""What a verifier asks a node for, and hears back: the openings of receipts that were drawn.

Specified in ``docs/spec/audit.md``. A node opens only receipts that say they may be audited, only
to verifiers that its operator named, and only what a draw that is in the log has drawn.
"""

from typing import Literal, TypeAlias

import msgspec

from trunkline.schema.attempt import SignedReceipt

OPENINGS_PATH = "/v1/openings"
PLANTS_PATH = "/v1/plants"
SELF_TEST_PATH = "/v1/self-test"
NONCES_PREFIX = "/v1/nonces/"
NONCE_BYTES_MAX = 16 * 1024
VERDICTS_PATH = "/v1/verdicts"
AUDITS_PATH = "/v1/audits"
ALERTS_PATH = "/v1/alerts"
CALIBRATIONS_PATH = "/v1/calibrations"
DRAWS_PATH = "/v1/draws"
CALIBRATION_BYTES_MAX = 64 * 1024

DEMANDED_MAX = 64
"""Receipts in one demand."""
DEMAND_BYTES_MAX = 128 * 1024
OPENINGS_BYTES_MAX = 64 * 1024 * 1024
REPEATED_MS_MAX = 86_400_000
"""For how long after it ended an answer that may be audited is given again, at most: beyond, a
verifier need not have followed the log for long enough to find its origin there."""


Reason: TypeAlias = Literal[
    "unknown", "not_logged", "not_drawn", "not_audited", "not_kept", "expired", "later"
]
"""Of an opening without content. ``not_logged``: the node has not heard yet where the log has the
batch, and ``later``: the answer is full. Ask again for these two."""


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


class ShownNonce(msgspec.Struct, frozen=True, kw_only=True):
    """``GET /v1/nonces/<root, hex>/<index>`` of a node: a place in one of its commitments, to
    anybody. A leaf says nothing of the nonce that it is the hash of."""

    note: str
    """The signed note over the nonces' Merkle root."""
    index: int
    leaf: str
    """Leaf hash, base64."""
    path: tuple[str, ...]
    """RFC 6962 audit path, base64, from ``leaf`` to the root."""


class OpenedOrigin(msgspec.Struct, frozen=True, kw_only=True):
    """Of an answer given again: the receipt of when it was made, and what opens that one."""

    signed: SignedReceipt
    salts: dict[str, str]
    """Salt (hex) by item of that receipt. Its request and its answer are the ones beside this."""


class OpenedLogprob(msgspec.Struct, frozen=True, array_like=True):
    """What was sent beside one token."""

    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    """Token id and log-probability of the likeliest, in the order in which they were sent."""


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
    logprobs: tuple[tuple[OpenedLogprob, ...], ...] = ()
    """Of an answer with log-probabilities: for each of ``tokens``, what was sent beside it."""
    nonce: NonceProof | None = None
    origin: OpenedOrigin | None = None
    """Of an answer given again; ``nonce`` is this one's then, and ``prompt``, ``tokens`` and
    ``vectors`` are of both."""


class Opening(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One receipt, opened or not."""

    batch: str
    index: int
    signed: SignedReceipt | None = None
    """None: for ``unknown``, ``not_logged`` and ``not_drawn``, and in mode ``private``."""
    content: OpenedContent | None = None
    reason: Reason | Literal[""] = ""
    """Why there is no content."""
    leaf: str = ""
    """Of a receipt in mode ``private``, which is not shown: its leaf hash, hex."""
    path: tuple[str, ...] = ()
    """From ``leaf`` to the batch's root, base64."""


class Openings(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to a demand, in its order."""

    openings: tuple[Opening, ...]


VERIFIER_INFO_PATH = "/v1/info"
WAIT_S_MAX = 30
"""Longest that ``GET /v1/verdicts`` waits for something new."""
VERDICTS_MAX = 100
"""In one page."""
VERDICTS_BYTES_MAX = 4 * 1024 * 1024
BUNDLE_BYTES_MAX = 16 * 1024 * 1024
ASKED_BYTES_MAX = 32 * 1024 * 1024
DEADLINE_MS_MAX = 600_000


class CheckedModel(msgspec.Struct, frozen=True, kw_only=True):
    """Weights that a verifier has loaded, or can load."""

    model: str
    weights: str
    """``sha256:<hex>``."""


class VerifierInfo(msgspec.Struct, frozen=True, kw_only=True):
    """``GET /v1/info`` of a verifier."""

    key: str
    """Its vkey: what its statements are signed with."""
    operator: str
    rate_ppm: int
    """Receipts drawn of a million."""
    models: tuple[CheckedModel, ...]
    log: str
    """Origin of the log that it follows."""
    followed: int
    """Entries of it that were read and verified."""
    waiting: int
    """Audits that were drawn and have no verdict yet."""
    verdicts: int
    """Number of the newest revealed verdict; 0 before the first."""


class RevealedVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """One verdict, in the order in which the log came to have them."""

    number: int
    """From 1, without gaps."""
    receipt: str
    """Leaf hash of the receipt, 64 hex digits."""
    note: str
    """The verdict: a signed note (``trunkline.verdicts.verdict``). Nothing else here is signed."""
    entry: int | None
    """Where the log has it. None: an older verifier told it before."""
    plant: str = ""
    """Of a verdict that withdraws one on a plant: the plant's opening, a signed note
    (``trunkline.verdicts.plant``). Of another: that of a known-good plant which was opened since,
    about some other receipt. Empty: there is none to tell."""
    commitment: str = ""
    """Of a verdict that was drawn: the commitment to it that the log has, a signed note
    (``trunkline.verdicts.commitment``). Empty in what is told of one receipt, and by verifiers of
    before."""


class VerdictPage(msgspec.Struct, frozen=True, kw_only=True):
    """``GET /v1/verdicts?after=NUMBER&wait_s=SECONDS``: what was revealed since, oldest first."""

    verdicts: tuple[RevealedVerdict, ...]
    newest: int
    """Number of the newest verdict that there is."""


class AskedAudit(msgspec.Struct, frozen=True, kw_only=True):
    """Body of ``POST /v1/audits``: a caller brings the opening, and waits for the verdict.

    The opening may lack what who calls a node does not see: ``prompt`` (the verifier renders it)
    and ``nonce`` (what it would show is ``not_applicable`` then).
    """

    signed: SignedReceipt
    content: OpenedContent
    deadline_ms: int
    """From the call's arrival; then ``inconclusive`` is answered, and the work goes on unheard."""


class AskedVerdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Answer to it."""

    result: Literal["pass", "fail", "inconclusive", "not_applicable"]
    reason: str = ""
    """Why there is no verdict: ``deadline``, ``busy``, ``not_bound`` (the opening is not this
    receipt's), ``drawn`` (it is kept back), ``unknown_node``, ``unknown_model``,
    ``other_rules``."""
    note: str = ""
    """The verdict, a signed note; empty without one."""


class AlertStatement(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a verifier found and no verdict says (``GET /v1/alerts``)."""

    number: int
    unix_ms: int
    kind: Literal["dispute", "lazy", "lying", "gap", "terms", "refused"]
    """``terms``: a node's let it be audited less than this verifier would, or not at all.
    ``refused``: a node had a reason not to open that may be the verifier's own fault."""
    about: str
    """Key name of the verifier or node that it is about."""
    receipt: str = ""
    detail: str


class AlertPage(msgspec.Struct, frozen=True, kw_only=True):
    """``GET /v1/alerts?after=NUMBER``, oldest first."""

    alerts: tuple[AlertStatement, ...]
