"""What is said to a vLLM server and what it answers: bodies of ``/v1/completions`` and its like as
typed values.

From vLLM's own definitions (``vllm/entrypoints/openai/completion/protocol.py`` of 0.32.0): a prompt
may be token ids, ``return_token_ids`` brings the prompt's and the answer's back,
``prompt_logprobs: K`` the K likeliest tokens of each position of the prompt but the first, and the
prompt's own token if it is not among them. Parameters that the server would take from the model's
``generation_config.json`` where a request is silent are all said.

Pure. What a server says is untrusted: refused is what does not answer the question.
"""

from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec
import numpy as np

from trunkline.base.errors import BadResponseError
from trunkline.engine.keyed import ARGUMENT, Keyed, encode
from trunkline.inference.ports import Generate, TokenLogprob
from trunkline.sampling.leading import Leading

NOT_AN_ANSWER: Final = "vllm_bad_answer"
_NAMED: Final = "token_id:"
_NEUTRAL: Final = {
    "n": 1,
    "temperature": 0.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "min_tokens": 0,
    "return_token_ids": True,
}


class Version(msgspec.Struct, frozen=True):
    """``GET /version``."""

    version: str


class Served(msgspec.Struct, frozen=True):
    """A model of ``GET /v1/models``."""

    id: str
    max_model_len: int | None = None


class Models(msgspec.Struct, frozen=True):
    data: list[Served]


class Tokens(msgspec.Struct, frozen=True):
    """Of ``POST /tokenize``."""

    tokens: list[int]


class Logprobs(msgspec.Struct, frozen=True):
    """Of a piece of a stream, per token; names are ``token_id:…``."""

    token_logprobs: list[float | None] = []
    top_logprobs: list[dict[str, float] | None] = []


class Piece(msgspec.Struct, frozen=True):
    """The one choice of an event."""

    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


class Event(msgspec.Struct, frozen=True):
    """An event of a stream; the last may have no choice."""

    choices: list[Piece] = []


class _Value(msgspec.Struct, frozen=True):
    logprob: float


class _Scored(msgspec.Struct, frozen=True):
    prompt_token_ids: list[int] | None = None
    prompt_logprobs: list[msgspec.Raw] | None = None


class Whole(msgspec.Struct, frozen=True):
    """An answer that is no stream, as far as scoring reads it."""

    choices: list[_Scored]


_Position = dict[int, _Value]
_T = TypeVar("_T")


def read(raw: bytes | msgspec.Raw, kind: type[_T], what: str) -> _T:
    """What a server said, ``what`` where it is no such thing: ``BadResponseError``."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _bad(what) from None


def tokenize_body(model: str, text: str) -> bytes:
    return msgspec.json.encode({"model": model, "prompt": text, "add_special_tokens": False})


def generate_body(model: str, job: Generate, ends: Sequence[int]) -> bytes:
    """A keyed request, streamed. ``ends``: the tokens that end an answer, all of them."""
    rule = msgspec.structs.replace(job.sampling, top_logprobs=-1)
    body: dict[str, object] = _NEUTRAL | {
        "model": model,
        "prompt": [*job.prompt, *job.prefix],
        "max_tokens": job.max_tokens - len(job.prefix),
        "stream": True,
        # The end tokens are the model file's, whatever the server's copy says.
        "ignore_eos": True,
        "stop_token_ids": list(ends),
        "vllm_xargs": {ARGUMENT: encode(Keyed(sampling=rule, given=len(job.prefix)))},
    }
    if job.sampling.top_logprobs >= 0:
        body |= {"logprobs": job.sampling.top_logprobs, "return_tokens_as_token_ids": True}
    return msgspec.json.encode(body)


def probe_body(model: str) -> bytes:
    """A request that only a server with our logits processor refuses."""
    body = {"model": model, "prompt": [0], "max_tokens": 1, "vllm_xargs": {ARGUMENT: "?"}}
    return msgspec.json.encode(_NEUTRAL | body)


def score_body(model: str, tokens: Sequence[int], candidates: int) -> bytes:
    """A prefill over ``tokens`` (two at least) that brings the likeliest at each."""
    body = {"model": model, "prompt": tokens, "max_tokens": 1, "prompt_logprobs": candidates}
    return msgspec.json.encode(_NEUTRAL | body)


def scored(
    body: bytes, tokens: Sequence[int], first: int, *, candidates: int, vocabulary: int
) -> list[Leading]:
    """What a server's answer to :func:`score_body` says of ``tokens`` from index ``first`` on.

    Raises ``BadResponseError`` where it is no answer to that.
    """
    found = read(body, Whole, "no scores").choices
    if len(found) != 1:
        raise _bad("no scores")
    choice = found[0]
    positions = choice.prompt_logprobs or []
    if choice.prompt_token_ids != list(tokens) or len(positions) != len(tokens):
        raise _bad("scores of another prompt")
    return [
        _leading(positions[at], tokens[at], candidates=candidates, vocabulary=vocabulary)
        for at in range(first, len(tokens))
    ]


def _leading(raw: msgspec.Raw, token: int, *, candidates: int, vocabulary: int) -> Leading:
    said = read(raw, _Position, "a position without its values")
    values = {known(one, vocabulary): value.logprob for one, value in said.items()}
    if token not in values:
        raise _bad("a position without its token")
    claimed = values[token]
    expected = min(candidates, vocabulary)
    if len(values) == expected + 1:
        # Not among the likeliest: it came on top of them, and bounds no other.
        del values[token]
    if len(values) != expected:
        raise _bad("another number of values than was asked for")
    return Leading(
        tokens=np.array(list(values), dtype=np.int64),
        logprobs=np.array(list(values.values())),
        claimed=claimed,
        vocabulary=vocabulary,
    )


def event(data: bytes) -> Piece | None:
    """The choice of a stream's event, if it has one. Raises ``BadResponseError``."""
    choices = read(data, Event, "an event of another form").choices
    if len(choices) > 1:
        raise _bad("several choices")
    return choices[0] if choices else None


def beside(
    piece: Piece, at: int, count: int, *, vocabulary: int
) -> tuple[float, tuple[TokenLogprob, ...]]:
    """The log-probability of a piece's token ``at``, and the ``count`` likeliest there; nothing
    where ``count`` is negative. Raises ``BadResponseError``."""
    if count < 0:
        return 0.0, ()
    said = piece.logprobs
    own = said.token_logprobs[at] if said and at < len(said.token_logprobs) else None
    if said is None or own is None or at >= len(said.top_logprobs):
        raise _bad("a token without its log-probability")
    try:
        pairs = [
            (known(int(name.removeprefix(_NAMED)), vocabulary), value)
            for name, value in (said.top_logprobs[at] or {}).items()
        ]
    except ValueError:
        raise _bad("a token without its number") from None
    return own, ranked(pairs, count)


def ranked(pairs: Sequence[tuple[int, float]], count: int) -> tuple[TokenLogprob, ...]:
    """The ``count`` likeliest, equal ones by ascending id."""
    best = sorted(pairs, key=lambda pair: (-pair[1], pair[0]))[:count]
    return tuple(TokenLogprob(token=token, logprob=value) for token, value in best)


def known(token: int, vocabulary: int) -> int:
    """A token that a server named. Raises ``BadResponseError`` for one that there is not."""
    if not 0 <= token < vocabulary:
        raise _bad("a token that there is not")
    return token


def _bad(what: str) -> BadResponseError:
    return BadResponseError(f"the vLLM server answered with {what}", code=NOT_AN_ANSWER)
