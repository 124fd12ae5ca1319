"""Small slips in a provider's answer, put right where that loses and invents nothing.

A gateway reads chunks strictly, and so do apps: a ``delta`` that is null makes many of them fail.
Where a provider means the format and misses it by a null, a missing default or a number written as
text, its chunk is written anew with what the format says for that. A finish reason under another
format's name for the same gets this one's. Usage that is no count says nothing, and is written as
such: an answer is not lost for it. Text and tool calls are never touched; everything else that does
not parse stays as it is, and fails.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from trunkline.schema.openai_answer import Usage

Members = dict[str, object]

COUNT_CHARS_MAX: Final = 15
FINISHES: Final[Mapping[str | None, str | None]] = {
    "": None, "null": None,
    "STOP": "stop", "Stop": "stop", "end_turn": "stop", "eos": "stop", "eos_token": "stop",
    "stop_sequence": "stop", "STOP_SEQUENCE": "stop", "COMPLETE": "stop", "FINISH": "stop",
    "MAX_TOKENS": "length", "max_tokens": "length", "LENGTH": "length",
    "model_context_window_exceeded": "length", "model_length": "length",
    "tool_use": "tool_calls", "TOOL_CALL": "tool_calls",
    "SAFETY": "content_filter", "RECITATION": "content_filter", "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter", "SPII": "content_filter",
    "CONTENT_FILTERED": "content_filter", "content_filtered": "content_filter",
    "guardrail_intervened": "content_filter", "refusal": "content_filter",
    "sensitive": "content_filter", "ERROR_TOXIC": "content_filter",
}  # fmt: skip
"""What the format calls the finish reasons of Gemini, Anthropic, Bedrock and its models, Cohere,
Mistral, Zhipu, DashScope and text-generation-inference."""
COUNT_MAX: Final = 10**15 - 1
_COUNTS: Final = ("prompt_tokens", "completion_tokens", "total_tokens")
_DETAILS: Final = ("prompt_tokens_details", "completion_tokens_details")
_encode = msgspec.json.Encoder().encode


def mended(data: bytes) -> bytes:
    """The chunk or completion with its slips put right; as it came where there are none."""
    try:
        found: object = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return data
    if not isinstance(found, dict):
        return data
    members: Members = found
    changed = [
        _null_to(members, "choices", []),
        _null_to(members, "id", ""),
        _null_to(members, "model", ""),
        _number(members, "created"),
        _usage(members),
    ]
    choices = members.get("choices")
    listed = choices if isinstance(choices, list) else []
    changed += [_choice(choice) for choice in listed if isinstance(choice, dict)]
    return _encode(members) if any(changed) else data


def _choice(choice: Members) -> bool:
    changed = [_null_to(choice, "index", 0), _number(choice, "index")]
    if "index" not in choice:
        choice["index"] = 0
        changed.append(True)
    if "message" not in choice and choice.get("delta") is None:
        # Left out where a chunk has nothing but a filter's findings (Azure).
        choice["delta"] = {}
        changed.append(True)
    finish = choice.get("finish_reason")
    if isinstance(finish, str) and finish in FINISHES:
        choice["finish_reason"] = FINISHES[finish]
        changed.append(True)
    return any(changed)


def countable(usage: Usage) -> bool:
    """Whether its counts are some."""
    counts = (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)
    return all(0 <= count <= COUNT_MAX for count in counts)


def _usage(members: Members) -> bool:
    usage = members.get("usage")
    if usage is None:
        return False
    changed: list[bool] = []
    if isinstance(usage, dict):
        changed = [_number(usage, name) for name in _COUNTS]
        details = [usage.get(name) for name in _DETAILS]
        for one in details:
            if isinstance(one, dict):
                changed += [_number(one, name) for name in list(one)]
    if not _reads(usage):
        members["usage"] = None
        return True
    return any(changed)


def _reads(usage: object) -> bool:
    try:
        return countable(msgspec.convert(usage, Usage))
    except msgspec.ValidationError:
        return False


def _null_to(members: Members, name: str, default: object) -> bool:
    """Write a null as what stands for nothing. Whether there was one."""
    if name not in members or members[name] is not None:
        return False
    members[name] = default
    return True


def _number(members: Members, name: str) -> bool:
    """Write a whole number as one: ``8.0``, ``"8"``. Whether it was another."""
    value = members.get(name)
    if isinstance(value, str) and value.isascii() and value.isdigit():
        if len(value) > COUNT_CHARS_MAX:
            return False
    elif not (isinstance(value, float) and value.is_integer()):
        return False
    members[name] = int(value)
    return True
