"""Client: Anthropic. Provider: OpenAI. A Messages request becomes a Chat Completions request, and
the answer comes back, whole or as a stream.

It refuses, as ``unsupported_parameter`` naming the parameter, whatever the OpenAI format can not
say; it drops nothing but advice that can not change an answer (``cache_control``,
``eager_input_streaming``). ``docs/support-matrix.md`` lists every parameter. Nothing in a natural
language is added.

The stream translator is a pure state machine over the chunks' bytes in order. When another node
continues an answer with the chunks that the first would have sent, its output continues byte for
byte too.
"""

from collections.abc import Iterator

import msgspec

from trunkline.base.errors import MalformedError
from trunkline.schema import anthropic_answer as out
from trunkline.schema import anthropic_messages as src
from trunkline.schema import openai_answer
from trunkline.schema.grid import anthropic_openai_messages as messages
from trunkline.schema.openai_checks import STOPS_MAX
from trunkline.schema.parsing import given, unsupported

_Details = openai_answer.PromptTokensDetails
_encode = msgspec.json.Encoder().encode

_TOOL_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_TIERS = {"auto": "auto", "standard_only": "default"}
_SCHEMA_NAME = "output"
"""The OpenAI format wants a name for an answer's schema; the Anthropic one has none."""


def translate_request(raw: bytes) -> bytes:
    """The Chat Completions request that asks for the same. Raises :class:`RequestError`."""
    return to_openai(src.parse(raw))


def to_openai(request: src.MessagesRequest) -> bytes:
    """The same, for a request that is parsed already."""
    _refuse_inexpressible(request)
    body: dict[str, object] = {
        "model": request.model,
        "messages": list(messages.translate(request)),
        "max_completion_tokens": request.max_tokens,
    }
    for name in ("temperature", "top_p", "top_k"):
        value = getattr(request, name)
        if value is not None:
            body[name] = value
    if request.stop_sequences:
        body["stop"] = request.stop_sequences
    body.update(_tools(request))
    body.update(_output(request))
    if request.metadata is not None and request.metadata.user_id is not None:
        body["user"] = request.metadata.user_id
    if request.service_tier is not None:
        body["service_tier"] = _TIERS[request.service_tier]
    if request.streams:
        body["stream"] = True
        # Anthropic streams always end with the usage.
        body["stream_options"] = {"include_usage": True}
    return _encode(body)


def _refuse_inexpressible(request: src.MessagesRequest) -> None:
    for name in request.unknown:
        raise unsupported(name)
    if request.max_tokens == 0:
        # It would fill a cache that this provider does not have, and answer nothing.
        raise unsupported("max_tokens", "0 (fill the cache only) is not supported")
    if request.thinking is not None and request.thinking.type != "disabled":
        raise unsupported("thinking", "only the type disabled is supported")
    for name in ("container", "diagnostics"):
        if given(getattr(request, name)):
            raise unsupported(name)
    for name in ("inference_geo", "user_profile_id"):
        if getattr(request, name) is not None:
            raise unsupported(name)
    if request.speed == "fast":
        raise unsupported("speed", "only standard is supported")
    if len(request.stop_sequences or ()) > STOPS_MAX:
        raise unsupported("stop_sequences", f"at most {STOPS_MAX} are supported")


def _tools(request: src.MessagesRequest) -> dict[str, object]:
    body: dict[str, object] = {}
    if request.tools:
        body["tools"] = [_tool(tool, f"tools[{i}]") for i, tool in enumerate(request.tools)]
    choice = request.tool_choice
    if choice is None or not request.tools:
        return body
    if choice.type == "tool":
        body["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
    else:
        body["tool_choice"] = _TOOL_CHOICES[choice.type]
    if choice.disable_parallel_tool_use is not None:
        body["parallel_tool_calls"] = not choice.disable_parallel_tool_use
    return body


def _tool(tool: src.Tool, param: str) -> dict[str, object]:
    if tool.defer_loading:
        raise unsupported(f"{param}.defer_loading")
    if given(tool.input_examples):
        raise unsupported(f"{param}.input_examples")
    if tool.allowed_callers is not None and tool.allowed_callers != ("direct",):
        raise unsupported(f"{param}.allowed_callers")
    function: dict[str, object] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    function["parameters"] = tool.input_schema
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _output(request: src.MessagesRequest) -> dict[str, object]:
    config = request.output_config
    if config is None:
        return {}
    body: dict[str, object] = {}
    if config.effort is not None:
        body["reasoning_effort"] = config.effort
    if config.format is not None:
        schema = {"name": _SCHEMA_NAME, "schema": config.format.schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def translate_answer(data: bytes, *, message_id: str) -> bytes:
    """The whole answer as a message. Raises :class:`MalformedError`, also where there is no
    single choice, no known finish reason, or a tool call whose arguments are no JSON object."""
    completion = openai_answer.parse_completion(data)
    if len(completion.choices) != 1:
        raise MalformedError("an answer must have one choice", code="bad_completion")
    choice = completion.choices[0]
    said = choice.message
    blocks: list[out.TextBlock | out.ToolUseBlock] = [
        out.TextBlock(text=text) for text in (said.content, said.refusal) if text
    ]
    calls = said.tool_calls or ()
    blocks.extend(
        out.ToolUseBlock(id=call.id, name=call.function.name, input=_input(call.function.arguments))
        for call in calls
    )
    reason, sequence = _stop(
        choice.finish_reason,
        choice.stop_reason,
        called=bool(calls),
        refused=bool(said.refusal),
    )
    return out.encode_message(
        out.Message(
            id=message_id,
            model=completion.model,
            content=tuple(blocks),
            stop_reason=reason,
            stop_sequence=sequence,
            usage=_usage(completion.usage),
        )
    )


_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _input(arguments: str) -> msgspec.Raw:
    if not arguments.strip():
        return msgspec.Raw(b"{}")
    try:
        _OBJECT.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        raise MalformedError("tool arguments are no object", code="bad_tool_call") from None
    return msgspec.Raw(arguments.encode("utf-8"))


def _stop(
    finish: str | None, stop: str | int | None, *, called: bool, refused: bool
) -> tuple[out.StopReason, str | None]:
    match finish:
        case "length":
            return "max_tokens", None
        case "content_filter":
            return "refusal", None
        case "tool_calls" | "function_call":
            return "tool_use", None
        case "stop" if refused:
            return "refusal", None
        case "stop" if called:
            # What OpenAI says when a named tool was forced.
            return "tool_use", None
        case "stop" if isinstance(stop, str) and stop:
            return "stop_sequence", stop
        case "stop":
            return "end_turn", None
        case _:
            # A finish that nobody gave is never made up.
            raise MalformedError("an answer has no known finish reason", code="bad_completion")


def _usage(usage: openai_answer.Usage | None) -> out.Usage:
    if usage is None:
        return out.Usage(input_tokens=0, output_tokens=0)
    details = usage.prompt_tokens_details
    cached = details.cached_tokens if isinstance(details, _Details) else None
    return out.Usage(
        input_tokens=max(0, usage.prompt_tokens - (cached or 0)),
        output_tokens=usage.completion_tokens,
        cache_read_input_tokens=cached,
    )


class StreamTranslator:
    """Chunks in, Anthropic events out. One per answer.

    ``feed`` takes each chunk's data in order and returns the bytes of zero or more events;
    ``finish``, when the answer is complete, returns the closing events. Both raise
    :class:`MalformedError` for chunks that no Anthropic stream can say.
    """

    __slots__ = (
        "_block",
        "_called",
        "_finish",
        "_message_id",
        "_refused",
        "_started",
        "_stop",
        "_tool",
        "_usage",
    )

    def __init__(self, *, message_id: str) -> None:
        self._message_id = message_id
        self._started = False
        self._block = -1
        """Index of the newest content block."""
        self._tool: int | None = None
        """The OpenAI index of the tool call that the newest block is; None: it is text."""
        self._called = False
        self._refused = False
        self._finish: str | None = None
        self._stop: str | int | None = None
        self._usage: openai_answer.Usage | None = None

    def feed(self, data: bytes) -> bytes:
        """The events for one chunk."""
        chunk = openai_answer.parse_chunk(data)
        if given(chunk.error):
            raise MalformedError("a chunk holds an error", code="error_in_stream")
        events: list[bytes] = []
        if not self._started:
            self._started = True
            events.append(out.message_start(self._message_id, chunk.model))
        for choice in chunk.choices:
            if choice.index != 0:
                raise MalformedError("an answer must have one choice", code="bad_chunk")
            events.extend(self._delta(choice.delta))
            if choice.finish_reason is not None:
                self._finish = choice.finish_reason
                self._stop = choice.stop_reason
        if chunk.usage is not None:
            self._usage = chunk.usage
        return b"".join(events)

    def finish(self) -> bytes:
        """The closing events of a complete answer."""
        if not self._started:
            raise MalformedError("an answer has no chunks", code="bad_completion")
        reason, sequence = _stop(
            self._finish, self._stop, called=self._called, refused=self._refused
        )
        events = [out.block_stop(self._block)] if self._block >= 0 else []
        events.append(out.message_delta(reason, sequence, _usage(self._usage)))
        events.append(out.message_stop())
        return b"".join(events)

    def _delta(self, delta: openai_answer.Delta) -> Iterator[bytes]:
        if delta.content:
            yield from self._text(delta.content)
        if delta.refusal:
            self._refused = True
            yield from self._text(delta.refusal)
        for call in delta.tool_calls or ():
            yield from self._tool_call(call)

    def _text(self, text: str) -> Iterator[bytes]:
        if self._block < 0 or self._tool is not None:
            yield from self._close()
            self._tool = None
            yield out.text_start(self._block)
        yield out.text_delta(self._block, text)

    def _tool_call(self, call: openai_answer.ToolCallDelta) -> Iterator[bytes]:
        function = call.function or openai_answer.FunctionDelta()
        if call.index != self._tool:
            if not call.id or not function.name:
                # Either a call without a beginning, or more of one whose block was closed.
                raise MalformedError("a tool call is out of order", code="bad_chunk")
            yield from self._close()
            self._tool = call.index
            self._called = True
            yield out.tool_use_start(self._block, call.id, function.name)
        if function.arguments:
            yield out.input_json_delta(self._block, function.arguments)

    def _close(self) -> Iterator[bytes]:
        """Close the newest block, if there is one, and count up to the next."""
        if self._block >= 0:
            yield out.block_stop(self._block)
        self._block += 1
