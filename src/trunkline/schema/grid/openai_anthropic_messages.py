"""The messages of a chat request, as a system prompt and turns (part of ``openai_anthropic``).

System and developer messages before all others become the system prompt; later ones stay where they
are, as messages of role system. Results of tools called together become one user message, as the
Messages API demands. Text stays in the parts it came in; an empty part, which the Messages API does
not take, is left out where something else is said. What has no place is refused by name.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from trunkline.crypto.digest import sha256
from trunkline.schema.openai_chat import ChatRequest
from trunkline.schema.openai_parts import (
    FilePart,
    ImagePart,
    Message,
    Part,
    RefusalPart,
    TextPart,
    ToolCall,
)
from trunkline.schema.parsing import unsupported

IMAGE_TYPES: Final = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_DATA_URL: Final = re.compile(r"data:([a-zA-Z0-9.+/-]{1,128});base64,")
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])

Json = dict[str, object]


def translate(request: ChatRequest) -> tuple[list[Json], list[Json]]:
    """The system prompt's blocks and the turns. Raises :class:`RequestError`."""
    system: list[Json] = []
    turns: list[Json] = []
    results: list[Json] = []
    names: dict[str, str] = {}
    for index, message in enumerate(request.messages):
        param = f"messages[{index}]"
        _refuse_inexpressible(message, param, names)
        if message.role == "tool":
            if not results:
                turns.append({"role": "user", "content": results})
            results.append(_result(message, param))
            continue
        results = []
        if message.role in ("system", "developer"):
            blocks = list(_blocks(message.parts, param))
            if turns and blocks:
                turns.append({"role": "system", "content": blocks})
            else:
                system.extend(blocks)
        elif message.role == "assistant":
            turns.append({"role": "assistant", "content": _assistant(message, param)})
            names.update((call.id, _called(call)) for call in message.tool_calls or ())
        else:
            turns.append({"role": "user", "content": _said(_blocks(message.parts, param), param)})
    if not turns:
        raise unsupported("messages", "a conversation of system messages alone is not supported")
    if turns[-1]["role"] == "assistant" and not request.messages[-1].prefix:
        # Anthropic would continue a last assistant turn; the caller asks for an answer to it.
        raise unsupported("messages", "a last message of role assistant is not supported")
    return system, turns


def _refuse_inexpressible(message: Message, param: str, names: dict[str, str]) -> None:
    if message.role == "function":
        raise unsupported(f"{param}.role", "function is not supported")
    if message.function_call is not None:
        raise unsupported(f"{param}.function_call")
    if message.reasoning_content:
        # A thinking block needs its maker's signature, which this format does not carry.
        raise unsupported(f"{param}.reasoning_content")
    if message.name is not None:
        # Beside a tool's result it repeats what the call's id says already.
        called = names.get(message.tool_call_id or "") if message.role == "tool" else None
        if called is None or called != message.name:
            raise unsupported(f"{param}.name")


def _said(blocks: Iterator[Json], param: str) -> list[Json]:
    said = list(blocks)
    if not said:
        raise unsupported(f"{param}.content", "a message that says nothing is not supported")
    return said


def _blocks(parts: Sequence[Part], param: str) -> Iterator[Json]:
    for index, part in enumerate(parts):
        here = f"{param}.content[{index}]"
        match part:
            case TextPart():
                if part.text:
                    yield _text(part.text)
            case RefusalPart():
                # What the assistant said by way of a refusal is what it said.
                if part.refusal:
                    yield _text(part.refusal)
            case ImagePart():
                yield _image(part, here)
            case FilePart():
                yield _document(part, here)
            case _:
                raise unsupported(f"{here}.type")


def _text(text: str) -> Json:
    return {"type": "text", "text": text}


def _image(part: ImagePart, param: str) -> Json:
    # Anthropic reads every image as finely as it can: that is "high", and no other detail.
    if part.image_url.detail not in (None, "auto", "high"):
        raise unsupported(f"{param}.image_url.detail", "only auto and high are supported")
    url = part.image_url.url
    if url.startswith("https://"):
        return {"type": "image", "source": {"type": "url", "url": url}}
    kind, data = data_url(url, f"{param}.image_url.url")
    if kind not in IMAGE_TYPES:
        raise unsupported(f"{param}.image_url.url", "this type of image is not supported")
    return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}}


def _document(part: FilePart, param: str) -> Json:
    if part.file.file_id is not None or part.file.file_data is None:
        raise unsupported(f"{param}.file.file_id", "only file_data is supported")
    kind, data = data_url(part.file.file_data, f"{param}.file.file_data")
    if kind != "application/pdf":
        raise unsupported(f"{param}.file.file_data", "only application/pdf is supported")
    source = {"type": "base64", "media_type": kind, "data": data}
    document: Json = {"type": "document", "source": source}
    if part.file.filename is not None:
        document["title"] = part.file.filename
    return document


def data_url(url: str, param: str) -> tuple[str, str]:
    """Media type and base64 text of a ``data:`` URL. Raises :class:`RequestError` for another."""
    head = _DATA_URL.match(url)
    if head is None:
        raise unsupported(param, "only https URLs of images and base64 data URLs are supported")
    return head[1].lower(), url[head.end() :]


def _result(message: Message, param: str) -> Json:
    result: Json = {
        "type": "tool_result",
        "tool_use_id": _id(message.tool_call_id or ""),
        "content": list(_blocks(message.parts, param)),
    }
    if message.is_error is not None:
        result["is_error"] = message.is_error
    return result


def _assistant(message: Message, param: str) -> list[Json]:
    blocks = list(_blocks(message.parts, param))
    if message.refusal:
        blocks.append(_text(message.refusal))
    for index, call in enumerate(message.tool_calls or ()):
        blocks.append(_tool_use(call, f"{param}.tool_calls[{index}]"))
    return _said(iter(blocks), param)


def _called(call: ToolCall) -> str:
    return "" if call.function is None else call.function.name


def _tool_use(call: ToolCall, param: str) -> Json:
    if call.function is None:
        raise unsupported(f"{param}.type", "only functions are supported")
    return {
        "type": "tool_use",
        "id": _id(call.id),
        "name": call.function.name,
        "input": arguments_object(call.function.arguments, f"{param}.function.arguments"),
    }


def arguments_object(arguments: str, param: str) -> msgspec.Raw:
    """A call's arguments as they came, known to be a JSON object; none are an empty one. Raises
    :class:`RequestError` for other text, which a model may have written and OpenAI takes back."""
    if not arguments.strip():
        return msgspec.Raw(b"{}")
    try:
        data = arguments.encode("utf-8")
        _OBJECT.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise unsupported(param, "arguments that are no JSON object are not supported") from None
    return msgspec.Raw(data)


def _id(given_id: str) -> str:
    """The id, or one made of it where it has characters that Anthropic's do not. It only ties a
    result to its call, so the same answer to the same question is all that it needs to be."""
    if _ID.fullmatch(given_id) is not None:
        return given_id
    return "call_" + sha256(given_id.encode("utf-8", "surrogatepass")).hex()[:32]
