"""The fault matrix and a failing provider, against Trunkline and against what people use today.

    python bench/continuity.py matrix  --peers FOLDER     whole, explicit error, silent damage, hang
    python bench/continuity.py failing --peers FOLDER     added p50 and p99 while a provider fails
    python bench/continuity.py gaps    --peers FOLDER     how long a broken stream stands still

Every system stands before the same two scripted upstreams, is asked by the same unmodified
``openai`` client, which never retries, and is told to put up with the same silence. Peers that are
not in the folder are named as missing (``bench/README.md`` says how to install them). One run, one
machine: read the ratios. ``matrix`` exits with 1 if Trunkline damaged an answer or hung.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx2
import openai

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
import peers
from peers import Deployments, System
from tests.support import fault_matrix, upstream
from tests.support import upstream_faults as faults
from tests.support.fault_matrix import Cell, View
from tests.support.upstream import Act, Exchange, Phase, Upstream

MODEL = fault_matrix.MODEL
AT_ONCE = 8
SETTLE_S = 0.1
"""What came before a fault reaches the app before the fault does."""
VERDICTS = ("whole", "error", "damage", "hang")
ENGINE: dict[str, object] = {"prefix": "vllm"}
"""The scripted upstreams go on after a given text, and the nodes are told in which way to ask."""


# What all systems stand before, and how they are asked.

FIRST_S, NEXT_S = 0.2, 0.02


async def settle() -> None:
    await asyncio.sleep(SETTLE_S)


async def paced(exchange: Exchange) -> None:
    """A healthy answer, its first token after 200 ms, the others 20 ms apart."""
    await asyncio.sleep(FIRST_S)
    if not exchange.stream:
        await asyncio.sleep(NEXT_S * len(upstream.WORDS))
        await exchange.healthy()
        return
    await exchange.head(200, "text/event-stream", None)
    for frame in exchange.answer.frames():
        await exchange.piece(frame)
        await asyncio.sleep(NEXT_S)
    await exchange.end()


async def paced_then_cut(exchange: Exchange) -> None:
    """The same, cut after the third token."""
    await asyncio.sleep(FIRST_S)
    await exchange.head(200, "text/event-stream", None)
    for frame in exchange.answer.frames()[: 1 + upstream.SHOWN_AFTER]:
        await exchange.piece(frame)
        await asyncio.sleep(NEXT_S)
    await exchange.cut()


async def paced_then_stall(exchange: Exchange) -> None:
    """The same, silent after the third token."""
    await asyncio.sleep(FIRST_S)
    await exchange.head(200, "text/event-stream", None)
    for frame in exchange.answer.frames()[: 1 + upstream.SHOWN_AFTER]:
        await exchange.piece(frame)
        await asyncio.sleep(NEXT_S)
    await exchange.hang()


def client_of(system: System, model: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=system.base_url,
        api_key=peers.SECRET,
        max_retries=0,
        timeout=fault_matrix.HANG_S,
        default_headers=dict(system.headers.get(model, {})),
    )


@asynccontextmanager
async def systems(
    folder: Path | None, scratch: Path, deployments: Deployments
) -> AsyncIterator[list[System]]:
    """Trunkline and every peer that is installed, over the same deployments."""
    scratch.mkdir()
    async with AsyncExitStack() as stack:
        ours = peers.trunkline(scratch / "trunkline", deployments, ENGINE)
        found = [await stack.enter_async_context(ours)]
        for name, start in (("litellm", peers.litellm), ("portkey", peers.portkey)):
            installed = sorted(folder.glob(f"{name}*/")) if folder is not None else []
            if not installed:
                print(f"{name}: not installed, nothing is said about it")
            for place in installed:
                running = start(place, scratch / place.name, deployments)
                found.append(await stack.enter_async_context(running))
        for system in found:
            print(f"{system.name}: {system.note}")
        print()
        yield found


# The matrix.


def judged(cell: Cell, view: View) -> str:
    """As the project's own matrix judges, but for what a proxy may word otherwise: the model's name
    in chunks, how usage adds up over two parts, and an error's code."""
    if view.hung:
        return "hang"
    truth = "".join(upstream.PARTS[cell.content])
    if view.error is not None:
        return "error" if view.finish is None or cell.fault.repeats else "damage"
    tool = cell.content == "tool"
    expected = (truth, upstream.TOOL if tool else "", "tool_calls" if tool else "stop")
    return "whole" if (view.text, view.tool, view.finish) == expected else "damage"


def _wanted() -> list[Cell]:
    """Cells that every system can meet: a node of ours that dies is no upstream's fault, and what
    another model answers behind the right name no other system claims to see."""
    return [
        cell
        for cell in fault_matrix.cells()
        if not cell.fault.severed
        and "model" not in cell.fault.name
        and cell.way not in ("held", "alone")
    ]


SYSTEMS_MAX = 8


def _for(number: int, cell: Cell) -> Cell:
    """The same cell by a name of its own, since scripts count their calls."""
    return replace(cell, fault=replace(cell.fault, name=f"{number}: {cell.fault.name}"))


async def matrix(folder: Path | None, scratch: Path) -> int:
    Exchange.settled = (settle,)
    wanted = _wanted()
    calls: dict[str, int] = {}
    acts: dict[str, tuple[Act, Phase]] = {}
    async with AsyncExitStack() as stack:
        urls = [
            await stack.enter_async_context(Upstream(acts, calls).listening()) for _ in range(2)
        ]
        closed = f"http://127.0.0.1:{peers.free_port()}/v1"
        dead = {
            "refused": closed,
            "unresolved": "http://nowhere.invalid/v1",
            "no-tls": urls[0].replace("http:", "https:"),
        }
        # A limit that a provider states is believed: such cells have a model each.
        served = {
            _for(number, cell).model: urls for number in range(SYSTEMS_MAX) for cell in wanted
        }
        reached = {model: [url, urls[1]] for model, url in dead.items()}
        deployments = Deployments(served | reached, cooldown=False)
        found = await stack.enter_async_context(systems(folder, scratch, deployments))
        told: dict[str, dict[Cell, str]] = {}
        for number, system in enumerate(found):
            asked = {cell: _for(number, cell) for cell in wanted}
            for cell, named in asked.items():
                acts[named.script] = (cell.fault.act, cell.phase)
            told[system.name] = await _views(system, asked)
    _print_matrix(wanted, told)
    ours = Counter(told["Trunkline"].values())
    return 1 if ours["damage"] or ours["hang"] else 0


async def _views(system: System, asked: Mapping[Cell, Cell]) -> dict[Cell, str]:
    """Every cell's verdict. ``asked``: the cells by the names that they have for this system."""
    gate = asyncio.Semaphore(AT_ONCE)
    told: dict[Cell, str] = {}
    models = {named.model for named in asked.values()}
    clients = {model: client_of(system, model) for model in models}

    async def one(cell: Cell, named: Cell) -> None:
        async with gate:
            told[cell] = await _told(clients[named.model], named)

    async with asyncio.TaskGroup() as group:
        for cell, named in asked.items():
            group.create_task(one(cell, named))
    for client in clients.values():
        await client.close()
    return told


async def _told(client: openai.AsyncOpenAI, cell: Cell) -> str:
    try:
        view = await fault_matrix.look(client, cell)
    except (TypeError, AttributeError, ValueError):
        # The client stumbled over an answer that called itself good.
        return "damage"
    except httpx2.HTTPError:
        # The connection broke under the stream: no words, but no app takes it for an answer.
        return "error"
    return judged(cell, view)


def _print_matrix(wanted: Sequence[Cell], told: dict[str, dict[Cell, str]]) -> None:
    width = max(len(name) for name in told) + 2
    print(f"{len(wanted)} answers each, of them:")
    print(f"{'':{width}}" + "".join(f"{kind:>10}" for kind in VERDICTS))
    for name, views in told.items():
        counts = Counter(views.values())
        print(f"{name:{width}}" + "".join(f"{counts[kind]:>10}" for kind in VERDICTS))
    print("\nnot whole, by fault (answers of all ways and contents):")
    for fault in fault_matrix.FAULTS:
        line = []
        for name, views in told.items():
            counts = Counter(
                kind for cell, kind in views.items() if cell.fault is fault and kind != "whole"
            )
            if counts:
                said = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
                line.append(f"{name}: {said}")
        if line:
            print(f"  {fault.name:38} {' | '.join(line)}")


# A provider that fails all the time.

FAILURES: dict[str, Act] = {
    "closes at once": faults.gone,
    "500": faults.status(500),
    "429": faults.limited(("retry-after", "5")),
    "hangs": faults.hang,
}


@dataclass
class Timed:
    """One streamed answer: seconds to its first token and to its end; None: it failed."""

    first_s: float | None = None
    whole_s: float | None = None
    gap_s: float = 0.0
    """Longest stand-still between two tokens."""


async def timed(client: openai.AsyncOpenAI, script: str) -> Timed:
    found = Timed()
    begun = last = time.monotonic()
    text = ""
    try:
        async with asyncio.timeout(fault_matrix.HANG_S):
            stream = await client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": script}], stream=True
            )
            async for chunk in stream:
                if not chunk.choices or not chunk.choices[0].delta.content:
                    continue
                now = time.monotonic()
                if found.first_s is None:
                    found.first_s = now - begun
                else:
                    found.gap_s = max(found.gap_s, now - last)
                last = now
                text += chunk.choices[0].delta.content
    except (openai.APIError, TimeoutError):
        return found
    if text == "".join(upstream.WORDS):
        found.whole_s = time.monotonic() - begun
    return found


async def _load(system: System, label: str, count: int, at_once: int) -> list[Timed]:
    client, gate = client_of(system, MODEL), asyncio.Semaphore(at_once)

    async def one(number: int) -> Timed:
        async with gate:
            return await timed(client, f"{system.name}|{label}|{number}")

    found = await asyncio.gather(*(one(number) for number in range(count)))
    await client.close()
    return list(found)


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else float("nan")


async def failing(folder: Path | None, scratch: Path, count: int) -> int:
    """Latency while one of two providers fails, minus latency while both are well."""
    bad, good = Upstream({}, {}, paced), Upstream({}, {}, paced)
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(one.listening()) for one in (bad, good)]
        found = await stack.enter_async_context(
            systems(folder, scratch, Deployments({MODEL: urls}))
        )
        print(
            f"first token, ms; {count} streamed answers a line, 8 at once; added = beside healthy"
        )
        print(
            f"{'':18}{'first provider':18}{'whole':>10}{'p50':>8}{'p99':>8}{'+p50':>8}{'+p99':>8}"
        )
        for system in found:
            bad.otherwise = paced
            await _load(system, "warm", 16, 8)
            base = await _load(system, "well", count, 8)
            _print_line(system.name, "well", base, base)
            for label, act in FAILURES.items():
                bad.otherwise = act
                _print_line(system.name, label, await _load(system, label, count, 8), base)
    return 0


def _print_line(name: str, label: str, found: Sequence[Timed], base: Sequence[Timed]) -> None:
    firsts = [one.first_s * 1000 for one in found if one.first_s is not None]
    before = [one.first_s * 1000 for one in base if one.first_s is not None]
    whole = sum(one.whole_s is not None for one in found)
    p50, p99 = _quantile(firsts, 0.5), _quantile(firsts, 0.99)
    added = (p50 - _quantile(before, 0.5), p99 - _quantile(before, 0.99))
    print(
        f"{name:18}{label:18}{f'{whole}/{len(found)}':>10}{p50:8.0f}{p99:8.0f}"
        f"{added[0]:8.0f}{added[1]:8.0f}"
    )


# A stream that breaks.


async def gaps(folder: Path | None, scratch: Path, count: int) -> int:
    """How long a stream stands still when its provider is cut or falls silent after 3 tokens."""
    acts: dict[str, tuple[Act, Phase]] = {}
    calls: dict[str, int] = {}
    async with AsyncExitStack() as stack:
        urls = [
            await stack.enter_async_context(Upstream(acts, calls, paced).listening())
            for _ in range(2)
        ]
        found = await stack.enter_async_context(
            systems(folder, scratch, Deployments({MODEL: urls}))
        )
        print(
            f"{'':18}{'fault':10}{'whole':>10}{'gap p50 ms':>12}{'p99':>8}{'gap / first token':>20}"
        )
        for system in found:
            await _load(system, "warm", 16, 4)
            healthy = await _load(system, "well", count, 4)
            first_s = statistics.median(one.first_s or 0.0 for one in healthy)
            for label, act in (("cut", paced_then_cut), ("stall", paced_then_stall)):
                for number in range(count):
                    acts[f"{system.name}|{label}|{number}"] = (act, "after")
                broken = await _load(system, label, count, 4)
                whole = [one for one in broken if one.whole_s is not None]
                stood = [one.gap_s for one in whole]
                p50, p99 = _quantile(stood, 0.5), _quantile(stood, 0.99)
                print(
                    f"{system.name:18}{label:10}{f'{len(whole)}/{count}':>10}{p50 * 1000:12.0f}"
                    f"{p99 * 1000:8.0f}{p50 / first_s:20.2f}"
                )
    return 0


Bench = Callable[[], Coroutine[None, None, int]]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("matrix", "failing", "gaps"))
    parser.add_argument("--peers", type=Path, help="folder with litellm*/ and portkey*/")
    parser.add_argument("--keep", type=Path, help="new folder for logs and data, kept")
    parser.add_argument("--count", type=int, default=100, help="answers a line (default 100)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="trunkline-bench-") as scratch:
        place = options.keep or Path(scratch) / "run"
        benches: dict[str, Bench] = {
            "matrix": lambda: matrix(options.peers, place),
            "failing": lambda: failing(options.peers, place, options.count),
            "gaps": lambda: gaps(options.peers, place, options.count),
        }
        return asyncio.run(benches[options.what]())


if __name__ == "__main__":
    sys.exit(main())
