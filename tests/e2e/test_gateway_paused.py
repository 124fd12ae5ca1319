"""A gateway that is stopped for longer than it waits for a node, and wakes: nobody was silent."""

import asyncio
import json
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

from tests.support.fake_node import FakeNode
from tests.support.fake_script import Script
from tests.support.gateway import PlainClient, process, settings, write_config

from trunkline.gateway.app import create_store
from trunkline.gateway.core.deadline import Timeouts
from trunkline.remote.transport import Response
from trunkline.schema.attempt import Attempt

BODY = b'{"model":"tiny","stream":%s,"messages":[{"role":"user","content":"say it"}]}'
IDLE_S = 3.0
"""A gateway and a node in two processes that share a busy machine keep within it."""
PAUSE_S = 8.0
"""More than every wait for a node together."""


@asynccontextmanager
async def paused_gateway(folder: Path, node: FakeNode) -> AsyncIterator[tuple[Process, str]]:
    """A gateway that waits for a node for less time than it will be stopped."""
    waits = Timeouts(
        head_s=IDLE_S, first_event_s=IDLE_S, first_token_s=IDLE_S, whole_s=IDLE_S, idle_s=IDLE_S
    )
    path = write_config(folder, settings([node], waits))
    create_store(folder / "data")
    async with process(path) as running:
        yield running


async def pause(gateway: Process) -> None:
    """Stop it for as long as it takes: that time passes is the fault itself."""
    gateway.send_signal(signal.SIGSTOP)
    loop = asyncio.get_running_loop()
    until_s = loop.time() + PAUSE_S
    while loop.time() < until_s:  # noqa: ASYNC110 - nothing happens meanwhile
        await asyncio.sleep(0.1)


def text(body: bytes) -> str:
    lines = [line[6:] for line in body.decode().splitlines() if line.startswith("data: {")]
    assert not any('"error"' in line for line in lines), body
    return "".join(
        choice["delta"].get("content") or "" for line in lines for choice in _choices(line)
    )


def _choices(line: str) -> list[dict[str, dict[str, str]]]:
    found: list[dict[str, dict[str, str]]] = json.loads(line)["choices"]
    return found


async def begun(client: PlainClient, *, stream: bool) -> asyncio.Task[bytes]:
    async def whole() -> bytes:
        response: Response = await client.open(
            "/v1/chat/completions", BODY % (b"true" if stream else b"false")
        )
        async with response:
            return await response.read(1 << 20)

    return asyncio.create_task(whole())


async def test_what_came_while_it_was_stopped_counts(tmp_path: Path) -> None:
    async with FakeNode() as node, paused_gateway(tmp_path, node) as (gateway, url):
        client, hold = PlainClient(url), asyncio.Event()
        node.scripts.append(Script(after=3, hold=hold))
        answer = await begun(client, stream=True)
        await node.reached.wait()
        gateway.send_signal(signal.SIGSTOP)
        hold.set()
        await pause(gateway)
        gateway.send_signal(signal.SIGCONT)
        body = await answer
        await client.aclose()
    assert body.endswith(b"data: [DONE]\n\n")
    assert len(node.attempts) == 1
    assert text(body)


class Hesitant(FakeNode):
    """Sends its head once it may, and what follows it once it may do that too."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.head, self.rest = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def _attempt(
        self,
        attempt: Attempt,
        script: Script,
        writer: asyncio.StreamWriter,
        gone: asyncio.Task[None],
    ) -> bool:
        self.asked.set()
        await self.head.wait()
        held = cast("asyncio.StreamWriter", _Held(writer, self.rest))
        return await super()._attempt(attempt, script, held, gone)


class _Held:
    """Passes on what is written first, and all else once it may."""

    def __init__(self, writer: asyncio.StreamWriter, until: asyncio.Event) -> None:
        self._writer = writer
        self._until = until
        self._kept: list[bytes] | None = None

    def write(self, data: bytes) -> None:
        if self._kept is None:
            self._kept = []
            self._writer.write(data)
        else:
            self._kept.append(data)

    async def drain(self) -> None:
        await self._until.wait()
        self._writer.writelines(self._kept or ())
        self._kept = []
        await self._writer.drain()


async def test_time_lost_before_the_head_is_none_of_the_wait_after_it(tmp_path: Path) -> None:
    async with Hesitant() as node, paused_gateway(tmp_path, node) as (gateway, url):
        client = PlainClient(url)
        answer = await begun(client, stream=True)
        await node.asked.wait()
        gateway.send_signal(signal.SIGSTOP)
        node.head.set()
        await pause(gateway)
        gateway.send_signal(signal.SIGCONT)
        # Less than is left of the wait, and enough to give up at once.
        await asyncio.wait({answer}, timeout=0.3)
        node.rest.set()
        body = await answer
        await client.aclose()
    assert body.endswith(b"data: [DONE]\n\n")
    assert len(node.attempts) == 1


async def test_a_whole_answer_and_the_first_look_at_nodes_too(tmp_path: Path) -> None:
    async with FakeNode() as node, paused_gateway(tmp_path, node) as (gateway, url):
        client, hold = PlainClient(url), asyncio.Event()
        node.scripts.append(Script(after=1, hold=hold))
        answer = await begun(client, stream=False)
        await node.reached.wait()
        await pause(gateway)
        hold.set()
        gateway.send_signal(signal.SIGCONT)
        body = await answer
        reply = await client.post("/v1/chat/completions", BODY % b"false")
        await client.aclose()
    assert b'"finish_reason": "stop"' in body
    assert reply.status == 200
    assert len(node.attempts) == 2
