"""A scripted upstream that speaks the OpenAI format, on raw sockets (faults: ``upstream_faults``).

A request names its script by the first words of its last message. The first call of a script gets
the script's fault, each further one a healthy answer, whichever upstream it arrives at: so a test
needs not know whom the gateway asks first. Nothing here uses the product's own HTTP or SSE code.
"""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, ClassVar, Literal

Phase = Literal["before", "during", "after"]
"""Before the first token was sent; in the middle of it; after the third."""
Content = Literal["text", "tool", "json"]

WORDS = ("Rivers ", "carry ", "the ", "quiet ", "snow ", "of ", "March ", "to the sea.")
ARGUMENTS = ('{"ci', 'ty": ', '"Oslo', '", "d', 'ays"', ": 3,", ' "unit": "C', '"}')
DOCUMENT = ('{"na', 'me": ', '"Ada"', ', "bo', 'rn"', ": 18", '15, "field": "mathem', 'atics"}')
PARTS: dict[Content, tuple[str, ...]] = {"text": WORDS, "tool": ARGUMENTS, "json": DOCUMENT}
PROMPT_TOKENS = 11


def _usage(prompt: int, completion: int) -> dict[str, int]:
    total = prompt + completion
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}


USAGE = _usage(PROMPT_TOKENS, len(WORDS))
TOOL = "forecast"
SHOWN_AFTER = 3
"""Content frames sent before a fault of phase ``after``."""
HUNG_UP_S = 1.0
"""To close a connection whose other side may read no more."""
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "born": {"type": "integer"},
        "field": {"type": "string"},
    },
    "required": ["name", "born", "field"],
    "additionalProperties": False,
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": TOOL,
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "days": {"type": "integer"},
                    "unit": {"type": "string"},
                },
                "required": ["city", "days"],
            },
        },
    }
]


@dataclass
class Answer:
    """What an upstream says, before anybody spoils it."""

    content: Content
    model: str
    parts: Sequence[str]
    finish: str | None
    usage: dict[str, int] | None = field(default_factory=lambda: dict(USAGE))
    running: bool = False
    """Each frame says the usage so far."""

    def go_on(self, given: str) -> None:
        """Say only what follows a text, whose tokens are the prompt's then. What is left of a part
        goes with the next one, as a word's space does."""
        left: list[str] = []
        rest, taken = "", 0
        for part in self.parts:
            new = part[max(len(given) - taken, 0) :]
            taken += len(part)
            if new == part:
                left.append(rest + part)
                rest = ""
            else:
                rest = new
        known = len(self.parts) - len(left)
        self.parts = [*left, rest] if rest else left
        if self.usage is not None:
            self.usage = _usage(PROMPT_TOKENS + known, len(left))

    def whole(self) -> bytes:
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self.parts)}
        if self.content == "tool":
            function = {"name": TOOL, "arguments": "".join(self.parts)}
            message["content"] = None
            message["tool_calls"] = [{"id": "call_1", "type": "function", "function": function}]
        body: dict[str, Any] = {
            "id": "chatcmpl-up",
            "object": "chat.completion",
            "created": 1_780_000_000,
            "model": self.model,
            "choices": [{"index": 0, "message": message, "finish_reason": self.finish}],
        }
        if self.usage is not None:
            body["usage"] = self.usage
        return json.dumps(body).encode()

    def frames(self, *, later_model: str | None = None, from_part: int = 0) -> list[bytes]:
        """The stream's frames, ``[DONE]`` last. ``later_model`` is named from a part on."""
        found = [self._frame({"role": "assistant", "content": ""}, self.model, said=0)]
        for number, part in enumerate(self.parts):
            name = later_model if later_model and number >= from_part else self.model
            found.append(self._frame(self._delta(number, part), name, said=number + 1))
        last = later_model or self.model
        found.append(self._frame({}, last, finish=self.finish))
        if self.usage is not None:
            found.append(self._data({"choices": [], "usage": self.usage}, last))
        return [*found, b"data: [DONE]\n\n"]

    def empty(self, *, said: int) -> bytes:
        """A frame with nothing in it, after so many parts."""
        return self._frame({"content": ""}, self.model, said=said)

    def _delta(self, number: int, part: str) -> dict[str, Any]:
        if self.content != "tool":
            return {"content": part}
        call: dict[str, Any] = {"index": 0, "function": {"arguments": part}}
        if number == 0:
            call |= {"id": "call_1", "type": "function"}
            call["function"]["name"] = TOOL
        return {"tool_calls": [call]}

    def _frame(
        self, delta: dict[str, Any], model: str, finish: str | None = None, said: int | None = None
    ) -> bytes:
        chunk: dict[str, Any] = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
        if self.running and self.usage is not None:
            whole = self.usage["completion_tokens"]
            counted = whole if said is None else min(said, whole)
            chunk["usage"] = _usage(self.usage["prompt_tokens"], counted)
        return self._data(chunk, model)

    @staticmethod
    def _data(more: dict[str, Any], model: str) -> bytes:
        chunk = {
            "id": "chatcmpl-up",
            "object": "chat.completion.chunk",
            "created": 1_780_000_000,
            "model": model,
        }
        return b"data: " + json.dumps(chunk | more).encode() + b"\n\n"


Gone = Callable[[], Awaitable[None]]


class Exchange:
    """One call as the script sees it: what was asked, and the socket's writing side."""

    settled: ClassVar[Sequence[Gone]] = ()
    """Awaited between what is well and the fault after it, so that the first can reach the app."""

    def __init__(
        self, asked: dict[str, Any], phase: Phase, writer: asyncio.StreamWriter, gone: Gone
    ) -> None:
        self.asked = asked
        self.phase = phase
        self.stream = bool(asked.get("stream"))
        self._writer = writer
        self._gone = gone
        content: Content = (
            "tool" if asked.get("tools") else "json" if asked.get("response_format") else "text"
        )
        self.answer = Answer(
            content=content,
            model=str(asked["model"]),
            parts=PARTS[content],
            finish="tool_calls" if content == "tool" else "stop",
        )
        options = asked.get("stream_options") or {}
        self.answer.running = bool(options.get("continuous_usage_stats"))
        if self.stream and not options.get("include_usage"):
            self.answer.usage = None
        last = (asked.get("messages") or [{}])[-1]
        if asked.get("continue_final_message") or last.get("prefix"):
            self.answer.go_on(str(asked["messages"][-1]["content"]))

    # What is said.

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def head(
        self, status: int, kind: str, length: int | None, *headers: tuple[str, str]
    ) -> None:
        framing = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
        lines = [f"HTTP/1.1 {status} Scripted", f"content-type: {kind}", framing]
        lines += [f"{name}: {value}" for name, value in headers]
        await self.send("\r\n".join([*lines, "", ""]).encode())

    async def piece(self, data: bytes) -> None:
        """Part of a chunked body."""
        if data:
            await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def end(self) -> None:
        await self.send(b"0\r\n\r\n")

    async def reply(
        self, status: int, body: bytes, *headers: tuple[str, str], kind: str = "application/json"
    ) -> None:
        await self.head(status, kind, len(body), *headers)
        await self.send(body)

    async def hang(self) -> None:
        """Silence until the caller leaves."""
        await self._gone()

    async def cut(self) -> None:
        """Close without the framing's end."""
        self._writer.close()

    async def reset(self) -> None:
        raw: socket.socket = self._writer.get_extra_info("socket")
        # Kept in the socket's buffer, what was sent would be lost with the reset: let it go first.
        await asyncio.sleep(0)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.close()

    # The healthy answer, and its parts.

    async def healthy(self) -> None:
        if not self.stream:
            await self.reply(200, self.answer.whole())
            return
        await self.frames(self.answer.frames())

    async def frames(self, frames: Sequence[bytes]) -> None:
        await self.begin_frames(frames)
        await self.end()

    async def begin_frames(self, frames: Sequence[bytes]) -> None:
        await self.head(200, "text/event-stream", None)
        for frame in frames:
            await self.piece(frame)

    @property
    def split(self) -> tuple[bytes, bytes]:
        """The healthy body cut where the phase says, ``during`` inside of the first token."""
        if self.stream:
            return split_frames(self.answer.frames(), self.phase)
        body = self.answer.whole()
        at = {"before": 0, "during": 12, "after": len(body) - 20}[self.phase]
        return body[:at], body[at:]

    @property
    def boundary(self) -> int:
        """How many frames come before a fault between frames: the role's is the first."""
        return {"before": 0, "during": 2, "after": 1 + SHOWN_AFTER}[self.phase]

    async def begin(self) -> bytes:
        """Send the head and what comes before the fault; returns what should have followed."""
        before, rest = self.split
        length = None if self.stream else len(before) + len(rest)
        await self.head(200, "text/event-stream" if self.stream else "application/json", length)
        await (self.piece(before) if self.stream else self.send(before))
        await self._settle()
        return rest

    async def _settle(self) -> None:
        for wait in self.settled:
            await wait()

    async def body(self, data: bytes) -> None:
        """Send a whole, wrong body, properly framed."""
        if not self.stream or not self.settled:
            kind = "text/event-stream" if self.stream else "application/json"
            await self.reply(200, data, kind=kind)
            return
        before, _ = self.split
        await self.head(200, "text/event-stream", None)
        same = (a == b for a, b in zip(before, data, strict=False))
        shared = sum(takewhile(bool, same))
        await self.piece(data[:shared])
        await self._settle()
        await self.piece(data[shared:])
        await self.end()


Act = Callable[[Exchange], Awaitable[None]]


def split_frames(frames: Sequence[bytes], phase: Phase) -> tuple[bytes, bytes]:
    """A stream's bytes before and after the fault's place."""
    at = {
        "before": 0,
        "during": len(frames[0]) + len(frames[1]) - 40,
        "after": sum(map(len, frames[: 1 + SHOWN_AFTER])),
    }[phase]
    joined = b"".join(frames)
    return joined[:at], joined[at:]


class Upstream:
    """One listening upstream. ``acts``: what the first call of each script gets."""

    def __init__(
        self,
        acts: dict[str, tuple[Act, Phase]],
        calls: dict[str, int],
        otherwise: Act | None = None,
    ) -> None:
        """``calls`` counts each script's calls and is shared by upstreams of one test.
        ``otherwise``: what calls get for which no script says anything; None: a healthy answer."""
        self._acts = acts
        self._calls = calls
        self.otherwise: Act = otherwise or Exchange.healthy
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Serve for the duration of the block; yields the base URL with its version part."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        try:
            yield self.url
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            await hung_up(writer)
            self._tasks.discard(task)

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one call; whether the connection can take another."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"content-length":
                length = int(value)
        body = await reader.readexactly(length)

        async def gone() -> None:
            await reader.read()

        if not body:
            # A look at the models: who asks is told elsewhere what there is.
            await Exchange({"model": ""}, "before", writer, gone).reply(404, b"{}")
            return True
        asked = json.loads(body)

        script = _script(asked)
        count = self._calls[script] = self._calls.get(script, 0) + 1
        act, phase = self._acts.get(script, (self.otherwise, "before"))
        if count > 1 and script in self._acts:
            act = self.otherwise
        await act(Exchange(asked, phase, writer, gone))
        return not writer.is_closing()


def _script(asked: dict[str, Any]) -> str:
    """What the user said last."""
    said = [message["content"] for message in asked["messages"] if message["role"] == "user"]
    return str(said[-1])


async def hung_up(*writers: asyncio.StreamWriter) -> None:
    """Close connections and wait until their sockets are closed: a loop that ends before would
    leave them to the garbage collector, which blames whatever test is running then."""
    for writer in writers:
        writer.close()
    for writer in writers:
        try:
            async with asyncio.timeout(HUNG_UP_S):
                await writer.wait_closed()
        except TimeoutError:
            # The other side reads no more: what is left is dropped.
            writer.transport.abort()
        except OSError:
            pass
