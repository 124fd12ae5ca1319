"""The messages of a chat request, as a system prompt and turns of Converse (part of
``openai_bedrock``).

System and developer messages before all others become the system prompt; there is no place for
later ones. Converse wants users and assistants to take turns, so what one side says in a row,
results of tools included, becomes one message of several blocks. An empty text, which Converse does
not take, is left out where something else is said. What has no place is refused by name.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from trunkline.crypto.digest import sha256
from trunkline.schema.grid.openai_anthropic_messages import arguments_object, data_url
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

IMAGE_FORMATS: Final = {
    "image/png": "png",
    "image/jpeg": "jpeg",
    "image/gif": "gif",
    "image/webp": "webp",
}
DOCUMENT_FORMATS: Final = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
}
_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9()\[\]-]([A-Za-z0-9()\[\] -]{0,198}[A-Za-z0-9()\[\]-])?")

Json = dict[str, object]


def translate(request: ChatRequest) -> tuple[list[Json], list[Json]]:
    """The system prompt's blocks and the turns. Raises :class:`RequestError`."""
    system: list[Json] = []
    turns: list[tuple[str, list[Json]]] = []
    names: dict[str, str] = {}
    for index, message in enumerate(request.messages):
        param = f"messages[{index}]"
        _refuse_inexpressible(message, param, names)
        if message.role in ("system", "developer"):
            if turns:
                raise unsupported(f"{param}.role", "is supported before all other messages only")
            system.extend(_blocks(message.parts, param))
            continue
        role, blocks = _turn(message, param)
        names.update((call.id, _called(call)) for call in message.tool_calls or ())
        if turns and turns[-1][0] == role:
            turns[-1][1].extend(blocks)
        else:
            turns.append((role, blocks))
    if not turns or turns[0][0] != "user":
        raise unsupported("messages", "a conversation that no user begins is not supported")
    if turns[-1][0] == "assistant" and not request.messages[-1].prefix:
        # A model may continue a last turn of its own; the caller asks for an answer to it.
        raise unsupported("messages", "a last message of role assistant is not supported")
    return system, [{"role": role, "content": blocks} for role, blocks in turns]


def _turn(message: Message, param: str) -> tuple[str, list[Json]]:
    if message.role == "tool":
        return "user", [_result(message, param)]
    blocks = list(_blocks(message.parts, param))
    if message.role == "assistant":
        if message.refusal:
            blocks.append({"text": message.refusal})
        for index, call in enumerate(message.tool_calls or ()):
            blocks.append({"toolUse": _tool_use(call, f"{param}.tool_calls[{index}]")})
    if not blocks:
        raise unsupported(f"{param}.content", "a message that says nothing is not supported")
    return "assistant" if message.role == "assistant" else "user", blocks


def _refuse_inexpressible(message: Message, param: str, names: dict[str, str]) -> None:
    if message.role == "function":
        raise unsupported(f"{param}.role", "function is not supported")
    if message.function_call is not None:
        raise unsupported(f"{param}.function_call")
    if message.reasoning_content:
        # A thought needs its maker's signature, which this format does not carry.
        raise unsupported(f"{param}.reasoning_content")
    if message.name is not None:
        # Beside a tool's result it repeats what the call's id says already.
        called = names.get(message.tool_call_id or "") if message.role == "tool" else None
        if called is None or called != message.name:
            raise unsupported(f"{param}.name")


def _blocks(parts: Sequence[Part], param: str) -> Iterator[Json]:
    for index, part in enumerate(parts):
        here = f"{param}.content[{index}]"
        match part:
            case TextPart():
                if part.text:
                    yield {"text": part.text}
            case RefusalPart():
                # What the assistant said by way of a refusal is what it said.
                if part.refusal:
                    yield {"text": part.refusal}
            case ImagePart():
                yield {"image": _image(part, here)}
            case FilePart():
                yield {"document": _document(part, here, index)}
            case _:
                raise unsupported(f"{here}.type")


def _image(part: ImagePart, param: str) -> Json:
    if part.image_url.detail not in (None, "auto"):
        raise unsupported(f"{param}.image_url.detail", "only auto is supported")
    kind, data = data_url(part.image_url.url, f"{param}.image_url.url")
    if kind not in IMAGE_FORMATS:
        raise unsupported(f"{param}.image_url.url", "this type of image is not supported")
    return {"format": IMAGE_FORMATS[kind], "source": {"bytes": data}}


def _document(part: FilePart, param: str, index: int) -> Json:
    if part.file.file_id is not None or part.file.file_data is None:
        raise unsupported(f"{param}.file.file_id", "only file_data is supported")
    kind, data = data_url(part.file.file_data, f"{param}.file.file_data")
    if kind not in DOCUMENT_FORMATS:
        raise unsupported(f"{param}.file.file_data", "this type of file is not supported")
    # A name is demanded, of few characters, and no two the same in a message.
    name = part.file.filename
    if name is not None and (_FILE_NAME.fullmatch(name) is None or "  " in name):
        raise unsupported(f"{param}.file.filename", "has characters that are not supported")
    return {
        "format": DOCUMENT_FORMATS[kind],
        "name": f"file-{index}" if name is None else name,
        "source": {"bytes": data},
    }


def _result(message: Message, param: str) -> Json:
    result: Json = {
        "toolUseId": _id(message.tool_call_id or ""),
        "content": list(_blocks(message.parts, param)),
    }
    if message.is_error is not None:
        result["status"] = "error" if message.is_error else "success"
    return {"toolResult": result}


def _called(call: ToolCall) -> str:
    return "" if call.function is None else call.function.name


def _tool_use(call: ToolCall, param: str) -> Json:
    if call.function is None:
        raise unsupported(f"{param}.type", "only functions are supported")
    return {
        "toolUseId": _id(call.id),
        "name": call.function.name,
        "input": arguments_object(call.function.arguments, f"{param}.function.arguments"),
    }


def _id(given_id: str) -> str:
    """The id, or one made of it where it has characters that Bedrock's do not. It only ties a
    result to its call, so the same answer to the same question is all that it needs to be."""
    if _ID.fullmatch(given_id) is not None:
        return given_id
    return "call_" + sha256(given_id.encode("utf-8", "surrogatepass")).hex()[:32]
