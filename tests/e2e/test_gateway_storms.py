"""Everything fails at once, and comes back: real processes, and an app that only sees a wait.

A gateway and two nodes as processes, each node before a scripted provider of its own here.
"""

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from tests.support.network import command, free_port_base

from trunkline.base.errors import ConnectError
from trunkline.remote.http1 import HttpTransport

STOP_S = 45.0
WORDS = [f" word{at}" for at in range(8)]
TEXT = "".join(WORDS)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


def chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    made = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return b"data: %b\n\n" % json.dumps(made | {"choices": [choice]}).encode()


class Provider:
    """Says ``TEXT``, or what of it the last message leaves to say. ``go``: from its fourth word on
    it waits for this."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.go.set()
        self.half_way = asyncio.Event()
        self.port = 0
        self._server: asyncio.Server | None = None
        self._kept: socket.socket | None = None

    async def up(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        self.give_back()

    def down(self) -> None:
        """Refuse connections, and have nobody else given the port. Each answer closes its own, so
        none is left open."""
        assert self._server is not None
        self._server.close()
        if self._kept is None:
            self._kept = socket.socket()
            self._kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._kept.bind(("127.0.0.1", self.port))

    def give_back(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            found = re.search(rb"content-length: *(\d+)", head.lower())
            asked = json.loads(await reader.readexactly(int(found[1]) if found else 0))
            last = asked["messages"][-1]
            given = last["content"] if last["role"] == "assistant" else ""
            writer.write(HEAD + chunk({"role": "assistant", "content": ""}))
            for number, word in enumerate(re.findall(r" \w+", TEXT.removeprefix(given))):
                if number == 3:
                    await writer.drain()
                    self.half_way.set()
                    await self.go.wait()
                writer.write(chunk({"content": word}))
            writer.write(chunk({}, "stop") + b"data: [DONE]\n\n")
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


class Processes:
    """The network's processes, by the folder of their configuration."""

    def __init__(self, data: Path, stack: AsyncExitStack) -> None:
        self._data = data
        self._stack = stack
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self.url = ""

    def start(self, folder: str, role: str) -> None:
        config = self._data / folder / f"{role}.toml"
        out = self._stack.enter_context((self._data / f"{folder}.out").open("ab"))
        line = [sys.executable, "-m", "trunkline.cli.role", role, str(config)]
        self._children[folder] = subprocess.Popen(line, stdout=out, stderr=out)

    def kill(self, folder: str) -> None:
        self._children[folder].kill()
        self._children[folder].wait(STOP_S)

    async def stop(self) -> None:
        for child in self._children.values():
            child.send_signal(signal.SIGTERM)
        for child in self._children.values():
            await asyncio.to_thread(child.wait, STOP_S)


def prepared(folder: Path, providers: list[Provider]) -> tuple[Path, str]:
    data, base = folder / "net", free_port_base()
    line = ["init", "--data", str(data), "--port-base", str(base)]
    for at, provider in enumerate(providers):
        line += ["--provider", f"p{at}=http://127.0.0.1:{provider.port}/v1"]
    done = command(*line)
    assert done.code == 0, done.err
    for at in range(len(providers)):
        path = data / f"node-p{at}" / "node.toml"
        text = re.sub(r"(?m)^(models|prefix) = .*\n", "", path.read_text())
        own = '[engine]\nmodels = ["m"]\nprefix = "vllm"\n'
        path.write_text(text.replace("[engine]\n", own, 1))
    return data, f"http://127.0.0.1:{base}"


@asynccontextmanager
async def network(folder: Path, providers: list[Provider]) -> AsyncIterator[Processes]:
    for provider in providers:
        await provider.up()
    data, url = await asyncio.to_thread(prepared, folder, providers)
    async with AsyncExitStack() as stack:
        processes = Processes(data, stack)
        processes.url = url
        try:
            for role in ("log", "witness", "gateway"):
                processes.start(role, role)
            for at in range(len(providers)):
                processes.start(f"node-p{at}", "node")
            await seen(url, len(providers))
            yield processes
        finally:
            await processes.stop()
            for provider in providers:
                provider.down()
                provider.give_back()


async def seen(url: str, nodes: int) -> None:
    """Wait until the gateway has heard of so many nodes that serve the model."""
    transport = HttpTransport()
    try:
        while True:
            try:
                async with await transport.request("GET", f"{url}/trunkline/v1/status") as reply:
                    status = json.loads(await reply.read(1 << 20))
            except ConnectError:
                status = {"nodes": []}
            if sum(node["ready"] for node in status["nodes"]) >= nodes:
                return
            # Nothing says when another process is ready.
            await asyncio.sleep(0.1)
    finally:
        await transport.aclose()


async def ask(url: str) -> tuple[int, str, list[str]]:
    """Status, text and finish reasons of one streamed answer."""
    asked = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "go"}]}
    transport = HttpTransport()
    headers = (("content-type", "application/json"), ("trunkline-deadline-ms", "60000"))
    try:
        async with await transport.request(
            "POST", f"{url}/v1/chat/completions", headers=headers, body=json.dumps(asked).encode()
        ) as reply:
            body = await reply.read(1 << 20)
    finally:
        await transport.aclose()
    said = [json.loads(line[6:]) for line in body.splitlines() if line.startswith(b"data: {")]
    choices = [one for event in said for one in event.get("choices", ())]
    text = "".join(one["delta"].get("content") or "" for one in choices)
    return reply.status, text, [one["finish_reason"] for one in choices if one["finish_reason"]]


async def test_every_provider_is_down_and_one_comes_back(tmp_path: Path) -> None:
    providers = [Provider(), Provider()]
    async with network(tmp_path, providers) as processes:
        for provider in providers:
            provider.down()
        asked = asyncio.create_task(ask(processes.url))
        # Longer than six attempts with their back-off take.
        done, _ = await asyncio.wait([asked], timeout=3.0)
        assert not done
        await providers[1].up()
        assert await asked == (200, TEXT, ["stop"])


async def test_every_node_is_killed_in_mid_stream_and_started_again(tmp_path: Path) -> None:
    providers = [Provider(), Provider()]
    async with network(tmp_path, providers) as processes:
        for provider in providers:
            provider.go.clear()
        asked = asyncio.create_task(ask(processes.url))
        waits = [asyncio.create_task(provider.half_way.wait()) for provider in providers]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        for at in range(2):
            await asyncio.to_thread(processes.kill, f"node-p{at}")
        for provider in providers:
            provider.go.set()
        for at in range(2):
            processes.start(f"node-p{at}", "node")
        assert await asked == (200, TEXT, ["stop"])
