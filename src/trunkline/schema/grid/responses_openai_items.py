"""The items of a Responses request, as chat messages (part of ``responses_openai``).

What a model said in one turn (its thoughts, its text, its calls) is several items there and one
message here. Text stays in the parts it came in. What the chat format has no place for is refused
by name.
"""

from collections.abc import Iterator, Sequence

from trunkline.schema import openai_responses as src
from trunkline.schema.parsing import given, unsupported

Json = dict[str, object]


class _Turn:
    """What the model said, until another says something."""

    def __init__(self) -> None:
        self.thoughts: list[str] = []
        self.content: str | list[Json] | None = None
        self.calls: list[Json] = []

    def message(self) -> Iterator[Json]:
        """The turn as one message; none if nothing was said."""
        thoughts = "".join(self.thoughts)
        if self.content is None and not self.calls and not thoughts:
            return
        said: Json = {"role": "assistant", "content": self.content}
        if self.content is None and not self.calls:
            said["content"] = ""
        if thoughts:
            said["reasoning_content"] = thoughts
        if self.calls:
            said["tool_calls"] = self.calls
        yield said


def translate(items: Sequence[src.Item]) -> Iterator[Json]:
    """The messages. Raises :class:`RequestError` for what can not be said."""
    turn = _Turn()
    for index, item in enumerate(items):
        param = f"input[{index}]"
        if turn.content is not None and not turn.calls and _starts(item):
            yield from turn.message()
            turn = _Turn()
        match item:
            case src.ItemReference():
                raise unsupported(param, "the item is not kept here: send the item itself")
            case src.Reasoning():
                turn.thoughts.append(_thoughts(item, param))
            case src.Message(role="assistant"):
                if turn.calls:
                    raise unsupported(param, "text between a call and its output is not supported")
                turn.content = _said(item, param)
            case src.FunctionCall():
                turn.calls.append(_call(item, param))
            case _:
                yield from turn.message()
                turn = _Turn()
                yield _told(item, param)
    yield from turn.message()


def _starts(item: src.Item) -> bool:
    """Whether the item begins another turn of the model, after a text that was its last."""
    return isinstance(item, src.Reasoning) or (
        isinstance(item, src.Message) and item.role == "assistant"
    )


def _thoughts(item: src.Reasoning, param: str) -> str:
    if item.encrypted_content is not None:
        # Only its maker can read it.
        raise unsupported(f"{param}.encrypted_content")
    if item.summary:
        raise unsupported(f"{param}.summary")
    return "".join([part.text for part in item.content or ()])


def _said(item: src.Message, param: str) -> str | list[Json]:
    if item.phase is not None:
        raise unsupported(f"{param}.phase")
    if isinstance(item.content, str):
        return item.content
    return [
        _output_part(part, f"{param}.content[{index}]") for index, part in enumerate(item.content)
    ]


def _output_part(part: src.Part, param: str) -> Json:
    match part:
        case src.OutputText(text=text):
            if given(part.annotations) and bytes(part.annotations) != b"[]":
                raise unsupported(f"{param}.annotations")
            return {"type": "text", "text": text}
        case src.OutputRefusal(refusal=refusal):
            return {"type": "refusal", "refusal": refusal}
        case _:
            raise unsupported(param, "an assistant's message holds output_text and refusal parts")


def _call(item: src.FunctionCall, param: str) -> Json:
    _only_direct(item, param)
    if item.is_async:
        raise unsupported(f"{param}.async")
    return {
        "id": item.call_id,
        "type": "function",
        "function": {"name": item.name, "arguments": item.arguments},
    }


def _only_direct(item: src.FunctionCall | src.FunctionCallOutput, param: str) -> None:
    if given(item.caller):
        raise unsupported(f"{param}.caller")
    if item.namespace is not None:
        raise unsupported(f"{param}.namespace")


def _told(item: src.Message | src.FunctionCallOutput, param: str) -> Json:
    """What the model was told: by the caller, or as a call's output."""
    if isinstance(item, src.FunctionCallOutput):
        return _call_output(item, param)
    if item.phase is not None:
        raise unsupported(f"{param}.phase")
    content = item.content
    if isinstance(content, str):
        return {"role": item.role, "content": content}
    parts = [_input_part(part, f"{param}.content[{index}]") for index, part in enumerate(content)]
    return {"role": item.role, "content": parts}


def _call_output(item: src.FunctionCallOutput, param: str) -> Json:
    _only_direct(item, param)
    if item.name is not None:
        raise unsupported(f"{param}.name")
    message: Json = {"role": "tool", "tool_call_id": item.call_id}
    if isinstance(item.output, str):
        return message | {"content": item.output}
    texts = [part for part in item.output if isinstance(part, src.InputText)]
    if len(texts) != len(item.output):
        raise unsupported(f"{param}.output", "only text is supported in a call's output")
    return message | {"content": [{"type": "text", "text": part.text} for part in texts]}


def _input_part(part: src.Part, param: str) -> Json:
    match part:
        case src.InputText(text=text):
            return {"type": "text", "text": text}
        case src.InputImage():
            if part.image_url is None or part.file_id is not None:
                raise unsupported(f"{param}.file_id", "only image_url is supported")
            image: Json = {"url": part.image_url}
            if part.detail is not None:
                image["detail"] = part.detail
            return {"type": "image_url", "image_url": image}
        case src.InputFile():
            return {"type": "file", "file": _file(part, param)}
        case _:
            raise unsupported(param, "a message to the model holds input_text, _image and _file")


def _file(part: src.InputFile, param: str) -> Json:
    for name in ("file_id", "file_url"):
        if getattr(part, name) is not None:
            raise unsupported(f"{param}.{name}", "only file_data is supported")
    if part.detail not in (None, "auto"):
        raise unsupported(f"{param}.detail")
    file: Json = {"file_data": part.file_data}
    if part.filename is not None:
        file["filename"] = part.filename
    return file
