"""What an app makes of an answer's bytes: an independent reading of the three chat formats.

Follows OpenAI's and Anthropic's public references and shares no line with the product's own
parsers. It repairs nothing: what no client could read is said as ``wrong``.
"""

import json
from collections.abc import Iterator
from typing import Any

import msgspec

from trunkline.schema.attempt import ClientFormat


class Told(msgspec.Struct, kw_only=True):
    """One answer as its app understood it. ``finish`` in the words of OpenAI's chat format."""

    text: str = ""
    tool: str = ""
    """Name of the tool called."""
    arguments: str = ""
    finish: str = ""
    usage: tuple[int, int] | None = None
    """Prompt and completion tokens."""
    usage_parts: bool = False
    """The usage says that text so far is among the prompt's."""
    models: set[str] = msgspec.field(default_factory=set)
    ids: set[str] = msgspec.field(default_factory=set)
    begun: int = 0
    """How often the answer began."""
    ended: int = 0
    """How often the format's own end came."""
    wrong: str = ""
    """What could not be read."""


_STOPS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
}


def read(format_: ClientFormat, body: bytes, *, stream: bool) -> Told:
    """Read an answer, or as much of a stream as came in whole events."""
    told = Told()
    try:
        if not stream:
            _WHOLES[format_](told, json.loads(body))
        else:
            for event in _events(body):
                _STREAMS[format_](told, event)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        told.wrong = told.wrong or f"{type(error).__name__}: {error}"
    return told


def _events(body: bytes) -> Iterator[Any]:
    """Data of each event that is there to its end; None for OpenAI's ``[DONE]``."""
    blocks = body.split(b"\n\n")
    for block in blocks[:-1]:
        lines = [line for line in block.split(b"\n") if line.startswith(b"data:")]
        if lines:
            data = b"\n".join(line[5:].removeprefix(b" ") for line in lines)
            yield None if data == b"[DONE]" else json.loads(data)


def _chat_event(told: Told, event: Any) -> None:
    if event is None:
        told.ended += 1
        return
    if told.ended:
        told.wrong = "something after the end"
    told.models.add(event["model"])
    told.ids.add(event["id"])
    if event.get("usage"):
        _chat_usage(told, event["usage"])
    for choice in event["choices"]:
        delta = choice["delta"]
        told.begun += "role" in delta
        if told.finish and (delta.get("content") or delta.get("tool_calls")):
            told.wrong = "text after the finish"
        told.text += delta.get("content") or ""
        for call in delta.get("tool_calls") or ():
            told.tool += call["function"].get("name") or ""
            told.arguments += call["function"].get("arguments") or ""
        if choice["finish_reason"]:
            if told.finish:
                told.wrong = "two finish reasons"
            told.finish = choice["finish_reason"]


def _chat_usage(told: Told, usage: Any) -> None:
    told.usage = (usage["prompt_tokens"], usage["completion_tokens"])
    told.usage_parts = "continued_characters" in usage


def _chat_whole(told: Told, body: Any) -> None:
    (choice,) = body["choices"]
    message = choice["message"]
    told.text = message.get("content") or ""
    for call in message.get("tool_calls") or ():
        told.tool += call["function"]["name"]
        told.arguments += call["function"]["arguments"]
    told.finish = choice["finish_reason"]
    told.models, told.ids = {body["model"]}, {body["id"]}
    told.begun = told.ended = 1
    _chat_usage(told, body["usage"])


def _messages_event(told: Told, event: Any) -> None:
    match event["type"]:
        case "message_start":
            told.begun += 1
            told.models.add(event["message"]["model"])
            told.ids.add(event["message"]["id"])
        case "content_block_start" if event["content_block"]["type"] == "tool_use":
            told.tool += event["content_block"]["name"]
        case "content_block_delta":
            delta = event["delta"]
            told.text += delta.get("text", "")
            told.arguments += delta.get("partial_json", "")
        case "message_delta":
            told.finish = _STOPS[event["delta"]["stop_reason"]]
            usage = event["usage"]
            if "input_tokens" in usage:
                told.usage = (usage["input_tokens"], usage["output_tokens"])
        case "message_stop":
            told.ended += 1


def _messages_whole(told: Told, body: Any) -> None:
    for block in body["content"]:
        if block["type"] == "tool_use":
            told.tool += block["name"]
            told.arguments += json.dumps(block["input"])
        else:
            told.text += block["text"]
    told.finish = _STOPS[body["stop_reason"]]
    told.models, told.ids = {body["model"]}, {body["id"]}
    told.begun = told.ended = 1
    told.usage = (body["usage"]["input_tokens"], body["usage"]["output_tokens"])


def _responses_event(told: Told, event: Any) -> None:
    match event["type"]:
        case "response.created":
            told.begun += 1
            told.ids.add(event["response"]["id"])
            told.models.add(event["response"]["model"])
        case "response.output_text.delta":
            told.text += event["delta"]
        case "response.completed" | "response.incomplete":
            told.ended += 1
            whole = Told()
            _responses_whole(whole, event["response"])
            if whole.text != told.text:
                told.wrong = "the last event's text is another one"
            told.finish, told.usage = whole.finish, whole.usage
            told.models |= whole.models


def _responses_whole(told: Told, body: Any) -> None:
    for item in body["output"]:
        if item["type"] == "message":
            told.text += "".join(part["text"] for part in item["content"])
    told.finish = "stop" if body["status"] == "completed" else "length"
    told.models, told.ids = {body["model"]}, {body["id"]}
    told.begun = told.ended = 1
    usage = body["usage"]
    # Null where the provider broke off before it: the format's word for a count not known.
    told.usage = None if usage is None else (usage["input_tokens"], usage["output_tokens"])


_STREAMS = {
    "anthropic.messages": _messages_event,
    "openai.chat": _chat_event,
    "openai.responses": _responses_event,
}
_WHOLES = {
    "anthropic.messages": _messages_whole,
    "openai.chat": _chat_whole,
    "openai.responses": _responses_whole,
}
