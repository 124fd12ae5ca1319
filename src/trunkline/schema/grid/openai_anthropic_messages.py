"""The messages of a chat request, as a system prompt and turns (part of ``openai_anthropic``).

System and developer messages before all others become the system prompt; later ones stay where they
are, as messages of role system. Results of tools called together become one user message, as the
Messages API demands. Text stays in the parts it came in; an empty part, which the Messages API does
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

IMAGE_TYPES: Final = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")

Json = dict[str, object]


def translate(request: ChatRequest) -> tuple[list[Json], list[Json]]:
    """The system prompt's blocks and the turns. Raises :class:`RequestError`."""
    system: list[Json] = []
    turns: list[Json] = []
    results: list[Json] = []
    names: dict[str, str] = {}
    for index, message in enumerate(request.messages):
        param = f"messages[{index}]"
        openai_turns.refuse_inexpressible(message, param, names)
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
            names.update(openai_turns.names_called(message))
        else:
            turns.append(
                {"role": "user", "content": openai_turns.said(_blocks(message.parts, param), param)}
            )
    if not turns:
        raise unsupported("messages", "a conversation of system messages alone is not supported")
    if turns[-1]["role"] == "assistant" and not request.messages[-1].prefix:
        # Anthropic would continue a last assistant turn; the caller asks for an answer to it.
        raise unsupported("messages", "a last message of role assistant is not supported")
    return system, turns


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
    kind, data = openai_turns.data_url(url, f"{param}.image_url.url")
    if kind not in IMAGE_TYPES:
        raise unsupported(f"{param}.image_url.url", "this type of image is not supported")
    return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}}


def _document(part: FilePart, param: str) -> Json:
    url = openai_turns.file_data(part, param)
    kind, data = openai_turns.data_url(url, f"{param}.file.file_data")
    if kind != "application/pdf":
        raise unsupported(f"{param}.file.file_data", "only application/pdf is supported")
    source = {"type": "base64", "media_type": kind, "data": data}
    document: Json = {"type": "document", "source": source}
    if part.file.filename is not None:
        document["title"] = part.file.filename
    return document


def _result(message: Message, param: str) -> Json:
    result: Json = {
        "type": "tool_result",
        "tool_use_id": openai_turns.call_id(message.tool_call_id or "", _ID),
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
    return openai_turns.said(blocks, param)


def _tool_use(call: ToolCall, param: str) -> Json:
    function = openai_turns.function_called(call, param)
    return {
        "type": "tool_use",
        "id": openai_turns.call_id(call.id, _ID),
        "name": function.name,
        "input": openai_turns.arguments_object(function.arguments, f"{param}.function.arguments"),
    }
