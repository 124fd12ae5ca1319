"""The attempt protocol: what a gateway says to a node, and what it hears back.

Specified in ``docs/spec/attempt-protocol.md``. One attempt is one POST; its answer is a stream of
server-sent events whose ``data`` lines are already what an OpenAI client expects, so a gateway can
relay them byte for byte. What only the gateway needs travels beside them: in named events, and in
the ``id``, ``tokens`` and ``used`` fields that an SSE parser which does not know them ignores.
"""

from typing import Literal

import msgspec

ATTEMPT_PATH = "/v1/attempts"
INFO_PATH = "/v1/info"
HEALTH_PATH = "/healthz"

EVENT_ACCEPTED = "accepted"
EVENT_PROGRESS = "progress"
EVENT_REPLAYED = "replayed"
EVENT_ERROR = "error"
EVENT_RECEIPT = "receipt"
EVENT_LIMITS = "limits"

ATTEMPT_BODY_BYTES_MAX = 32 * 1024 * 1024
RESUME_TOKENS_MAX = 1_000_000
PREFIX_CHARS_MAX = 1_000_000
"""Longest text that an answer is continued from."""

Kind = Literal["chat", "embeddings"]
ClientFormat = Literal["openai.chat", "openai.responses", "openai.embeddings", "anthropic.messages"]
"""How the app speaks at the front door."""
Mode = Literal["private", "batched", "full"]
"""What the log publishes of an answer (design §7). ``batched``: a commitment to it."""


class PreviousAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt at the same answer that came before this one, as the gateway saw it."""

    attempt: str
    node: str
    error: str
    """Stable error code of why it ended."""
    tokens: tuple[int, ...] = ()
    """Answer tokens taken over from it, per choice."""
    characters: int = 0
    """Characters of text taken over from it, where the answer is continued by its text."""


class Resume(msgspec.Struct, frozen=True, kw_only=True):
    """Go on after tokens that an earlier attempt already produced (exact continuation)."""

    tokens: tuple[tuple[int, ...], ...]
    """Per choice, the answer's token ids so far. Events for these have reached the app already."""


class Used(msgspec.Struct, frozen=True, kw_only=True):
    """Model tokens that an answer has used, as its providers counted them."""

    prompt: int
    completion: int


class Prefix(msgspec.Struct, frozen=True, kw_only=True):
    """Go on after text that the app was shown (continuation by text; one choice, streamed)."""

    text: str
    """The answer's text so far, as shown."""
    events: int
    """Unnamed events shown so far: the id of the first that goes on."""
    id: str
    """With ``created`` and ``model``: what the chunks shown so far have in these fields."""
    created: int
    model: str
    used: Used | None = None
    """What the text so far has used; None: its providers had not said."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """Body of ``POST /v1/attempts``."""

    version: Literal[1] = 1
    kind: Kind
    attempt: str
    answer: str
    """The answer's id: the same in every attempt at it, and the receipt's handle for the app."""
    created_s: int
    """Unix seconds for the ``created`` field, the same in every attempt."""
    model: str
    """The model to serve, by the node's own name for it."""
    client_format: ClientFormat
    client_request_digest: str
    """Of the body exactly as the app sent it: ``sha256:<hex>``, or ``salted:<hex>`` with
    ``blinding``. The receipt says it as it is."""
    caller_nonce: str
    """64 hex digits, fresh for each answer."""
    deadline_ms: int
    """Time this attempt may take, milliseconds from its arrival."""
    mode: Mode = "batched"
    audit: bool = False
    """The node may keep what verifiers need to check the answer, and open it to those that its
    operator named. Not beside mode ``private``. The receipt says it."""
    blinding: str = ""
    """64 hex digits, the same in every attempt: what the salts of the receipt's digests are made
    from (``trunkline.receipts.hiding``). Known to gateway and node alone; empty: no salts."""
    seed: str | None = None
    """64 hex digits inherited from an earlier attempt at this answer. The answer owns its seed."""
    node_nonce: str | None = None
    """With ``seed``: the nonce of the node that began the answer, as it said when it accepted; with
    ``nonces`` and ``nonce_index``. None: the seed has none in it."""
    nonces: str | None = None
    nonce_index: int = 0
    numerics: str | None = None
    """With ``resume``: the fingerprint that the node must have; otherwise it refuses (409)."""
    previous: tuple[PreviousAttempt, ...] = ()
    resume: Resume | None = None
    prefix: Prefix | None = None
    """Not beside ``resume``."""
    cache: str = ""
    """64 hex digits: the answer may be one that was given before to the same request of the same
    scope, and may be given to later ones. Empty: neither."""
    share: str = ""
    """64 hex digits: what is computed for this prompt may be taken over by attempts that say the
    same. Empty: by none. Not beside mode ``private``."""
    request: msgspec.Raw
    """The request in the OpenAI format, raw: the receipt's digest binds these very bytes."""


class Accepted(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """First event of every accepted attempt: who serves it and with which seed."""

    attempt: str
    node: str
    operator: str
    model: str
    weights: str | None = None
    """``sha256:<hex>`` where the weights are known."""
    numerics: str | None = None
    """Fingerprint; absent where exact continuation is impossible."""
    seed: str | None = None
    node_nonce: str | None = None
    """In the seed beside the caller's nonce; of an inherited seed, as it was given."""
    nonces: str | None = None
    """Root, hex, of the commitment that holds ``node_nonce`` at ``nonce_index``."""
    nonce_index: int = 0
    prefix: str | None = None
    """With the request's ``prefix``: its text's digest, by ``trunkline.receipts.prefix_digest``."""
    cached: bool = False
    """The answer was made for an earlier attempt, and kept: so will the receipt say."""
    key: str = ""
    """The verifier key that the receipt will be signed by. Empty: the one in ``GET /v1/info``."""


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """Before the first unnamed event of a resumed stream: what the tokens given say, so that a
    gateway can hold it against what its app was shown."""

    digest: str
    """``sha256:<hex>`` by ``trunkline.receipts.ShownDigest``, of the data of all unnamed events up
    to the last given token's."""


class Quota(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of the limits of the account that a node serves from, as its provider stated it."""

    unit: Literal["requests", "tokens", "input_tokens", "output_tokens", "concurrency"]
    limit: int | None = None
    """In one window, or at once."""
    remaining: int | None = None
    window_ms: int | None = None
    """Length of the window; None: not said."""
    reset_ms: int | None = None
    """Until it is full again, milliseconds from now."""


class Limits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Payload of a ``limits`` event: what the provider's own answer said of its limits."""

    quotas: tuple[Quota, ...]


class NodeError(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why an attempt ended without an answer: an HTTP body, or an ``error`` event in the stream."""

    code: str
    message: str
    retryable: bool
    """Another deployment may succeed. False: the request itself is at fault."""
    param: str | None = None
    retry_after_ms: int | None = None
    status: int = 502
    """HTTP status that says the same to a client, when nothing was sent yet."""
    limits: Limits | None = None
    """What the provider's refusal said of its limits."""


class NodeErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    error: NodeError


class SignedReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """Payload of the last event, ``receipt``: enough to verify without asking anybody."""

    receipt: str
    """The receipt's bytes (canonical JSON, UTF-8), exactly as hashed."""
    batch: str
    """The signed note over the batch's Merkle root."""
    index: int
    """The receipt's leaf index in the batch."""
    path: tuple[str, ...]
    """RFC 6962 audit path in the batch, base64, from leaf to root."""


class ServedModel(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One model in ``GET /v1/info``."""

    name: str
    kind: Kind
    provider: str
    """Who runs it: ``embedded`` or the provider's host name."""
    weights: str | None = None
    numerics: str | None = None
    context_tokens: int | None = None
    prefix: bool = False
    """It goes on after a given text (``Prefix``)."""
    limits: Limits | None = None
    """Of the account behind it, where its operator stated them."""


class NodeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """``GET /v1/info``."""

    node: str
    operator: str
    key: str
    """The node's verifier key, C2SP ``vkey`` text."""
    models: tuple[ServedModel, ...]
    log: str | None
    """Origin of the log that the node submits to."""
    statements: tuple[str, ...] = ()
    """What its operator signed of its keys, those of before included: notes, as in
    ``docs/spec/receipt.md``, "Keys"."""
    ready: bool
    running: int
    queued: int
