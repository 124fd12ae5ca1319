"""What a node or a verifier asks of an engine: typed ports that hide which one it is.

An engine generates tokens from tokens, or scores tokens that somebody says a model chose.
Everything about text, chat, tools and wire formats is its user's. The embedded engine
(``engine/client.py``) is a child process behind these ports, vLLM (``engine/vllm.py``) a server.
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Final, Protocol

import msgspec


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine says of the model it has loaded, once, when it is ready."""

    name: str
    weights_digest: str
    """``sha256:<hex>`` of the weights file as loaded."""
    source_digest: str
    """``sha256:<hex>`` of the file the weights come from (the same when nothing was derived)."""
    numerics: str
    """Fingerprint of everything that decides a logit bit: build, weights, settings, CPU features.
    Equal strings on two nodes mean: same tokens in, same logits out, bit for bit."""
    context_tokens: int
    """Longest prompt plus answer, in tokens."""
    vocabulary_size: int
    eos_token_ids: tuple[int, ...]
    """Tokens that end a turn (end of text, end of message)."""
    chat_template: str
    """Jinja source from the model file; empty if it has none."""
    bos_text: str
    eos_text: str
    temperature: float = 1.0
    """With ``top_p``: what its authors advise where a request sets neither."""
    top_p: float = 1.0


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How the next token is chosen. ``temperature == 0`` is greedy."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """0: no limit."""
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: dict[int, float] = {}
    seed: bytes = bytes(32)
    """The 32-byte seed that keys the sampling noise for this choice."""
    top_logprobs: int = -1
    """-1: no log-probabilities. 0 to 20: the chosen token's and this many alternatives'."""
    grammar: str = ""
    """GBNF; empty: unconstrained. The noise is the same, restricted to what the grammar admits."""


class Sharing(msgspec.Struct, frozen=True, kw_only=True):
    """Whose later work may take over what was computed for this prompt, instead of computing it
    again. It changes no bit of any result, but can be told by the time that it takes."""

    lead: int = 0
    """So many of the prompt's first tokens are the template's own and nobody's secret: anybody's
    may. Of ``Score``: 0."""
    scope: str = ""
    """All of it by work of the same scope. Empty: nothing but the lead, which is all that stays."""


NOT_SHARED: Final = Sharing()


class Generate(msgspec.Struct, frozen=True, kw_only=True):
    """One sequence to generate."""

    prompt: tuple[int, ...]
    """Rendered prompt's token ids."""
    prefix: tuple[int, ...] = ()
    """Tokens of the answer already produced (elsewhere): continue after them. Never complete in
    themselves. The engine does not emit them again, but re-scores them when log-probabilities are
    asked for (``Token.replayed``)."""
    max_tokens: int
    """Most tokens of the answer, ``prefix`` included. Bounded by the context by the service."""
    sampling: Sampling
    sharing: Sharing = NOT_SHARED


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True):
    token: int
    logprob: float


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """One token of the answer, in order."""

    token: int
    position: int
    """0 for the answer's first token."""
    replayed: bool = False
    """True for a token of ``Generate.prefix``, sent only when log-probabilities were asked for."""
    logprob: float = 0.0
    top: tuple[TokenLogprob, ...] = ()
    finish: str = ""
    """On the last event: ``stop`` (the token is an end-of-turn token), ``length``, or ``grammar``
    (the grammar admits nothing more: a complete document)."""


class Engine(Protocol):
    """A loaded model. All methods raise ``OverloadedError`` when a bounded queue is full,
    ``UpstreamError`` subclasses when the engine died or stalled, ``RequestError`` for a request no
    engine could serve (prompt longer than the context, a grammar that does not parse, ...)."""

    async def model(self) -> ModelInfo:
        """Describe the model; waits until it is loaded (with a deadline)."""
        ...

    async def tokenize(self, text: str, *, parse_special: bool) -> tuple[int, ...]:
        """Token ids of ``text``. ``parse_special``: spell out control tokens such as
        ``<|im_start|>`` as one token (templates: yes; user text: no)."""
        ...

    def pieces(self) -> Sequence[bytes]:
        """The bytes each token id stands for (control tokens: none). There once ``model`` was
        awaited."""
        ...

    def generate(self, job: Generate) -> AsyncGenerator[Token, None]:
        """Yield tokens until one carries ``finish``. ``aclose`` cancels the work at once.

        Deterministic: the yielded tokens are a function of (weights, numerics, job) alone, whatever
        else is in the batch, and continuing with a ``prefix`` gives exactly the tail.
        """
        ...

    async def close(self) -> None:
        """Stop the engine's process, waiting for it."""
        ...


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """One choice of an answer, to be scored under a model: one prefill over prompt and answer."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    """The answer's token ids, its end token included where it ended with one."""
    sampling: Sampling
    """As it was generated: the choice's own seed, and ``grammar`` where there was one."""
    sharing: Sharing = NOT_SHARED


class Beside(msgspec.Struct, frozen=True, array_like=True):
    """What the model says beside one token: its log-probability, and the likeliest tokens'."""

    logprob: float
    top: tuple[TokenLogprob, ...]


class TokenScore(msgspec.Struct, frozen=True, array_like=True):
    """How one token of an answer stands under the scoring model."""

    token: int
    position: int
    """0 for the answer's first token."""
    margin: float
    """By how much another token beats it, in units of logits: 0 where it is the one that the model
    with this seed chooses. See ``trunkline.sampling.score``."""
    kept: bool
    """It survives top-k, top-p, min-p and the grammar."""
    decided: bool
    """False: roundings that are no part of the rule could have changed the choice."""
    entropy: float
    """Of the distribution it was drawn from, nats; known before the noise. 0 when greedy."""
    end: float
    """Probability, in that distribution, that the answer ended here."""
    beside: Beside | None = None
    """As ``Token``'s, where ``Sampling.top_logprobs`` asks for it; None: not asked for, or the
    engine does not say it."""


class Scorer(Protocol):
    """A loaded model that checks others' answers. Errors as of :class:`Engine`."""

    async def model(self) -> ModelInfo: ...

    async def tokenize(self, text: str, *, parse_special: bool) -> tuple[int, ...]: ...

    def pieces(self) -> Sequence[bytes]: ...

    async def score(self, job: Score) -> tuple[TokenScore, ...]:
        """A score per token of ``job.tokens``, in order."""
        ...

    async def self_test(self) -> str:
        """``sha256:<hex>`` of the logit bits over a fixed script: equal on two machines means that
        they compute alike. Raises ``UpstreamError`` (``engine_not_exact``) where they depend on how
        work is cut: such an engine is never in the exact regime."""
        ...

    async def close(self) -> None: ...


class Embedder(Protocol):
    """Turns texts into unit vectors."""

    async def model(self) -> "EmbedderInfo": ...

    async def embed(self, texts: Sequence[str], *, query: bool) -> "Embedded":
        """Vectors of ``texts`` in order, and the tokens they cost."""
        ...

    async def close(self) -> None: ...


class Embedded(msgspec.Struct, frozen=True, kw_only=True):
    vectors: tuple[bytes, ...]
    """Little-endian float32, one per text."""
    tokens: int


class EmbedderInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What an embedder is."""

    dimensions: int
    numerics: str
    """Fingerprint of the bits that it computes for fixed texts, on this machine: its self-test. Who
    has another rounds otherwise here and there."""
    weights_digest: str
    """Of the model's file, ``sha256:…``."""
