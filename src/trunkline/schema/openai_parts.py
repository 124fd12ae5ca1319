"""What a chat request in the OpenAI format is made of: messages, content parts, tools.

Follows the message and tool parameters of OpenAI's API reference. Free-form JSON (a function's
parameter schema) stays raw, so that what is sent on is what was sent. Checks across fields are in
``openai_checks``.
"""

from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

from trunkline.schema.parsing import ABSENT

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]


class TextPart(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="text"):
    text: str
    prompt_cache_breakpoint: msgspec.Raw = ABSENT


class ImageUrl(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    url: str
    """``https:`` or a ``data:`` URL that holds the image."""
    detail: Literal["auto", "low", "high", "original"] | None = None


class ImagePart(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="image_url"):
    image_url: ImageUrl
    prompt_cache_breakpoint: msgspec.Raw = ABSENT


class InputAudio(msgspec.Struct, frozen=True, kw_only=True):
    data: str
    """Base64."""
    format: Literal["wav", "mp3"]


class AudioPart(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="input_audio"):
    input_audio: InputAudio
    prompt_cache_breakpoint: msgspec.Raw = ABSENT


class FileData(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    file_data: str | None = None
    """A ``data:`` URL."""
    file_id: str | None = None
    filename: str | None = None


class FilePart(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="file"):
    file: FileData
    prompt_cache_breakpoint: msgspec.Raw = ABSENT


class RefusalPart(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="refusal"):
    refusal: str


Part = TextPart | ImagePart | AudioPart | FilePart | RefusalPart


class FunctionCall(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    arguments: str
    """The arguments as JSON text, as the model wrote them."""


class CustomCall(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    input: str


class ToolCall(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A call that the assistant made, in a request's history and in answers."""

    id: str
    type: Literal["function", "custom"] = msgspec.field(default="function")
    function: FunctionCall | None = None
    custom: CustomCall | None = None


class AudioReference(msgspec.Struct, frozen=True, kw_only=True):
    id: str


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message of the conversation; which fields it may hold depends on its role."""

    role: Role
    content: str | tuple[Part, ...] | None = None
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    audio: AudioReference | None = None
    function_call: FunctionCall | None = None
    reasoning_content: str | None = None
    """Extension: what the model thought before it answered, where a provider takes it back."""
    is_error: bool | None = None
    """Extension: this tool message reports a failure (the Anthropic format's own flag)."""
    prefix: bool | None = None
    """Extension: this last message begins the answer, which goes on after it (so called by Mistral
    and DeepSeek)."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """The content as parts, whichever way it was sent."""
        if self.content is None:
            return ()
        return (TextPart(text=self.content),) if isinstance(self.content, str) else self.content

    @property
    def text(self) -> str:
        """The text parts joined, without a separator."""
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        return "".join([part.text for part in self.content if isinstance(part, TextPart)])


class FunctionDefinition(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    description: str | None = None
    parameters: msgspec.Raw = ABSENT
    """JSON Schema as sent; absent: no parameters."""
    strict: bool | None = None


class CustomDefinition(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    description: str | None = None
    format: msgspec.Raw = ABSENT


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    type: Literal["function", "custom"]
    function: FunctionDefinition | None = None
    custom: CustomDefinition | None = None

    @property
    def name(self) -> str:
        """The tool's name; empty only before the request was checked."""
        definition = self.function or self.custom
        return "" if definition is None else definition.name


class Named(msgspec.Struct, frozen=True, kw_only=True):
    name: str


class AllowedTools(msgspec.Struct, frozen=True, kw_only=True):
    mode: Literal["auto", "required"]
    tools: tuple[msgspec.Raw, ...]


class ToolChoice(msgspec.Struct, frozen=True, kw_only=True):
    """A choice other than ``none``, ``auto`` and ``required``."""

    type: Literal["function", "custom", "allowed_tools"]
    function: Named | None = None
    custom: Named | None = None
    allowed_tools: AllowedTools | None = None


_PART_KIND: dict[type[Part], str] = {
    ImagePart: "image_url",
    AudioPart: "input_audio",
    FilePart: "file",
    RefusalPart: "refusal",
}


def content_kinds(messages: Iterable[Message]) -> frozenset[str]:
    """Kinds of content in use other than text: part types, and ``audio`` for earlier answers."""
    return frozenset(_kinds(messages))


def _kinds(messages: Iterable[Message]) -> Iterator[str]:
    for message in messages:
        if message.audio is not None:
            yield "audio"
        if isinstance(message.content, tuple):
            for part in message.content:
                kind = _PART_KIND.get(type(part))
                if kind is not None:
                    yield kind
