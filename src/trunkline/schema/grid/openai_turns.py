"""What the translations of a chat request have in common (part of ``openai_anthropic``,
``openai_gemini`` and ``openai_bedrock``).

Small checks and conversions, each the same for every provider that is not of the OpenAI format; it
refuses by name what none of them has a place for.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

import msgspec

from trunkline.crypto.digest import sha256
from trunkline.schema import openai_chat
from trunkline.schema.openai_chat import ChatRequest
from trunkline.schema.openai_parts import FilePart, FunctionCall, Message, ToolCall, ToolChoice
from trunkline.schema.parsing import unsupported

_DATA_URL: Final = re.compile(r"data:([a-zA-Z0-9.+/-]{1,128});base64,")
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])

T = TypeVar("T")


class UrlCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call to make, where model and stream are said in its URL and not in its body."""

    model: str
    stream: bool
    body: bytes

    @classmethod
    def of(
        cls, request: ChatRequest, body: Mapping[str, object], *, model: str | None
    ) -> "UrlCall":
        """``model``: the provider's own name of it, where that is not the request's."""
        return cls(
            model=request.model if model is None else model,
            stream=request.streams,
            body=msgspec.json.encode(body),
        )


def refuse_unhonoured(request: ChatRequest, honoured: frozenset[str]) -> None:
    """Raise :class:`RequestError` for the first thing asked for that is neither ``honoured`` (names
    of ``openai_chat.parameters_set``) nor a hint."""
    for name in sorted(openai_chat.parameters_set(request) - honoured - openai_chat.HINTS):
        raise unsupported(name)


def function_chosen(choice: ToolChoice) -> str:
    """The function that has to be called; other kinds of choice have been refused by name."""
    return "" if choice.function is None else choice.function.name


def refuse_inexpressible(message: Message, param: str, names: Mapping[str, str]) -> None:
    """Raise :class:`RequestError` for what no other format has a place for. ``names``: what was
    called by the calls so far, by their ids."""
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


def names_called(message: Message) -> dict[str, str]:
    """What a message's tool calls call, by their ids."""
    return {
        call.id: "" if call.function is None else call.function.name
        for call in message.tool_calls or ()
    }


def said(blocks: Iterable[T], param: str) -> list[T]:
    """The blocks of a message, of which there is one at least."""
    found = list(blocks)
    if not found:
        raise unsupported(f"{param}.content", "a message that says nothing is not supported")
    return found


def function_called(call: ToolCall, param: str) -> FunctionCall:
    """The function of a call, which calls one."""
    if call.function is None:
        raise unsupported(f"{param}.type", "only functions are supported")
    return call.function


def data_url(url: str, param: str) -> tuple[str, str]:
    """Media type and base64 text of a ``data:`` URL. Raises :class:`RequestError` for another."""
    head = _DATA_URL.match(url)
    if head is None:
        raise unsupported(param, "this kind of URL is not supported; base64 data URLs are")
    return head[1].lower(), url[head.end() :]


def file_data(part: FilePart, param: str) -> str:
    """The ``data:`` URL of a file, which has one and is not kept elsewhere."""
    if part.file.file_id is not None or part.file.file_data is None:
        raise unsupported(f"{param}.file.file_id", "only file_data is supported")
    return part.file.file_data


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


def call_id(given_id: str, taken: re.Pattern[str]) -> str:
    """The id of a call, or one made of it where it has characters that the provider does not take.
    It only ties a result to its call, so the same answer to the same question is all it must be."""
    if taken.fullmatch(given_id) is not None:
        return given_id
    return "call_" + sha256(given_id.encode("utf-8", "surrogatepass")).hex()[:32]
