"""Every fault of the design's list, as what a scripted upstream does in one call."""

import asyncio
import json
from email.utils import formatdate
from typing import Literal

from tests.support.upstream import SHOWN_AFTER, TOOL, Act, Exchange

DRIBBLE_S = 0.25


def status(code: int, *headers: tuple[str, str], body: bytes | None = None) -> Act:
    async def act(exchange: Exchange) -> None:
        said = {"error": {"message": "scripted", "type": "scripted", "code": None}}
        await exchange.reply(code, json.dumps(said).encode() if body is None else body, *headers)

    return act


def limited(*headers: tuple[str, str]) -> Act:
    said = {"error": {"message": "slow down", "type": "requests", "code": "rate_limit_exceeded"}}
    return status(429, *headers, body=json.dumps(said).encode())


BAD_KEY = json.dumps(
    {"error": {"message": "scripted", "type": "invalid_request_error", "code": "invalid_api_key"}}
).encode()
RETRY_DELAY = json.dumps(
    {
        "error": {
            "code": 429,
            "status": "RESOURCE_EXHAUSTED",
            "message": "scripted",
            "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "17s"}],
        }
    }
).encode()
DATE = formatdate(4_000_000_000, usegmt=True)
HTML = b"<!doctype html><html><body><h1>502 Bad Gateway</h1></body></html>"


async def html(exchange: Exchange) -> None:
    await exchange.reply(200, HTML, kind="text/html")


async def hang(exchange: Exchange) -> None:
    await exchange.hang()


async def gone(exchange: Exchange) -> None:
    await exchange.cut()


async def cut(exchange: Exchange) -> None:
    await exchange.begin()
    await exchange.cut()


async def reset(exchange: Exchange) -> None:
    await exchange.begin()
    await exchange.reset()


async def stall(exchange: Exchange) -> None:
    await exchange.begin()
    await exchange.hang()


async def outlive(exchange: Exchange) -> None:
    """Say what comes before the node's death. If that is nothing, the node never asked."""
    await (exchange.healthy() if exchange.phase == "before" else stall(exchange))


async def dribble(exchange: Exchange) -> None:
    rest = await exchange.begin()
    for byte in rest:
        data = bytes([byte])
        await (exchange.piece(data) if exchange.stream else exchange.send(data))
        await asyncio.sleep(DRIBBLE_S)


async def clean_end(exchange: Exchange) -> None:
    before, _ = exchange.split
    await exchange.body(before)


async def clean_done(exchange: Exchange) -> None:
    before = b"".join(exchange.answer.frames()[: exchange.boundary])
    await exchange.body(before + b"data: [DONE]\n\n")


async def garbage(exchange: Exchange) -> None:
    before, rest = exchange.split
    noise = b"data: {\x00\xff,,not json\n\n" if exchange.stream else b"\x00\xff}{,"
    await exchange.body(before + noise + rest)


async def error_object(exchange: Exchange) -> None:
    said = {"error": {"message": "scripted", "type": "server_error", "code": "server_error"}}
    await exchange.reply(200, json.dumps(said).encode())


async def error_event(exchange: Exchange) -> None:
    said = {"error": {"message": "scripted", "type": "server_error", "code": "server_error"}}
    before = b"".join(exchange.answer.frames()[: exchange.boundary])
    await exchange.body(before + b"data: " + json.dumps(said).encode() + b"\n\n")


async def duplicate(exchange: Exchange) -> None:
    frames = exchange.answer.frames()
    at = max(exchange.boundary, 1)
    await exchange.frames([*frames[:at], frames[at - 1], *frames[at:]])


async def no_done(exchange: Exchange) -> None:
    await exchange.frames(exchange.answer.frames()[:-1])


async def hang_after_done(exchange: Exchange) -> None:
    await exchange.begin_frames(exchange.answer.frames())
    await exchange.hang()


async def reset_after_finish(exchange: Exchange) -> None:
    await exchange.begin_frames(exchange.answer.frames()[:-1])
    await exchange.reset()


async def said_twice(exchange: Exchange) -> None:
    """More text after the finish."""
    frames = exchange.answer.frames()
    last = -3 if exchange.answer.usage is not None else -2
    await exchange.frames([*frames[:last], frames[last], *frames[1:]])


async def signs_of_life(exchange: Exchange) -> None:
    """Chunks and comments without end, and nothing in them."""
    frames = exchange.answer.frames()
    await exchange.begin_frames(frames[: exchange.boundary])
    empty = exchange.answer.empty(said=max(exchange.boundary - 1, 0))
    while True:
        await exchange.piece(empty + b": still here\n\nevent: ping\ndata: {}\n\n")
        await asyncio.sleep(DRIBBLE_S)


async def slips(exchange: Exchange) -> None:
    """Nulls and left out numbers, and signs of life between."""
    ping = b": still here\n\nevent: ping\ndata: {}\n\ndata:\n\n"
    await exchange.frames(
        [
            ping + frame.replace(b'"index": 0, ', b"").replace(b'"delta": {}', b'"delta": null')
            for frame in exchange.answer.frames()
        ]
    )


async def unnamed(exchange: Exchange) -> None:
    """Neither ``id`` nor ``object``, ``created`` or ``model``, and Azure's first chunk."""
    names = {"id": "", "object": "", "created": 0, "model": ""}
    if not exchange.stream:
        said = json.loads(exchange.answer.whole())
        await exchange.reply(200, json.dumps({n: said[n] for n in said.keys() - names}).encode())
        return
    filtered = names | {"choices": [], "prompt_filter_results": []}
    frames = [b"data: %b\n\n" % json.dumps(filtered).encode()]
    for frame in exchange.answer.frames()[:-1]:
        said = json.loads(frame.removeprefix(b"data: "))
        left = {name: said[name] for name in said if name not in names}
        frames.append(b"data: %b\n\n" % json.dumps(left).encode())
    await exchange.frames(frames)


async def no_count(exchange: Exchange) -> None:
    """A usage that is none."""
    count = b'"completion_tokens": %d, "total' % len(exchange.answer.parts)
    spoiled = b'"completion_tokens": -1, "total'
    if exchange.stream:
        *frames, last, done = exchange.answer.frames()
        await exchange.frames([*frames, last.replace(count, spoiled), done])
    else:
        await exchange.reply(200, exchange.answer.whole().replace(count, spoiled))


async def _textless(exchange: Exchange, finish: str) -> None:
    exchange.answer.content = "text"
    exchange.answer.parts = ("",)
    exchange.answer.finish = finish
    await exchange.healthy()


async def called_nothing(exchange: Exchange) -> None:
    """The finish says that a tool is called, and no call came."""
    await _textless(exchange, "tool_calls")


async def choice_twice(exchange: Exchange) -> None:
    """One chunk has its choice two times."""
    frames = exchange.answer.frames()
    said = json.loads(frames[exchange.boundary].removeprefix(b"data: "))
    said["choices"] *= 2
    frames[exchange.boundary] = b"data: %b\n\n" % json.dumps(said).encode()
    await exchange.frames(frames)


async def no_finish(exchange: Exchange) -> None:
    exchange.answer.finish = None
    await exchange.healthy()


async def no_usage(exchange: Exchange) -> None:
    exchange.answer.usage = None
    await exchange.healthy()


async def empty_choices(exchange: Exchange) -> None:
    empty = {"id": "chatcmpl-up", "model": exchange.asked["model"], "choices": []}
    data = json.dumps(empty).encode()
    await exchange.body(b"data: %b\n\ndata: [DONE]\n\n" % data if exchange.stream else data)


async def empty_text(exchange: Exchange) -> None:
    await _textless(exchange, "stop")


async def plain_type(exchange: Exchange) -> None:
    data = b"".join(exchange.answer.frames()) if exchange.stream else exchange.answer.whole()
    await exchange.reply(200, data, kind="text/html" if not exchange.stream else "text/plain")


async def other_shape(exchange: Exchange) -> None:
    """A whole answer where a stream was asked for, or the other way round."""
    if exchange.stream:
        await exchange.reply(200, exchange.answer.whole())
    else:
        await exchange.frames(exchange.answer.frames())


async def byte_by_byte(exchange: Exchange) -> None:
    frames = exchange.answer.frames() if exchange.stream else [exchange.answer.whole()]
    kind = "text/event-stream" if exchange.stream else "application/json"
    await exchange.head(200, kind, None)
    for byte in b"".join(frames):
        await exchange.piece(bytes([byte]))
    await exchange.end()


async def wrong_model(exchange: Exchange) -> None:
    answer = exchange.answer
    if exchange.stream:
        if exchange.phase == "before":
            answer.model = "quite-another-model"
        at = 0 if exchange.phase == "during" else SHOWN_AFTER
        await exchange.frames(answer.frames(later_model="quite-another-model", from_part=at))
    else:
        answer.model = "quite-another-model"
        await exchange.healthy()


async def half_value(exchange: Exchange) -> None:
    """A tool call or document that breaks off, with everything else as it should be."""
    exchange.answer.parts = exchange.answer.parts[:5]
    await exchange.healthy()


async def wrong_value(exchange: Exchange) -> None:
    """A tool nobody offered, or a document that breaks its schema."""
    answer = exchange.answer
    if answer.content == "json":
        answer.parts = ('{"name": ', '"Ada", ', '"born": ', '"long ago"}')
        await exchange.healthy()
        return
    frames = answer.frames() if exchange.stream else [answer.whole()]
    spoiled = [frame.replace(TOOL.encode(), b"no_such_tool") for frame in frames]
    if exchange.stream:
        await exchange.frames(spoiled)
    else:
        await exchange.body(spoiled[0])


Break = Literal["cut", "end", "garbage"]


def broken_at(at: int, how: Break) -> Act:
    """The healthy body up to a byte, then nothing more, a proper end, or noise."""

    async def act(exchange: Exchange) -> None:
        frames = exchange.answer.frames() if exchange.stream else [exchange.answer.whole()]
        body = b"".join(frames)
        before = body[:at]
        if how != "cut":
            await exchange.body(before if how == "end" else before + b"\xff{" + body[at:])
            return
        kind = "text/event-stream" if exchange.stream else "application/json"
        await exchange.head(200, kind, len(body))
        await exchange.send(before)
        await exchange.cut()

    return act
