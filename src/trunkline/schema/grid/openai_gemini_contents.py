"""The messages of a chat request, as a system instruction and contents (part of ``openai_gemini``).

System and developer messages before all others become the system instruction; the Gemini API has no
place for later ones. Results of tools called together become one content, as the API demands. An
empty text part, which the API does not take, is left out where something else is said. What has no
place is refused by name.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from trunkline.schema.grid import openai_turns
from trunkline.schema.openai_chat import ChatRequest
from trunkline.schema.openai_parts import (
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    Part,
    RefusalPart,
    TextPart,
    ToolCall,
)
from trunkline.schema.parsing import unsupported

MEDIA_TYPES: Final = {
    "image": frozenset({"image/png", "image/jpeg", "image/webp", "image/heic", "image/heif"}),
    "file": frozenset({"application/pdf"}),
}
FOREIGN_SIGNATURE: Final = "skip_thought_signature_validator"
"""Gemini 3 wants the first call of each of its turns to carry the thought's signature. This format
has no place for one, so they carry the value that Google documents for calls made elsewhere."""


Json = dict[str, object]


def translate(request: ChatRequest) -> tuple[list[Json], list[Json]]:
    """The system instruction's parts and the contents. Raises :class:`RequestError`."""
    system: list[Json] = []
    turns: list[Json] = []
    results: list[Json] = []
    names: dict[str, str] = {}
    for index, message in enumerate(request.messages):
        param = f"messages[{index}]"
        openai_turns.refuse_inexpressible(message, param, names)
        if message.role == "tool":
            if not results:
                turns.append({"role": "user", "parts": results})
            results.append(_result(message, names, param))
            continue
        results = []
        if message.role in ("system", "developer"):
            if turns:
                raise unsupported(f"{param}.role", "is supported before all other messages only")
            system.extend(_parts(message.parts, param))
        elif message.role == "assistant":
            turns.append({"role": "model", "parts": _assistant(message, param)})
            names.update(openai_turns.names_called(message))
        else:
            turns.append(
                {"role": "user", "parts": openai_turns.said(_parts(message.parts, param), param)}
            )
    if not turns:
        raise unsupported("messages", "a conversation of system messages alone is not supported")
    if turns[-1]["role"] == "model" and not request.messages[-1].prefix:
        # Gemini may continue a last turn of its own; the caller asks for an answer to it.
        raise unsupported("messages", "a last message of role assistant is not supported")
    return system, turns


def _parts(parts: Sequence[Part], param: str) -> Iterator[Json]:
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
                if part.image_url.detail not in (None, "auto"):
                    raise unsupported(f"{here}.image_url.detail", "only auto is supported")
                yield _inline(part.image_url.url, "image", f"{here}.image_url.url")
            case AudioPart():
                audio = part.input_audio
                yield _blob(f"audio/{audio.format}", audio.data)
            case FilePart():
                yield _file(part, here)


def _file(part: FilePart, param: str) -> Json:
    url = openai_turns.file_data(part, param)
    if part.file.filename is not None:
        raise unsupported(f"{param}.file.filename")
    return _inline(url, "file", f"{param}.file.file_data")


def _inline(url: str, kind: str, param: str) -> Json:
    media, data = openai_turns.data_url(url, param)
    if media not in MEDIA_TYPES[kind]:
        raise unsupported(param, f"this type of {kind} is not supported")
    return _blob(media, data)


def _blob(media_type: str, data: str) -> Json:
    return {"inlineData": {"mimeType": media_type, "data": data}}


def _result(message: Message, names: dict[str, str], param: str) -> Json:
    call = message.tool_call_id or ""
    name = names.get(call)
    if name is None:
        # A result is told apart by its function's name, which only the call says.
        raise unsupported(f"{param}.tool_call_id", "a result of no earlier call is not supported")
    key = "error" if message.is_error else "output"
    return {"functionResponse": {"id": call, "name": name, "response": {key: message.text}}}


def _assistant(message: Message, param: str) -> list[Json]:
    parts = list(_parts(message.parts, param))
    if message.refusal:
        parts.append({"text": message.refusal})
    for index, call in enumerate(message.tool_calls or ()):
        made = _call(call, f"{param}.tool_calls[{index}]")
        parts.append(made | {"thoughtSignature": FOREIGN_SIGNATURE} if index == 0 else made)
    return openai_turns.said(parts, param)


def _call(call: ToolCall, param: str) -> Json:
    function = openai_turns.function_called(call, param)
    args = openai_turns.arguments_object(function.arguments, f"{param}.function.arguments")
    return {"functionCall": {"id": call.id, "name": function.name, "args": args}}
