"""Ranges and rules across fields of a chat request, which its types alone can not say.

Limits are OpenAI's, from the API reference, where it gives one; ours are marked. Each refusal is a
:class:`RequestError` that names the parameter and repeats no value.
"""

import re
from typing import TYPE_CHECKING

import msgspec

from trunkline.schema.openai_parts import (
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    RefusalPart,
    TextPart,
    ToolChoice,
)
from trunkline.schema.parsing import ID_CHARS_MAX, check_chars, check_range, given, invalid

if TYPE_CHECKING:
    from trunkline.schema.openai_chat import ChatParameters

CHOICES_MAX = 16
"""Ours: OpenAI allows 128. Choices go in lock-step, and each holds a place in the batch."""
STOPS_MAX = 4
STOP_CHARS_MAX = 1024
"""Ours."""
TOP_LOGPROBS_MAX = 20
MESSAGES_MAX = 10_000
"""Ours."""
PARTS_MAX = 2_000
"""Ours: parts of one message."""
TOOLS_MAX = 128
TOOL_CALLS_MAX = 1_000
"""Ours: calls in one message."""
LOGIT_BIASES_MAX = 1_024
"""Ours."""
METADATA_MAX = 16
METADATA_KEY_CHARS_MAX = 64
METADATA_VALUE_CHARS_MAX = 512
TOKENS_MAX = 2**31 - 1
TOP_K_MAX = 2**31 - 1
NAME_CHARS_MAX = 128
"""Ours: OpenAI allows 64, the Anthropic format 128."""

_NAME = re.compile(rf"[A-Za-z0-9_-]{{1,{NAME_CHARS_MAX}}}")
_TOKEN_ID = re.compile(r"[0-9]{1,9}")


def check(view: "ChatParameters") -> None:
    """Raise :class:`RequestError` for the first rule that the request breaks."""
    check_chars(view.model, "model")
    _check_ranges(view)
    _check_lengths(view)
    _check_stop(view)
    _check_maps(view)
    _check_labels(view)
    _check_tools(view)
    _check_functions(view)
    _check_format(view)
    if not 1 <= len(view.messages) <= MESSAGES_MAX:
        raise invalid(f"must hold 1 to {MESSAGES_MAX} messages", "messages")
    for index, message in enumerate(view.messages):
        _check_message(message, f"messages[{index}]")


def _check_ranges(view: "ChatParameters") -> None:
    check_range(view.temperature, 0, 2, "temperature")
    check_range(view.top_p, 0, 1, "top_p")
    check_range(view.min_p, 0, 1, "min_p")
    check_range(view.top_k, 0, TOP_K_MAX, "top_k")
    check_range(view.frequency_penalty, -2, 2, "frequency_penalty")
    check_range(view.presence_penalty, -2, 2, "presence_penalty")
    check_range(view.n, 1, CHOICES_MAX, "n")
    check_range(view.seed, -(2**63), 2**63 - 1, "seed")
    check_range(view.top_logprobs, 0, TOP_LOGPROBS_MAX, "top_logprobs")
    if view.top_logprobs is not None and not view.logprobs:
        raise invalid("needs logprobs to be true", "top_logprobs")


def _check_lengths(view: "ChatParameters") -> None:
    check_range(view.max_tokens, 1, TOKENS_MAX, "max_tokens")
    check_range(view.max_completion_tokens, 1, TOKENS_MAX, "max_completion_tokens")
    if view.max_tokens is not None and view.max_completion_tokens is not None:
        raise invalid(
            "can not be given together with max_completion_tokens", "max_tokens", "invalid_value"
        )
    if view.stream_options is not None and not view.stream:
        raise invalid("needs stream to be true", "stream_options")


def _check_stop(view: "ChatParameters") -> None:
    if view.stop is None:
        return
    stops = (view.stop,) if isinstance(view.stop, str) else view.stop
    if len(stops) > STOPS_MAX:
        raise invalid(f"must hold at most {STOPS_MAX} strings", "stop")
    for stop in stops:
        check_chars(stop, "stop", STOP_CHARS_MAX)


def _check_maps(view: "ChatParameters") -> None:
    biases = view.logit_bias or {}
    if len(biases) > LOGIT_BIASES_MAX:
        raise invalid(f"must hold at most {LOGIT_BIASES_MAX} tokens", "logit_bias")
    for token, bias in biases.items():
        if _TOKEN_ID.fullmatch(token) is None:
            raise invalid("must have token ids for keys", "logit_bias")
        check_range(bias, -100, 100, "logit_bias")
    metadata = view.metadata or {}
    if len(metadata) > METADATA_MAX:
        raise invalid(f"must hold at most {METADATA_MAX} pairs", "metadata")
    for key, value in metadata.items():
        if len(key) > METADATA_KEY_CHARS_MAX or len(value) > METADATA_VALUE_CHARS_MAX:
            raise invalid(
                f"keys have at most {METADATA_KEY_CHARS_MAX} characters, "
                f"values {METADATA_VALUE_CHARS_MAX}",
                "metadata",
            )


def _check_labels(view: "ChatParameters") -> None:
    for param in ("user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"):
        value = getattr(view, param)
        if value is not None and len(value) > ID_CHARS_MAX:
            raise invalid(f"must have at most {ID_CHARS_MAX} characters", param)


def _check_tools(view: "ChatParameters") -> None:
    tools = view.tools or ()
    if len(tools) > TOOLS_MAX:
        raise invalid(f"must hold at most {TOOLS_MAX} tools", "tools")
    for index, tool in enumerate(tools):
        param = f"tools[{index}]"
        if (tool.function if tool.type == "function" else tool.custom) is None:
            raise invalid("is required", f"{param}.{tool.type}", "missing_required_parameter")
        if tool.function is not None and tool.custom is not None:
            raise invalid("must be a function or a custom tool, not both", param)
        _check_name(tool.name, f"{param}.{tool.type}.name")
        if tool.function is not None and not _is_object(tool.function.parameters):
            raise invalid("must be an object", f"{param}.function.parameters", "invalid_type")
    names = [tool.name for tool in tools]
    if len(set(names)) != len(names):
        raise invalid("must have different names", "tools")
    _check_tool_choice(view, frozenset(names))


def _check_tool_choice(view: "ChatParameters", names: frozenset[str]) -> None:
    choice = view.tool_choice
    if choice is None or choice == "none":
        return
    if not names:
        raise invalid("needs tools", "tool_choice")
    if not isinstance(choice, ToolChoice):
        return
    named = {"function": choice.function, "custom": choice.custom}.get(choice.type)
    if choice.type == "allowed_tools":
        if choice.allowed_tools is None:
            raise invalid("is required", "tool_choice.allowed_tools", "missing_required_parameter")
    elif named is None:
        raise invalid("is required", f"tool_choice.{choice.type}", "missing_required_parameter")
    elif named.name not in names:
        raise invalid("names a tool that tools does not hold", "tool_choice")


def _check_functions(view: "ChatParameters") -> None:
    functions = view.functions or ()
    if len(functions) > TOOLS_MAX:
        raise invalid(f"must hold at most {TOOLS_MAX} functions", "functions")
    for index, function in enumerate(functions):
        _check_name(function.name, f"functions[{index}].name")
    if functions and view.tools:
        raise invalid("can not be given together with tools", "functions")
    if view.function_call is not None and not functions:
        raise invalid("needs functions", "function_call")


def _check_format(view: "ChatParameters") -> None:
    wanted = view.response_format
    if wanted is None or wanted.type != "json_schema":
        return
    if wanted.json_schema is None:
        raise invalid("is required", "response_format.json_schema", "missing_required_parameter")
    _check_name(wanted.json_schema.name, "response_format.json_schema.name")
    if not _is_object(wanted.json_schema.schema):
        raise invalid("must be an object", "response_format.json_schema.schema", "invalid_type")


def _is_object(raw: msgspec.Raw) -> bool:
    return not given(raw) or bytes(raw)[:1] == b"{"


def _check_name(name: str, param: str) -> None:
    if _NAME.fullmatch(name) is None:
        raise invalid(
            f"must have 1 to {NAME_CHARS_MAX} letters, digits, underscores or dashes", param
        )


_PARTS_ALLOWED = {
    "system": (TextPart,),
    "developer": (TextPart,),
    "user": (TextPart, ImagePart, AudioPart, FilePart),
    "assistant": (TextPart, RefusalPart),
    "tool": (TextPart,),
    "function": (),
}
_ONLY_ASSISTANT = ("tool_calls", "refusal", "audio", "function_call", "reasoning_content")


def _check_message(message: Message, param: str) -> None:
    role = message.role
    if isinstance(message.content, tuple):
        if not 1 <= len(message.content) <= PARTS_MAX:
            raise invalid(f"must hold 1 to {PARTS_MAX} parts", f"{param}.content")
        for index, part in enumerate(message.content):
            if not isinstance(part, _PARTS_ALLOWED[role]):
                raise invalid(
                    f"has a type that a message of role {role} can not hold",
                    f"{param}.content[{index}]",
                )
    elif message.content is None and not _may_be_empty(message):
        raise invalid("is required", f"{param}.content", "missing_required_parameter")
    if role != "assistant":
        for name in _ONLY_ASSISTANT:
            if getattr(message, name) is not None:
                raise invalid("belongs to messages of role assistant", f"{param}.{name}")
    _check_links(message, param)


def _may_be_empty(message: Message) -> bool:
    if message.role == "function":
        return True
    said = (message.tool_calls, message.refusal, message.audio, message.function_call)
    return message.role == "assistant" and any(value is not None for value in said)


def _check_links(message: Message, param: str) -> None:
    """What ties a call to its result: ids and names."""
    if message.role == "tool":
        if message.tool_call_id is None:
            raise invalid("is required", f"{param}.tool_call_id", "missing_required_parameter")
        check_chars(message.tool_call_id, f"{param}.tool_call_id")
    elif message.tool_call_id is not None:
        raise invalid("belongs to messages of role tool", f"{param}.tool_call_id")
    if message.is_error is not None and message.role != "tool":
        raise invalid("belongs to messages of role tool", f"{param}.is_error")
    if message.role == "function" and not message.name:
        raise invalid("is required", f"{param}.name", "missing_required_parameter")
    calls = message.tool_calls or ()
    if len(calls) > TOOL_CALLS_MAX:
        raise invalid(f"must hold at most {TOOL_CALLS_MAX} calls", f"{param}.tool_calls")
    for index, call in enumerate(calls):
        if (call.function if call.type == "function" else call.custom) is None:
            raise invalid(
                "is required",
                f"{param}.tool_calls[{index}].{call.type}",
                "missing_required_parameter",
            )
        check_chars(call.id, f"{param}.tool_calls[{index}].id")
