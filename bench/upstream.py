"""A scripted OpenAI-compatible upstream for measuring what stands in front of it.

    python bench/upstream.py --port 9100 --chunks 20

It answers every POST with the same short chat answer at once, streamed when the request says so,
on a bare socket protocol, so that what is measured is the proxy and not this. It is no model.
"""

import argparse
import asyncio
import json
from typing import cast

HEAD_STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
MODEL = "scripted"


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _chunk(delta: dict[str, str], finish: str | None, usage: dict[str, int] | None = None) -> bytes:
    body = {
        "id": "chatcmpl-scripted",
        "object": "chat.completion.chunk",
        "created": 1_780_000_000,
        "model": MODEL,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    if usage is not None:
        body["choices"], body["usage"] = [], usage
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def stream_body(chunks: int) -> bytes:
    """The whole streamed answer, one HTTP chunk per event as a real server sends it."""
    usage = {"prompt_tokens": 5, "completion_tokens": chunks, "total_tokens": 5 + chunks}
    events = [
        _chunk({"role": "assistant", "content": ""}, None),
        *(_chunk({"content": f" word{i}"}, None) for i in range(chunks)),
        _chunk({}, "stop"),
        _chunk({}, None, usage),
        b"data: [DONE]\n\n",
    ]
    return HEAD_STREAM + b"".join(map(_framed, events)) + b"0\r\n\r\n"


def whole_body(chunks: int) -> bytes:
    usage = {"prompt_tokens": 5, "completion_tokens": chunks, "total_tokens": 5 + chunks}
    text = "".join(f" word{i}" for i in range(chunks))
    body = json.dumps(
        {
            "id": "chatcmpl-scripted",
            "object": "chat.completion",
            "created": 1_780_000_000,
            "model": MODEL,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text},
                    "finish_reason": "stop",
                }
            ],
            "usage": usage,
        }
    ).encode()
    return _json_response(body)


def _json_response(body: bytes) -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        % len(body)
    ) + body


class Upstream(asyncio.Protocol):
    """Reads requests off one connection and writes the canned answers."""

    def __init__(self, chunks: int) -> None:
        self._stream, self._whole = stream_body(chunks), whole_body(chunks)
        self._models = _json_response(
            json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model"}]}).encode()
        )
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio's by behaviour, not by inheritance.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            length = 0
            for line in head.split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    length = int(line[15:])
            if len(self._buffer) < end + 4 + length:
                return
            body = self._buffer[end + 4 : end + 4 + length]
            self._buffer = self._buffer[end + 4 + length :]
            if head.startswith(b"get"):
                self._transport.write(self._models)
            elif b'"stream":true' in body.replace(b" ", b""):
                self._transport.write(self._stream)
            else:
                self._transport.write(self._whole)


async def serve(port: int, chunks: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Upstream(chunks), "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--chunks", type=int, default=20)
    options = parser.parse_args()
    import uvloop

    uvloop.run(serve(options.port, options.chunks))


if __name__ == "__main__":
    main()
