"""A simulated provider's endpoint, in the OpenAI format: what provider nodes call.

What a model says is a function of its name and the user's words alone, so every account that has
the model says the same, and :func:`spoken` knows what an undisturbed answer is. It goes on after a
given text in the dialect it is built with. An account may have limits, which it keeps strictly and
counts by itself. Faults are drawn by the world; the way to it has the network's own. Uses nothing
of the product's HTTP or provider code.
"""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, Literal

import msgspec

from trunkline.runtime.http import Received, Scope, Send

PROMPT_TOKENS: Final = 11
SPOKEN_MIN: Final = 3
SPOKEN_SPREAD: Final = 14
TOOL: Final = "forecast"
WINDOW_S: Final = 60.0

Fault = Literal["status", "limited", "error_object", "clean_end", "wrong_model", "empty", "html"]
FAULTS: Final[tuple[Fault, ...]] = (
    "status", "limited", "error_object", "clean_end", "wrong_model", "empty", "html",
)  # fmt: skip

Receive = Callable[[], Any]


class Spoken(msgspec.Struct, frozen=True, kw_only=True):
    """What a model says to somebody."""

    pieces: tuple[str, ...]
    """One token each."""
    tool: bool
    """The pieces are a call's arguments."""
    finish: str

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def spoken(model: str, said: str, *, tool: bool = False, document: bool = False) -> Spoken:
    """The undisturbed answer of ``model`` to the user's words ``said``."""
    key = sha256(f"{model}\n{said}".encode()).hexdigest()
    if tool or document:
        text = json.dumps({"city": key[:9], "days": int(key[9:11], 16)})
        pieces = tuple(text[at : at + 5] for at in range(0, len(text), 5))
        return Spoken(pieces=pieces, tool=tool, finish="tool_calls" if tool else "stop")
    count = SPOKEN_MIN + int(key[:2], 16) % SPOKEN_SPREAD
    words = [sha256(f"{key}{number}".encode()).hexdigest()[:6] for number in range(count)]
    ends = ("", "é", "\n", " 🌊", "  ")
    pieces = tuple(
        ("" if number == 0 else " ") + word + ends[int(word, 16) % 5 if number % 3 == 1 else 0]
        for number, word in enumerate(words)
    )
    return Spoken(pieces=pieces, tool=False, finish="stop")


def vector(model: str, text: str) -> list[float]:
    """The embedding of a text."""
    return [byte / 255 for byte in sha256(f"{model}\n{text}".encode()).digest()[:4]]


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """What an account allows."""

    requests_per_minute: int | None = None
    concurrency: int | None = None


class Account:
    """Counts what arrives, as the provider would. The judges read it."""

    def __init__(self, allowance: Allowance) -> None:
        self.allowance = allowance
        self.running = 0
        self.started: deque[float] = deque()
        """When each call arrived within the last window."""
        self.calls = 0
        self.refused = 0
        """Beyond the allowance."""

    def arrives(self, now_s: float) -> str:
        """Count a call; why it is refused, or nothing."""
        self.calls += 1
        while self.started and self.started[0] <= now_s - WINDOW_S:
            self.started.popleft()
        allowed = self.allowance
        why = ""
        if allowed.concurrency is not None and self.running >= allowed.concurrency:
            why = "concurrency"
        if self.room(now_s) < 1:
            why = "requests"
        if why:
            self.refused += 1
        else:
            self.started.append(now_s)
        return why

    def room(self, now_s: float) -> int:
        """Calls that the window would still take."""
        per_minute = self.allowance.requests_per_minute
        if per_minute is None:
            return 1 << 30
        return per_minute - sum(at_s > now_s - WINDOW_S for at_s in self.started)

    def free(self, now_s: float) -> bool:
        """It would take one more call."""
        places = self.allowance.concurrency
        return self.room(now_s) > 0 and (places is None or self.running < places)

    def headers(self, now_s: float) -> tuple[tuple[str, str], ...]:
        """Its own word on the window."""
        per_minute = self.allowance.requests_per_minute
        if per_minute is None:
            return ()
        reset_s = self.started[0] + WINDOW_S - now_s if self.started else 0.0
        return (
            ("x-ratelimit-limit-requests", str(per_minute)),
            ("x-ratelimit-remaining-requests", str(max(self.room(now_s), 0))),
            ("x-ratelimit-reset-requests", f"{max(reset_s, 0.0):.3f}s"),
        )


class Upstream:
    """An ASGI application. The world changes :attr:`token_s` and :attr:`fault`."""

    def __init__(self, *, echoes: bool = False, allowance: Allowance | None = None) -> None:
        self.account = Account(allowance or Allowance())
        self.token_s = 0.01
        self.fault: Callable[[], Fault | None] = lambda: None
        self._echoes = echoes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        message: Received = await receive()
        asked = json.loads(message.get("body", b"") or b"{}")
        reply = _Reply(send)
        account, now_s = self.account, asyncio.get_running_loop().time()
        why = account.arrives(now_s)
        if why:
            later = () if why == "concurrency" else (("retry-after", "1"),)
            await reply.error(429, *later, *account.headers(now_s))
            return
        account.running += 1
        work = asyncio.ensure_future(self._serve(scope["path"], asked, reply))
        left = asyncio.ensure_future(receive())
        try:
            await asyncio.wait((work, left), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            account.running -= 1
            for task in (work, left):
                task.cancel()
            await asyncio.gather(work, left, return_exceptions=True)

    async def _serve(self, path: str, asked: Mapping[str, Any], reply: "_Reply") -> None:
        fault = self.fault()
        extra = self.account.headers(asyncio.get_running_loop().time())
        match fault:
            case "status":
                await reply.error(500)
            case "limited":
                await reply.error(429, ("retry-after", "1"))
            case "html":
                await reply.whole(b"<html>", "text/html")
            case "error_object":
                await reply.whole(_ERROR)
            case _ if path.endswith("/embeddings"):
                await asyncio.sleep(self.token_s)
                await reply.whole(_encode(_vectors(asked)), extra=extra)
            case _:
                await _Telling(asked, reply, self.token_s, fault, self._echoes, extra).tell()


class _Telling:
    """One chat answer."""

    def __init__(
        self,
        asked: Mapping[str, Any],
        reply: "_Reply",
        token_s: float,
        fault: Fault | None,
        echoes: bool,
        extra: Sequence[tuple[str, str]],
    ) -> None:
        self._asked = asked
        self._reply = reply
        self._token_s = token_s
        self._fault = fault
        self._extra = extra
        self._model = "quite-another" if fault == "wrong_model" else str(asked["model"])
        said = answer_to({**asked, "model": self._model})
        given = _given(asked)
        pieces = list(said.pieces)
        known = 0
        if given:
            known, pieces = _after(said, given)
        bound = asked.get("max_completion_tokens") or asked.get("max_tokens")
        cut = bound is not None and bound < len(pieces)
        self._pieces = pieces[:bound] if cut else pieces
        self._finish = "length" if cut else said.finish
        if fault == "empty" and not given:
            # After a given text, nothing more to say is an answer like any other.
            self._pieces, self._finish = [], "stop"
        self._tool = said.tool
        self._echo = given if given and echoes else ""
        self._prompt = PROMPT_TOKENS + known

    async def tell(self) -> None:
        asked = self._asked
        if not asked.get("stream"):
            await asyncio.sleep(self._token_s * len(self._pieces))
            if self._fault == "clean_end":
                self._finish = ""
            await self._reply.whole(_encode(self._whole()), extra=self._extra)
            return
        await self._reply.head("text/event-stream", self._extra)
        await self._chunk({"role": "assistant", "content": ""})
        if self._echo:
            await self._chunk({"content": self._echo})
        for number, piece in enumerate(self._pieces):
            await asyncio.sleep(self._token_s)
            if self._fault == "clean_end" and number >= len(self._pieces) // 2:
                await self._reply.end()
                return
            await self._chunk(self._delta(number, piece), said=number + 1)
        await self._chunk({}, finish=self._finish, said=len(self._pieces))
        if (asked.get("stream_options") or {}).get("include_usage"):
            await self._data({"choices": [], "usage": self._usage(len(self._pieces))})
        await self._reply.send(b"data: [DONE]\n\n")
        await self._reply.end()

    def _delta(self, number: int, piece: str) -> dict[str, Any]:
        if not self._tool:
            return {"content": piece}
        call: dict[str, Any] = {"index": 0, "function": {"arguments": piece}}
        if number == 0:
            call |= {"id": "call_1", "type": "function"}
            call["function"]["name"] = TOOL
        return {"tool_calls": [call]}

    async def _chunk(
        self, delta: Mapping[str, Any], finish: str | None = None, said: int = 0
    ) -> None:
        chunk: dict[str, Any] = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
        if (self._asked.get("stream_options") or {}).get("continuous_usage_stats"):
            chunk["usage"] = self._usage(said)
        await self._data(chunk)

    async def _data(self, more: Mapping[str, Any]) -> None:
        chunk = {
            "id": "chatcmpl-up",
            "object": "chat.completion.chunk",
            "created": 1_780_000_000,
            "model": self._model,
        }
        await self._reply.send(b"data: " + _encode(chunk | dict(more)) + b"\n\n")

    def _whole(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self._pieces)}
        if self._tool:
            function = {"name": TOOL, "arguments": "".join(self._pieces)}
            message["content"] = None
            message["tool_calls"] = [{"id": "call_1", "type": "function", "function": function}]
        finish = self._finish or None
        return {
            "id": "chatcmpl-up",
            "object": "chat.completion",
            "created": 1_780_000_000,
            "model": self._model,
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": self._usage(len(self._pieces)),
        }

    def _usage(self, completion: int) -> dict[str, int]:
        return {
            "prompt_tokens": self._prompt,
            "completion_tokens": completion,
            "total_tokens": self._prompt + completion,
        }


def answer_to(asked: Mapping[str, Any]) -> Spoken:
    """What a request in the OpenAI chat format is answered, all of it."""
    users = [message for message in asked["messages"] if message["role"] == "user"]
    content = users[-1]["content"]
    if not isinstance(content, str):
        content = "".join(part.get("text", "") for part in content)
    tool, document = bool(asked.get("tools")), bool(asked.get("response_format"))
    return spoken(str(asked["model"]), content, tool=tool, document=document)


def _given(asked: Mapping[str, Any]) -> str:
    last = asked["messages"][-1]
    return str(last["content"]) if last["role"] == "assistant" else ""


def _after(said: Spoken, given: str) -> tuple[int, list[str]]:
    """Tokens that ``given`` was, and those that follow it."""
    if not said.text.startswith(given):
        # What was shown is no beginning of what this model says: the judges will see nonsense.
        return 0, [" nonsense"]
    left: list[str] = []
    rest, taken = "", 0
    for piece in said.pieces:
        new = piece[max(len(given) - taken, 0) :]
        taken += len(piece)
        if new == piece:
            left.append(rest + piece)
            rest = ""
        else:
            rest = new
    known = len(said.pieces) - len(left)
    return known, [*left, rest] if rest else left


def _vectors(asked: Mapping[str, Any]) -> dict[str, Any]:
    given = asked["input"]
    texts = [given] if isinstance(given, str) else given
    data = [
        {"object": "embedding", "index": number, "embedding": vector(asked["model"], text)}
        for number, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": PROMPT_TOKENS, "total_tokens": PROMPT_TOKENS}
    return {"object": "list", "data": data, "model": asked["model"], "usage": usage}


_ERROR: Final = (
    b'{"error": {"message": "scripted", "type": "server_error", "code": "server_error"}}'
)


class _Reply:
    """The sending side."""

    def __init__(self, send: Send) -> None:
        self._send = send

    async def head(
        self, kind: str, extra: Sequence[tuple[str, str]] = (), *, status: int = 200
    ) -> None:
        headers = [(b"content-type", kind.encode())]
        headers += [(name.encode(), value.encode()) for name, value in extra]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def send(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def whole(
        self,
        body: bytes,
        kind: str = "application/json",
        *,
        extra: Sequence[tuple[str, str]] = (),
        status: int = 200,
    ) -> None:
        await self.head(kind, extra, status=status)
        await self.end(body)

    async def error(self, status: int, *extra: tuple[str, str]) -> None:
        await self.whole(_ERROR, extra=extra, status=status)


def _encode(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
