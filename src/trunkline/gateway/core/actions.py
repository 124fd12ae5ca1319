"""What the answer's state machine is told and what it asks of the shell: plain records."""

import re
from typing import Final, Literal

import msgspec

from trunkline.base.errors import Error, UpstreamError
from trunkline.gateway.core.deadline import Timeouts
from trunkline.gateway.core.normal import Timings
from trunkline.gateway.core.policy import Hedging
from trunkline.gateway.core.route import Candidate, Deployment, Need
from trunkline.gateway.core.tenant import ANONYMOUS, INTERACTIVE, Tenant
from trunkline.gateway.core.values import Values
from trunkline.receipts import VerifiedReceipt
from trunkline.schema.attempt import (
    Accepted,
    ClientFormat,
    Kind,
    Mode,
    Prefix,
    PreviousAttempt,
    SignedReceipt,
)
from trunkline.schema.errors import Produced

CODE_CHARS_MAX: Final = 64
_CODE: Final = re.compile(r"[a-z][a-z0-9_]*")


Judgement = Literal["pass", "fail", "inconclusive"]
"""What verifiers say of an answer that is held for them."""


class Before(msgspec.Struct, frozen=True, kw_only=True):
    """The answer is shown only once verifiers have passed it."""

    deadline_s: float
    """How long it is held for them once it is whole, seconds."""
    agree: int = 1
    """Operators whose verifiers must pass it."""
    release: bool = False
    """Where they have not said by then: show it all the same."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One answer to be had: what does not change from attempt to attempt."""

    answer: str
    kind: Kind
    model: str
    stream: bool
    choices: int
    """Choices asked for (``n``); 1 for embeddings."""
    client_format: ClientFormat
    client_digest: str
    """Of the body exactly as the app sent it, as the receipt binds it."""
    request_digest: str
    """Of the request bytes that nodes are given, as the receipt binds it."""
    caller_nonce: str
    created_s: int
    mode: Mode
    before: Before | None = None
    """None: the answer is shown as it comes, and verified after."""
    deadline_s: float
    """Monotonic time at which the whole answer is due."""
    timeouts: Timeouts
    audit: bool = False
    """Nodes may keep what verifiers need to check the answer. Not in mode ``private``."""
    blinding: str = ""
    """64 hex digits: what the receipts' digests are salted with; empty: they are not."""
    values: Values | None = None
    """What tool calls and JSON documents of the answer must be; None: it has none."""
    hold: bool = False
    """Text too is shown only when the answer is whole, unless it can be continued exactly."""
    attempts_max: int = 6
    """Attempts in a row without a new token. Where nobody is there, as many as are made in
    ``Timeouts.away_s``."""
    candidates: tuple[Candidate, ...] = ()
    """What may serve the model, by the routing policy. Empty: the model itself, anywhere."""
    hedging: Hedging | None = None
    """When a second attempt may run beside a slow one; None: never."""
    tenant: Tenant = ANONYMOUS
    """Who asks."""
    priority: int = INTERACTIVE
    tokens: int = 0
    """Estimate of what it may cost: its prompt and what it may generate; 0: not estimated."""
    prompt_tokens: int = 0
    """Of ``tokens``: the prompt's."""
    text_bytes: int = 0
    """What ``prompt_tokens`` was estimated from; 0: not from text alone."""
    again: bool = False
    """A gateway died over an earlier try to make this answer."""
    cache: str = ""
    """Scope within which nodes may keep the answer and give it again; empty: they may not."""
    share: str = ""
    """Scope within which nodes may take over what they computed for a prompt; empty: none."""
    size: int = 0
    """Class of the request's size: what reads it takes longer where it is larger."""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why an attempt, or in the end the answer, failed. No content in any field."""

    code: str
    message: str
    retryable: bool = True
    status: int = 502
    param: str | None = None
    retry_after_s: float | None = None
    refused: bool = False
    """No connection could be made at all: whatever else that node serves is gone too."""
    dishonest: bool = False
    """The node said something untrue: it is not asked again for this answer."""
    suspect: bool = False
    """What the attempt sent before may be wrong as well."""
    damaging: bool = False
    """The text that the attempt sent before is wrong."""
    faultless: bool = False
    """Says nothing against the deployment: the caller's request, or a queue that is full."""
    produced: Produced | None = None
    """How much of the answer the app had been sent; None: nothing."""
    unfit: bool = False
    """This node can not honour the request, and will not on a second try; another node may."""

    @classmethod
    def of(cls, error: Error) -> "Failure":
        """What an error met on the way means for the attempt."""
        upstream = error if isinstance(error, UpstreamError) else None
        return cls(
            code=stable_code(error.error_code),
            message=error.told,
            retryable=upstream is None or upstream.retryable,
            status=error.status,
            retry_after_s=None if upstream is None else upstream.retry_after_s,
        )


def stable_code(code: str) -> str:
    """A code as a node gave it, if it looks like one: it goes into receipts, logs and clients."""
    if len(code) <= CODE_CHARS_MAX and _CODE.fullmatch(code):
        return code
    return UpstreamError.code


class Seek(msgspec.Struct, frozen=True, kw_only=True):
    """Find a deployment for ``need``: report ``placed`` or ``unplaced``."""

    number: int
    """Counts what was sought from 0; the attempt that comes of it has the same number."""
    need: Need


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """Start an attempt at ``deployment`` after ``delay_s``."""

    number: int
    """Every event of this attempt comes back with it."""
    attempt: str
    deployment: Deployment
    delay_s: float = 0.0
    previous: tuple[PreviousAttempt, ...]
    origin: Accepted | None = None
    """What the node said that began the answer, whose seed and numerics it goes on with; None: it
    begins the answer, or goes on after text."""
    resume: tuple[tuple[int, ...], ...] | None = None
    prefix: Prefix | None = None
    """The text to go on after, where tokens can not be given."""
    first_event: int
    """Id that the attempt's first unnamed event must have: the one after the last token given."""

    @property
    def seed(self) -> str | None:
        """Of the answer, where it is given."""
        return None if self.origin is None else self.origin.seed


class Cancel(msgspec.Struct, frozen=True, kw_only=True):
    """Close the connection of this attempt: its node must stop working at once."""

    number: int


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt is over: for health and diagnostics. ``failure`` is None after success."""

    number: int
    attempt: str
    deployment: Deployment
    failure: Failure | None
    timings: Timings


class Chain(msgspec.Struct, frozen=True, kw_only=True):
    """Whose hash chain the text that is relayed belongs to."""

    attempt: str
    request: str
    """The request's digest, as the receipt binds it: what the chain begins with."""
    repeats: int
    """Messages, of those that the app has, that it begins with: they were sent once more."""


class Relay(msgspec.Struct, frozen=True, kw_only=True):
    """Give the app this event data, in order. The first one implies the response head."""

    data: bytes


class Store(msgspec.Struct, frozen=True, kw_only=True):
    """Make this verified part durable, then call ``stored``; only then may the answer finish."""

    number: int
    attempt: str
    deployment: Deployment
    accepted: Accepted
    signed: SignedReceipt
    verified: VerifiedReceipt
    text_bytes: int = 0
    """Of all that its node sent: text, thoughts, calls' names and arguments."""


class Judge(msgspec.Struct, frozen=True, kw_only=True):
    """Ask verifiers about this verified part before it is stored, and report ``judged``."""

    part: Store
    tokens: tuple[tuple[int, ...], ...]
    """Every token of the answer, per choice."""
    before: Before
    vectors: tuple[bytes, ...] = ()
    """Of embeddings: each input's, little-endian float32."""


class Finish(msgspec.Struct, frozen=True, kw_only=True):
    """Close the answer to the app: everything of it was relayed and its evidence is durable."""


class Fail(msgspec.Struct, frozen=True, kw_only=True):
    """Tell the app explicitly that there is no (whole) answer."""

    failure: Failure


Action = Seek | Start | Cancel | Ended | Relay | Judge | Store | Finish | Fail
