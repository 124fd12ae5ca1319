"""Does the slow path's state change an answer's latency? Stopped, far behind, or well: it must not.

Part of ``bench/evidence.py --separation``. One real network before a scripted upstream that
answers at once, so that nothing but the path itself is in the times. Answers are asked for one
after the other in short blocks: healthy, then with log and witness stopped (SIGSTOP: they take
connections and say nothing, which is worse than being gone), in turn, so that the machine's own
drift falls on both. Then a backlog is made, and the same is asked while it waits; and once more
when it is all final.

Differences of medians and means against healthy, with 95 % bootstrap intervals. Healthy against
itself (every other block) is the measure of noise.
"""

import asyncio
import json
import os
import signal
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent))
from hello import REQUEST, scripted, send
from network import Network, free_port_base

BLOCK = 40
WARM = 5
CHUNKS = 20
RESAMPLES = 4000
FINAL_S_MAX = 900.0
PATH = "/v1/chat/completions"
BODY = json.dumps({**REQUEST, "stream": True}, separators=(",", ":")).encode()

Times = list[tuple[float, float]]
"""Seconds to the first token and to the end, of each answer."""


async def ask(port: int, count: int) -> Times:
    """``count`` answers, one after the other on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    head = (
        f"POST {PATH} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"content-length: {len(BODY)}\r\n\r\n"
    ).encode()
    times: Times = []
    try:
        for _ in range(count):
            begun = time.perf_counter()
            writer.write(head + BODY)
            await reader.readuntil(b" word0")
            first = time.perf_counter() - begun
            await reader.readuntil(b"data: [DONE]")
            await reader.readuntil(b"\r\n0\r\n\r\n")
            times.append((first, time.perf_counter() - begun))
    finally:
        writer.close()
    return times


def block(port: int) -> Times:
    return asyncio.run(ask(port, WARM + BLOCK))[WARM:]


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    """Log and witness, for the duration of the block."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def provisional(port: int) -> int:
    with urllib.request.urlopen(
        f"http://127.0.0.1:{port}/trunkline/v1/status", timeout=30
    ) as answer:
        return int(json.load(answer)["evidence"]["provisional"])


def drain(port: int) -> float:
    """Wait until everything is final; the seconds that it took."""
    begun = time.monotonic()
    while provisional(port):
        if time.monotonic() - begun > FINAL_S_MAX:
            raise RuntimeError(f"not final within {FINAL_S_MAX:.0f} s")
        time.sleep(0.2)
    return time.monotonic() - begun


def interval(one: NDArray[np.float64], other: NDArray[np.float64], of: str) -> tuple[float, ...]:
    """Difference of ``one`` against ``other`` in ms, and its 95 % bootstrap interval."""
    chance = np.random.default_rng(1)
    statistic = np.median if of == "median" else np.mean
    drawn = statistic(chance.choice(one, (RESAMPLES, one.size)), axis=1) - statistic(
        chance.choice(other, (RESAMPLES, other.size)), axis=1
    )
    low, high = np.percentile(drawn, (2.5, 97.5))
    found = float(statistic(one) - statistic(other))
    return found * 1e3, float(low) * 1e3, float(high) * 1e3


def show(name: str, arm: Times, healthy: Times) -> None:
    """One arm beside healthy."""
    for column, what in enumerate(("first token", "whole")):
        one = np.array([row[column] for row in arm])
        other = np.array([row[column] for row in healthy])
        middle = f"{np.median(one) * 1e3:7.2f} ms"
        told = []
        for of in ("median", "mean"):
            found, low, high = interval(one, other, of)
            told.append(f"{of} {found:+.3f} [{low:+.3f}, {high:+.3f}]")
        print(f"    {name:<26} {what:<12} {middle}   {'   '.join(told)}", flush=True)


def measure(samples: int, behind: int) -> None:
    """All arms, ``samples`` answers each."""
    upstream, blocks = free_port_base() + 40, max(2, samples // BLOCK)
    with (
        scripted(upstream, CHUNKS),
        Network("--provider", f"scripted=http://127.0.0.1:{upstream}/v1") as network,
    ):
        port, roles = network.port_base, network.roles()
        # The supervisor first: it replaces what does not answer.
        slow = [network.status()["supervisor"], *(roles[name] for name in ("log", "witness"))]
        asyncio.run(send(port, BODY, PATH, 300, 8))
        drain(port)
        healthy: list[Times] = []
        halted: list[Times] = []
        for _ in range(blocks):
            healthy.append(block(port))
            with stopped(slow):
                halted.append(block(port))
            drain(port)
        late: list[Times] = []
        with stopped(slow):
            asyncio.run(send(port, BODY, PATH, behind, 16))
            waiting = provisional(port)
            late.extend(block(port) for _ in range(blocks))
            well = [row for part in healthy for row in part]
            print(f"Latency, {blocks * BLOCK} answers each; differences to healthy in ms, 95 %")
            show("healthy, even blocks", [row for part in healthy[::2] for row in part], well)
            show("healthy, odd blocks", [row for part in healthy[1::2] for row in part], well)
            show("log and witness stopped", [row for part in halted for row in part], well)
            show(f"{waiting:,} receipts behind", [row for part in late for row in part], well)
        took_s = drain(port)
        after = [row for _ in range(blocks) for row in block(port)]
        show("healthy again, after it", after, well)
        print(f"    the backlog was final {took_s:.0f} s after the log came back")
