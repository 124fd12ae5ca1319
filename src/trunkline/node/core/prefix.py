"""How a provider is asked to go on after a given text: its dialect as data, and the request in it.

``docs/spec/attempt-protocol.md``, rule 12. The text so far becomes the beginning of the model's own
turn: a last message of the assistant's, with whatever marks the provider wants on it. No word is
added in any language. Refused: what can not be asked so. Space at the text's end is not sent: some
providers refuse it, some templates drop it, and few models go on well from it (``joint.py`` sees to
it that it is said once).
"""

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from trunkline.base.errors import RequestError
from trunkline.node.core.upstream import with_members
from trunkline.schema.attempt import Prefix, Used
from trunkline.schema.parsing import given, top_level

PrefixName = Literal[
    "none", "prefill", "trailing", "vllm", "sglang", "llama-server", "deepseek", "mistral"
]
"""Names of the dialects, as configured. ``none``: the provider can not go on after a text."""


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """One way of asking."""

    members: Mapping[str, bool] = {}
    """What stands in the request besides."""
    message: Mapping[str, bool] = {}
    """What stands in the last message besides."""
    echoes: bool = False
    """The answer may begin with the text that was given."""
    running_usage: bool = False
    """Each chunk can be had with the usage so far (``stream_options.continuous_usage_stats``)."""


_OPEN_ENDED: Final = {"continue_final_message": True, "add_generation_prompt": False}
_MARKED: Final = {"prefix": True}

DIALECTS: Final[Mapping[PrefixName, Dialect]] = {
    # For other formats than OpenAI's: the mark is for the translator (``schema/grid``), which else
    # refuses a last message of the assistant's.
    "prefill": Dialect(message=_MARKED),
    # A last message of the assistant's is gone on with as it is: OpenRouter and Together, for
    # models that can.
    "trailing": Dialect(),
    "vllm": Dialect(members=_OPEN_ENDED, running_usage=True),
    "sglang": Dialect(members={"continue_final_message": True}, running_usage=True),
    # Builds before May 2026 do not know these members, and go on all the same.
    "llama-server": Dialect(members=_OPEN_ENDED),
    # Only under the base URL that ends in /beta.
    "deepseek": Dialect(message=_MARKED),
    "mistral": Dialect(message=_MARKED, echoes=True),
}


class Prefixes(msgspec.Struct, frozen=True, kw_only=True):
    """The dialect of an account, and of those of its models that have another or none."""

    default: PrefixName = "none"
    models: Mapping[str, PrefixName] = {}

    def of(self, model: str) -> Dialect | None:
        """The model's dialect; None: it can not go on after a text."""
        return DIALECTS.get(self.models.get(model, self.default))


class _Message(msgspec.Struct, frozen=True, kw_only=True):
    role: str


class _Asked(msgspec.Struct, frozen=True, kw_only=True):
    messages: tuple[msgspec.Raw, ...]
    stream: bool | None = None
    n: int | None = None
    logprobs: bool | None = None


_ASKED: Final = msgspec.json.Decoder(_Asked)
_ROLE: Final = msgspec.json.Decoder(_Message)
_COUNT: Final = msgspec.json.Decoder(int)
_encode: Final = msgspec.json.Encoder().encode
_BOUNDS: Final = ("max_tokens", "max_completion_tokens")


def sent(text: str) -> str:
    """The part of the text so far that the provider is given."""
    return text.rstrip()


def going_on(raw: bytes, prefix: Prefix, dialect: Dialect) -> bytes:
    """The request with the text so far as the beginning of the answer. Other members keep their
    bytes. Raises :class:`RequestError` ``cannot_continue``."""
    try:
        asked = _ASKED.decode(raw)
        last = _ROLE.decode(asked.messages[-1]).role if asked.messages else ""
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise cannot_continue("the request does not parse") from None
    if not asked.stream or asked.n not in (None, 1):
        raise cannot_continue("only a stream of one choice is")
    if asked.logprobs:
        raise cannot_continue("log-probabilities can not be given for it")
    if last == "assistant":
        raise cannot_continue("the request itself ends with the beginning of an answer")
    if not sent(prefix.text):
        # Nothing but space yet, which the answer has to begin with again.
        return raw
    message = {"role": "assistant", "content": sent(prefix.text)} | dict(dialect.message)
    messages = b"[%b]" % b",".join((*map(bytes, asked.messages), _encode(message)))
    changes = {name: _encode(value) for name, value in dialect.members.items()}
    changes |= _bounds(raw, prefix.used)
    return with_members(raw, {"messages": messages} | changes)


def _bounds(raw: bytes, used: Used | None) -> dict[str, bytes]:
    """The bounds of the answer's length, less what is there already where that is known."""
    if used is None:
        return {}
    found: dict[str, bytes] = {}
    members = top_level(raw)
    for name in _BOUNDS:
        bound = members.get(name, msgspec.Raw())
        if not given(bound):
            continue
        try:
            found[name] = _encode(max(_COUNT.decode(bound) - used.completion, 1))
        except msgspec.DecodeError:
            # Not a count: the provider will say so.
            continue
    return found


def cannot_continue(why: str) -> RequestError:
    """This answer is not continued here by its text."""
    return RequestError(f"prefix: {why}", code="cannot_continue", param="prefix", status=409)
