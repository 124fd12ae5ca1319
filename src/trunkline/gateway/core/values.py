"""Tool calls and JSON documents: what the request lets them be, and whether an answer's are that.

An app parses such a value whole and can do nothing with half of one. So where a node can not be
continued exactly, a value is held back until it is complete and valid, and a broken one is asked
for again elsewhere (design §6). Judged is what is certain: that it parses, that the tool was
offered, and the schema where the request demands it. A value that was cut short for a reason that
the answer states (``length``, ``content_filter``) is passed on as it is.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from trunkline.base.errors import MalformedError
from trunkline.gateway.core.json_schema import satisfies
from trunkline.schema.openai_answer import Delta, FunctionDelta, ReadMessage

INVALID_TOOL_CALL: Final = "upstream_invalid_tool_call"
INVALID_DOCUMENT: Final = "upstream_invalid_json"
CALLS_MAX: Final = 1024
"""Tool calls of one choice."""

_WHOLE: Final = frozenset({"stop", "tool_calls", "function_call"})
"""Finish reasons that claim the answer to be complete."""
_ABSENT: Final = msgspec.Raw()


class InvalidAnswerError(MalformedError):
    """A value of the answer is broken: the model's doing, or its server's."""


class _Function(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    parameters: msgspec.Raw = _ABSENT
    strict: bool | None = None


class _Tool(msgspec.Struct, frozen=True, kw_only=True):
    type: str = "function"
    function: _Function | None = None


class _Schema(msgspec.Struct, frozen=True, kw_only=True):
    schema: msgspec.Raw = _ABSENT
    strict: bool | None = None


class _Format(msgspec.Struct, frozen=True, kw_only=True):
    type: str
    json_schema: _Schema | None = None


class _Request(msgspec.Struct, frozen=True, kw_only=True):
    tools: tuple[_Tool, ...] | None = None
    functions: tuple[_Function, ...] | None = None
    response_format: _Format | None = None


_REQUEST: Final = msgspec.json.Decoder(_Request)


class Values(msgspec.Struct, frozen=True, kw_only=True):
    """What the request says of values. Schemas are as decoded from JSON; True admits anything."""

    document: bool = False
    """The text itself must be a JSON object."""
    schema: object = True
    """What the document must satisfy."""
    tools: Mapping[str, object] | None = None
    """By name, what a call's arguments must satisfy; None: no function was offered by name."""
    needy: frozenset[str] = frozenset()
    """Tools that can not be called without arguments."""

    @classmethod
    def of(cls, request: bytes) -> "Values | None":
        """Read a chat request in the OpenAI format; None if its answer holds no such values."""
        try:
            asked = _REQUEST.decode(request)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        format_ = asked.response_format
        document = format_ is not None and format_.type in ("json_object", "json_schema")
        if not (document or asked.tools or asked.functions):
            return None
        offered = [tool.function for tool in asked.tools or ()]
        functions = [*(asked.functions or ()), *(f for f in offered if f is not None)]
        # Beside tools of other kinds, which names may be called is not known here.
        nameable = bool(functions) and None not in offered
        return cls(
            document=document,
            schema=_demanded(None if format_ is None else format_.json_schema),
            tools={f.name: _arguments_schema(f) for f in functions} if nameable else None,
            needy=frozenset(f.name for f in functions if _requires(_decoded(f.parameters))),
        )

    def check(self, found: "Gathered", reason: str) -> None:
        """Raise :class:`InvalidAnswerError` unless the choice's values are whole and valid."""
        if reason not in _WHOLE:
            return
        if reason != "stop" and not found.calls:
            raise InvalidAnswerError("a tool call is announced and missing", code=INVALID_TOOL_CALL)
        for call in found.calls:
            self._check_call(call)
        if self.document and not found.calls and not found.refused:
            text = "".join(found.text)
            try:
                document: object = msgspec.json.decode(text.encode())
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                raise InvalidAnswerError("not JSON", code=INVALID_DOCUMENT) from None
            if not isinstance(document, dict) or not satisfies(document, self.schema):
                raise InvalidAnswerError("not what the schema says", code=INVALID_DOCUMENT)

    def _check_call(self, call: "_Call") -> None:
        name = "".join(call.name)
        if self.tools is not None and name not in self.tools:
            raise InvalidAnswerError("a tool that was not offered", code=INVALID_TOOL_CALL)
        text = "".join(call.arguments)
        # Some providers write nothing at all where there are no arguments.
        if not text.strip() and name not in self.needy:
            return
        try:
            arguments: object = msgspec.json.decode(text.encode())
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise InvalidAnswerError("arguments are not JSON", code=INVALID_TOOL_CALL) from None
        schema = True if self.tools is None else self.tools[name]
        if not isinstance(arguments, dict) or not satisfies(arguments, schema):
            raise InvalidAnswerError("not the tool's arguments", code=INVALID_TOOL_CALL)


class _Call:
    __slots__ = ("arguments", "id", "index", "name")

    def __init__(self, index: int, id_: str) -> None:
        self.index = index
        self.id = id_
        self.name: list[str] = []
        self.arguments: list[str] = []

    def add(self, function: FunctionDelta | None) -> None:
        if function is not None:
            self.name.append(function.name or "")
            self.arguments.append(function.arguments or "")


class Gathered:
    """One choice's text and tool calls, put together from an attempt's events."""

    __slots__ = ("calls", "refused", "text")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.calls: list[_Call] = []
        self.refused = False

    def add(self, delta: Delta) -> None:
        """Take one chunk's part. Raises :class:`MalformedError` beyond the bounds."""
        if delta.content:
            self.text.append(delta.content)
        if delta.refusal:
            self.refused = True
        for part in delta.tool_calls or ():
            self._call(part.index, part.id or "").add(part.function)
        if delta.function_call is not None:
            self._call(-1, "").add(delta.function_call)

    def take(self, message: ReadMessage) -> None:
        """Take a whole message."""
        self.text.append(message.content or "")
        self.refused = bool(message.refusal)
        calls = [call.function for call in message.tool_calls or ()]
        if message.function_call is not None:
            calls.append(message.function_call)
        for number, function in enumerate(calls):
            self._call(number, "").add(
                FunctionDelta(name=function.name, arguments=function.arguments)
            )

    def _call(self, index: int, id_: str) -> _Call:
        """The call that a part belongs to. A new id under the same index begins a new call: some
        providers number all of them 0."""
        for call in reversed(self.calls):
            if call.index == index and (not id_ or call.id in ("", id_)):
                return call
        if len(self.calls) >= CALLS_MAX:
            raise MalformedError("more tool calls than an answer can have")
        self.calls.append(_Call(index, id_))
        return self.calls[-1]


def _demanded(found: _Schema | None) -> object:
    """A document's schema, unless the request says that it is only a hint."""
    return True if found is None or found.strict is False else _decoded(found.schema)


def _arguments_schema(function: _Function) -> object:
    """Without ``strict``, arguments are the model's best guess, and the app expects to check."""
    return _decoded(function.parameters) if function.strict else True


def _requires(schema: object) -> bool:
    return isinstance(schema, dict) and bool(schema.get("required"))


def _decoded(raw: msgspec.Raw) -> object:
    try:
        found: object = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return True
    return found
