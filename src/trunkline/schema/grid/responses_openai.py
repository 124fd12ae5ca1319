"""Client: OpenAI Responses. Provider: OpenAI Chat Completions. A Responses request becomes a chat
request, and the answer comes back, whole or as a stream.

It refuses, as ``unsupported_parameter`` naming the parameter, whatever the chat format can not say:
tools that a provider would run itself, background answers, conversations and prompts kept
elsewhere. It drops nothing but what can not change an answer (labels of earlier items, advice to
caches). ``docs/support-matrix.md`` lists every parameter. Items are in ``responses_openai_items``,
the stream in ``responses_openai_stream``. Nothing in a natural language is added.

It is stateless: ``previous_response_id`` and item references are the gateway's to resolve, if it
kept the answer.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from trunkline.schema import openai_answer
from trunkline.schema import openai_responses as src
from trunkline.schema import openai_responses_answer as out
from trunkline.schema.grid import responses_openai_items as items
from trunkline.schema.grid.responses_openai_stream import (
    StreamTranslator,
    ending,
    item_id,
    logprobs,
    malformed,
)
from trunkline.schema.parsing import given, invalid, unsupported

__all__ = [
    "StreamTranslator",
    "echo",
    "to_openai",
    "translate_answer",
    "translate_request",
    "whole_of",
]

_LOGPROBS: Final = "message.output_text.logprobs"
_INCLUDABLE: Final = frozenset(
    {
        _LOGPROBS,
        # Of tools that are refused: there is nothing of theirs to leave out.
        "code_interpreter_call.outputs",
        "computer_call_output.output.image_url",
        "file_search_call.results",
        "web_search_call.action.sources",
        "web_search_call.results",
        # Reasoning items, where a node gives any, hold their text openly and whole.
        "reasoning.encrypted_content",
    }
)
_REFUSED_RAW: Final = (
    "access_programs", "context_management", "conversation", "image", "moderation", "prompt",
)  # fmt: skip
_RENAMED: Final = (
    ("metadata", "metadata"),
    ("max_output_tokens", "max_completion_tokens"),
    ("parallel_tool_calls", "parallel_tool_calls"),
    ("prompt_cache_key", "prompt_cache_key"),
    ("prompt_cache_retention", "prompt_cache_retention"),
    ("safety_identifier", "safety_identifier"),
    ("service_tier", "service_tier"),
    ("temperature", "temperature"),
    ("top_p", "top_p"),
    ("user", "user"),
)

Json = dict[str, object]
_encode = msgspec.json.Encoder().encode


def translate_request(raw: bytes) -> bytes:
    """The chat request that asks for the same. Raises :class:`RequestError`."""
    return to_openai(src.parse(raw))


def to_openai(request: src.ResponsesRequest, history: Sequence[object] = ()) -> bytes:
    """The same, for a request that is parsed already.

    ``history``: chat messages, JSON values, that come before the input, if
    ``previous_response_id`` was resolved; without any, the parameter is refused.
    """
    _refuse_inexpressible(request)
    if request.previous_response_id is not None and not history:
        raise unsupported("previous_response_id", "nothing is kept here: send the earlier items")
    messages: list[object] = []
    if request.instructions is not None:
        messages.append({"role": "system", "content": request.instructions})
    messages.extend(history)
    messages.extend(items.translate(request.items))
    body: Json = {"model": request.model, "messages": messages}
    for name, renamed in _RENAMED:
        value = getattr(request, name)
        if value is not None:
            body[renamed] = value
    if given(request.prompt_cache_options):
        body["prompt_cache_options"] = request.prompt_cache_options
    body.update(_tools(request))
    body.update(_output(request))
    if request.streams:
        # The format's streams end with the usage.
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    return _encode(body)


def _refuse_inexpressible(request: src.ResponsesRequest) -> None:
    for name in request.unknown:
        raise unsupported(name)
    for name in _REFUSED_RAW:
        if given(getattr(request, name)):
            raise unsupported(name)
    if request.background:
        raise unsupported("background")
    if request.truncation == "auto":
        raise unsupported("truncation", "only disabled is supported")
    for index, wanted in enumerate(request.include or ()):
        if wanted not in _INCLUDABLE:
            raise unsupported(f"include[{index}]")
    if request.stream_options is not None:
        if not request.streams:
            raise invalid("needs stream to be true", "stream_options")
        if request.stream_options.include_obfuscation:
            raise unsupported("stream_options.include_obfuscation")
    if request.reasoning is not None:
        for name in ("summary", "generate_summary", "mode", "context"):
            if getattr(request.reasoning, name) is not None:
                raise unsupported(f"reasoning.{name}")


def _tools(request: src.ResponsesRequest) -> Json:
    body: Json = {}
    if request.functions:
        body["tools"] = [_tool(tool, f"tools[{i}]") for i, tool in enumerate(request.functions)]
    match request.choice:
        case None:
            pass
        case src.NamedFunction(name=name):
            body["tool_choice"] = _named(name)
        case src.AllowedTools(mode=mode, tools=tools):
            allowed = {"mode": mode, "tools": [_named(tool.name) for tool in tools]}
            body["tool_choice"] = {"type": "allowed_tools", "allowed_tools": allowed}
        case word:
            body["tool_choice"] = word
    return body


def _named(name: str) -> Json:
    return {"type": "function", "function": {"name": name}}


def _tool(tool: src.FunctionTool, param: str) -> Json:
    if tool.is_async:
        raise unsupported(f"{param}.async")
    if tool.defer_loading:
        raise unsupported(f"{param}.defer_loading")
    if tool.allowed_callers is not None and tool.allowed_callers != ("direct",):
        raise unsupported(f"{param}.allowed_callers")
    if given(tool.output_schema):
        raise unsupported(f"{param}.output_schema")
    function: Json = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    if given(tool.parameters):
        function["parameters"] = tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _output(request: src.ResponsesRequest) -> Json:
    body: Json = {}
    if _LOGPROBS in (request.include or ()) or request.top_logprobs:
        body["logprobs"] = True
        body["top_logprobs"] = request.top_logprobs or 0
    if request.reasoning is not None and request.reasoning.effort is not None:
        body["reasoning_effort"] = request.reasoning.effort
    if request.text is None:
        return body
    if request.text.verbosity is not None:
        body["verbosity"] = request.text.verbosity
    wanted = request.text.format
    if wanted is None or wanted.type == "text":
        return body
    body["response_format"] = {"type": wanted.type}
    if wanted.type == "json_schema":
        if wanted.name is None:
            raise invalid("is required", "text.format.name", "missing_required_parameter")
        schema: Json = {"name": wanted.name}
        for name in ("description", "strict"):
            if getattr(wanted, name) is not None:
                schema[name] = getattr(wanted, name)
        if given(wanted.schema):
            schema["schema"] = wanted.schema
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def echo(request: src.ResponsesRequest) -> out.Echo:
    """What the answer repeats of the request."""
    told: Json = {
        name: value
        for name in out.Echo.__struct_fields__
        if name not in ("background", "conversation", "store", "text", "truncation")
        and isinstance(value := getattr(request, name), str | int | float | dict)
    }
    if request.reasoning is not None:
        told["reasoning"] = _raw({"effort": request.reasoning.effort})
    if request.text is not None and request.text.format is not None:
        told["text"] = _raw({"format": _format(request.text.format)})
    if given(request.tool_choice):
        told["tool_choice"] = request.tool_choice
    if request.functions:
        told["tools"] = _raw([_told_tool(tool) for tool in request.functions])
    return out.Echo(**told)  # type: ignore[arg-type]


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(_encode(value))


def _format(wanted: src.TextFormat) -> Json:
    told: Json = {"type": wanted.type}
    for name in ("name", "description", "strict"):
        if getattr(wanted, name) is not None:
            told[name] = getattr(wanted, name)
    if given(wanted.schema):
        told["schema"] = wanted.schema
    return told


def _told_tool(tool: src.FunctionTool) -> Json:
    """The tool as it is offered: without ``strict`` it is not held to its schema."""
    told: Json = {"type": "function", "name": tool.name, "strict": bool(tool.strict)}
    if tool.description is not None:
        told["description"] = tool.description
    told["parameters"] = tool.parameters if given(tool.parameters) else None
    return told


def whole_of(chunks: Sequence[bytes], *, response_id: str, told: out.Echo) -> bytes:
    """The response that a stream of these chunks ends with. Raises :class:`MalformedError`."""
    translator = StreamTranslator(response_id=response_id, told=told)
    for chunk in chunks:
        translator.feed(chunk)
    translator.finish()
    if translator.final is None:
        raise malformed("a stream has no end")
    return out.encode_response(translator.final)


def translate_answer(data: bytes, *, response_id: str, told: out.Echo) -> bytes:
    """The whole answer as a response. Raises :class:`MalformedError`, also where there is no
    single choice or no known finish reason."""
    completion = openai_answer.parse_completion(data)
    if len(completion.choices) != 1:
        raise malformed("an answer must have one choice")
    choice = completion.choices[0]
    incomplete = ending(choice.finish_reason)
    response = out.Response(
        id=response_id,
        created_at=int(completion.created),
        status="completed" if incomplete is None else "incomplete",
        incomplete_details=incomplete,
        model=completion.model,
        output=_items(choice, response_id, cut=incomplete is not None),
        usage=out.usage_of(completion.usage),
        **msgspec.structs.asdict(told),
    )
    return out.encode_response(response)


def _items(
    choice: openai_answer.ReadChoice, response_id: str, *, cut: bool
) -> tuple[out.Item, ...]:
    """What was said, in the order of a stream's items; if it was cut, the last is incomplete."""
    said = choice.message
    found: list[out.Item] = []
    if said.reasoning_content:
        thoughts = (out.ReasoningText(text=said.reasoning_content),)
        name = item_id("rs", response_id, 0)
        found.append(out.Reasoning(id=name, status="completed", content=thoughts))
    parts: list[out.Part] = []
    if said.content:
        parts.append(out.OutputText(text=said.content, logprobs=logprobs(choice.logprobs)))
    if said.refusal:
        parts.append(out.OutputRefusal(refusal=said.refusal))
    if parts:
        name = item_id("msg", response_id, len(found))
        found.append(out.Message(id=name, status="completed", content=tuple(parts)))
    for call in said.tool_calls or ():
        found.append(
            out.FunctionCall(
                id=item_id("fc", response_id, len(found)),
                status="completed",
                call_id=call.id,
                name=call.function.name,
                arguments=call.function.arguments,
            )
        )
    if cut and found:
        found[-1] = msgspec.structs.replace(found[-1], status="incomplete")
    return tuple(found)
