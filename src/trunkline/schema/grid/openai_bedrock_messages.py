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

from trunkline.schema.grid import openai_turns
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
        openai_turns.refuse_inexpressible(message, param, names)
        if message.role in ("system", "developer"):
            if turns:
                raise unsupported(f"{param}.role", "is supported before all other messages only")
            system.extend(_blocks(message.parts, param))
            continue
        role, blocks = _turn(message, param)
        names.update(openai_turns.names_called(message))
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
    return "assistant" if message.role == "assistant" else "user", openai_turns.said(blocks, param)


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
    kind, data = openai_turns.data_url(part.image_url.url, f"{param}.image_url.url")
    if kind not in IMAGE_FORMATS:
        raise unsupported(f"{param}.image_url.url", "this type of image is not supported")
    return {"format": IMAGE_FORMATS[kind], "source": {"bytes": data}}


def _document(part: FilePart, param: str, index: int) -> Json:
    url = openai_turns.file_data(part, param)
    kind, data = openai_turns.data_url(url, f"{param}.file.file_data")
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
        "toolUseId": openai_turns.call_id(message.tool_call_id or "", _ID),
        "content": list(_blocks(message.parts, param)),
    }
    if message.is_error is not None:
        result["status"] = "error" if message.is_error else "success"
    return {"toolResult": result}


def _tool_use(call: ToolCall, param: str) -> Json:
    function = openai_turns.function_called(call, param)
    return {
        "toolUseId": openai_turns.call_id(call.id, _ID),
        "name": function.name,
        "input": openai_turns.arguments_object(function.arguments, f"{param}.function.arguments"),
    }
