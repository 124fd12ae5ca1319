"""Tool calls as the embedded model writes them: a JSON list between ``<tool_call>`` tags.

Says to the model which functions there are, shows it earlier calls in the same form, and reads its
own. A block that is not exactly calls of offered functions is no call: it is released as the text
it is, never repaired. Dropped is only the beginning of a call that was demanded and cut short.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from trunkline.crypto.digest import sha256
from trunkline.schema.openai_parts import Tool, ToolCall
from trunkline.schema.parsing import given

OPEN_TAG: Final = "<tool_call>"
CLOSE_TAG: Final = "</tool_call>"
CALLS_MAX: Final = 128
"""Most calls in one block; a longer list is no call."""

_HOW: Final = """You may call functions. Those on offer, as a JSON list:
<tools>{tools}</tools>
To call one or more of them, write only a JSON list of calls between two tags, like this:
<tool_call>[{{"name": "function_name", "arguments": {{"argument_name": "value"}}}}]</tool_call>
If none of them fits the request, answer it in words."""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call that the model made."""

    name: str
    arguments: str
    """JSON text of an object, as the model wrote it."""


class _Function(msgspec.Struct, kw_only=True, omit_defaults=True):
    name: str
    description: str = ""
    parameters: msgspec.Raw = msgspec.Raw(b"{}")


class _Written(msgspec.Struct, frozen=True):
    name: str
    arguments: msgspec.Raw


_encode = msgspec.json.Encoder().encode
_LIST = msgspec.json.Decoder(list[_Written])
_ONE = msgspec.json.Decoder(_Written)


def describe(tools: Sequence[Tool]) -> str:
    """What the model is told of the functions on offer."""
    functions = [
        _Function(
            name=tool.function.name,
            description=tool.function.description or "",
            parameters=tool.function.parameters
            if given(tool.function.parameters)
            else msgspec.Raw(b"{}"),
        )
        for tool in tools
        if tool.function is not None
    ]
    return _HOW.format(tools=_encode(functions).decode())


def show(calls: Sequence[ToolCall]) -> str:
    """Earlier calls, as the model would have written them."""
    written = []
    for call in calls:
        if call.function is None:
            continue
        arguments = call.function.arguments.strip() or "{}"
        written.append(f'{{"name": {_quoted(call.function.name)}, "arguments": {arguments}}}')
    return f"{OPEN_TAG}[{', '.join(written)}]{CLOSE_TAG}" if written else ""


def read(block: str, offered: frozenset[str]) -> tuple[Call, ...] | None:
    """The calls inside a block (tags left out); None if it is anything else."""
    data = block.strip().encode("utf-8", "replace")
    try:
        written = _LIST.decode(data) if data[:1] == b"[" else [_ONE.decode(data)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not 1 <= len(written) <= CALLS_MAX:
        return None
    calls = tuple(
        Call(name=call.name, arguments=bytes(call.arguments).decode()) for call in written
    )
    if any(call.name not in offered or call.arguments[:1] != "{" for call in calls):
        return None
    return calls


def call_id(answer: str, choice: int, call: int) -> str:
    """The id of a call: a function of the answer, so that a node that takes over gives the same."""
    hashed = sha256(f"trunkline.tool-call/v1\n{answer}\n{choice}\n{call}".encode())
    return f"call_{hashed.hex()[:24]}"


def _quoted(text: str) -> str:
    return _encode(text).decode()
