"""Two gateway processes, one provider with a limit: it is kept, and no app hears of it."""

import asyncio
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.network import command, free_port_base

from trunkline.base.errors import ConnectError
from trunkline.remote.http1 import HttpTransport

LIMIT, WINDOW_S = 10, 2.0
CALLS = 30
READY_S = 60.0
STOP_S = 45.0


class Limited:
    """An upstream of the OpenAI format that allows ``LIMIT`` calls in any ``WINDOW_S``, and says so
    in every answer's headers."""

    def __init__(self) -> None:
        self.taken: deque[float] = deque()
        self.answered = 0
        self.refused = 0

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                found = re.search(rb"content-length: *(\d+)", head.lower())
                await reader.readexactly(int(found[1]) if found else 0)
                status, body = self._decide(head)
                left = LIMIT - len(self.taken)
                lines = [
                    f"HTTP/1.1 {status} Scripted",
                    "content-type: application/json",
                    f"content-length: {len(body)}",
                    f'ratelimit-policy: "all";q={LIMIT};w={WINDOW_S:.0f}',
                    f'ratelimit: "all";r={left};t={WINDOW_S:.0f}',
                ]
                writer.write("\r\n".join([*lines, "", ""]).encode() + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _decide(self, head: bytes) -> tuple[int, bytes]:
        if head.startswith(b"GET"):
            return 200, json.dumps({"data": [{"id": "m", "object": "model"}]}).encode()
        now_s = time.monotonic()
        while self.taken and self.taken[0] <= now_s - WINDOW_S:
            self.taken.popleft()
        if len(self.taken) >= LIMIT:
            self.refused += 1
            return 429, b'{"error":{"message":"later","code":"rate_limit_exceeded"}}'
        self.taken.append(now_s)
        self.answered += 1
        message = {"role": "assistant", "content": "yes"}
        answer = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
        }
        return 200, json.dumps(answer).encode()


def prepared(folder: Path, provider_url: str) -> tuple[list[list[str]], list[str]]:
    """A network with two gateways that share limits: the commands of its processes, and the two
    gateways' URLs."""
    data, base = folder / "net", free_port_base()
    done = command(
        "init", "--data", str(data), "--port-base", str(base), "--provider", f"p={provider_url}"
    )
    assert done.code == 0, done.err
    node = data / "node-p" / "node.toml"
    text = re.sub(r"(?m)^models = .*\n", "", node.read_text())
    node.write_text(text.replace("[engine]\n", '[engine]\nmodels = ["m"]\n', 1))
    first, second = data / "gateway", data / "gateway-2"
    path = first / "gateway.toml"
    text = re.sub(r"(?m)^# limits_file = .*$", 'limits_file = "../limits.db"', path.read_text())
    path.write_text(text)
    shutil.copytree(first, second)
    own = f'listen = "127.0.0.1:{base + 15}"'
    (second / "gateway.toml").write_text(re.sub(r"(?m)^listen = .*$", own, text))
    roles = [("log", data / "log"), ("witness", data / "witness"), ("node", data / "node-p")]
    roles += [("gateway", first), ("gateway", second)]
    commands = [
        [sys.executable, "-m", "trunkline.cli.role", role, str(place / f"{role}.toml")]
        for role, place in roles
    ]
    listen = re.findall(r'(?m)^listen = "(.*)"', text)[0]
    return commands, [f"http://{listen}", f"http://127.0.0.1:{base + 15}"]


def started(commands: list[list[str]], log: Path) -> list["subprocess.Popen[bytes]"]:
    with log.open("wb") as out:
        return [subprocess.Popen(each, stdout=out, stderr=out) for each in commands]


@asynccontextmanager
async def running(folder: Path, provider_url: str) -> AsyncIterator[list[str]]:
    commands, urls = await asyncio.to_thread(prepared, folder, provider_url)
    children = await asyncio.to_thread(started, commands, folder / "log")
    try:
        yield urls
    finally:
        for child in children:
            child.send_signal(signal.SIGTERM)
        for child in children:
            await asyncio.to_thread(child.wait, STOP_S)


async def listed(transport: HttpTransport, url: str) -> None:
    """Wait until a gateway serves the model."""
    while True:
        try:
            async with await transport.request("GET", f"{url}/v1/models") as reply:
                if b'"m"' in await reply.read(1 << 20):
                    return
        except ConnectError:
            pass
        # Nothing says when another process is ready.
        await asyncio.sleep(0.1)


async def test_two_gateways_keep_one_limit_and_no_app_hears_of_it(tmp_path: Path) -> None:
    provider, transport = Limited(), HttpTransport()
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "?"}]}).encode()
    headers = [("content-type", "application/json")]

    async def ask(url: str) -> int:
        path = f"{url}/v1/chat/completions"
        async with await transport.request("POST", path, headers=headers, body=body) as reply:
            await reply.read(1 << 20)
            return reply.status

    async with provider.listening() as provider_url, running(tmp_path, provider_url) as urls:
        async with asyncio.timeout(READY_S):
            for url in urls:
                await listed(transport, url)
        # From the first answer on, both know the limit: the one was told, the other reads it.
        assert await ask(urls[0]) == 200
        began_s = time.monotonic()
        statuses = await asyncio.gather(*(ask(urls[each % 2]) for each in range(CALLS)))
        took_s = time.monotonic() - began_s
        await transport.aclose()
    assert statuses == [200] * CALLS
    assert provider.answered == CALLS + 1
    # What the machine holds up between a decision and its sending may come too late, and meet the
    # next window's first calls. Without a word between the two, each would fill the window alone.
    assert provider.refused < LIMIT // 2
    assert took_s < 6 * WINDOW_S
