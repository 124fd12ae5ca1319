"""Apps written with what people use, before providers that fail: what does each app end up with?

    python bench/clients.py --peers FOLDER

``FOLDER/clients`` is a virtual environment with the frameworks (``FOLDER/clients-NAME``: one for an
app alone) and ``FOLDER/vercel`` an npm folder; what is not there is named as missing. Every app
asks a real gateway, the first attempt at each answer meets the fault, and no app retries. Exits
with 1 unless every answer of every app is whole.
"""

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
import peers
from continuity import ENGINE, MODEL, SETTLE_S, settle
from peers import Deployments
from tests.support import upstream
from tests.support import upstream_faults as faults
from tests.support.upstream import Act, Exchange, Phase, Upstream

APPS = Path(__file__).parent / "clients"
PYTHON = ("openai", "responses", "anthropic", "langchain", "llamaindex", "pydanticai", "litellm")
FAULTS: dict[str, tuple[Act, Phase]] = {
    "nothing": (Exchange.healthy, "before"),
    "closed without an answer": (faults.gone, "before"),
    "500": (faults.status(500), "before"),
    "429": (faults.limited(("retry-after", "1")), "before"),
    "HTML in a 200": (faults.html, "before"),
    "hang before headers": (faults.hang, "before"),
    "cut in the first token": (faults.cut, "during"),
    "cut after three tokens": (faults.cut, "after"),
    "stall after three tokens": (faults.stall, "after"),
    "clean end after three tokens": (faults.clean_end, "after"),
    "error event after three tokens": (faults.error_event, "after"),
}
WAYS = ("whole", "stream", "tool")
TEXT = "".join(upstream.WORDS)
CALL = json.loads("".join(upstream.ARGUMENTS))
APP_S_MAX = 240.0


def _good(found: dict[str, str | None]) -> bool:
    if found["error"] is not None:
        return False
    if found["way"] != "tool":
        return found["text"] == TEXT
    return found["tool"] == upstream.TOOL and json.loads(found["text"] or "null") == CALL


async def _run(command: list[str], folder: Path, given: dict[str, object]) -> list[dict[str, str]]:
    done = await asyncio.to_thread(
        subprocess.run, command, input=json.dumps(given), cwd=folder, capture_output=True,
        text=True, timeout=APP_S_MAX, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{command[-1]} ended: {done.stderr[-1500:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def _commands(folder: Path) -> dict[str, tuple[list[str], Path]]:
    """By app, how to run it, if its framework is installed."""
    found: dict[str, tuple[list[str], Path]] = {}
    node = shutil.which("node")
    for name in PYTHON:
        # Frameworks want different versions of the same packages: one may have its own.
        places = (folder / f"clients-{name}", folder / "clients")
        pythons = [place / "bin" / "python" for place in places]
        python = next((python for python in pythons if python.exists()), None)
        if python is not None:
            found[name] = ([str(python), str(APPS / f"{name}_app.py")], APPS)
    if node is not None and (folder / "vercel" / "node_modules" / "ai").is_dir():
        found["vercel"] = ([node, str(APPS / "vercel_app.mjs")], folder / "vercel")
    return found


async def run(folder: Path, scratch: Path, wanted: Sequence[str]) -> int:
    Exchange.settled = (settle,)
    acts: dict[str, tuple[Act, Phase]] = {}
    calls: dict[str, int] = {}
    commands = {name: found for name, found in _commands(folder).items() if name in wanted}
    for name in wanted:
        if name not in commands:
            print(f"{name}: not installed, nothing is said about it")
    async with AsyncExitStack() as stack:
        urls = [
            await stack.enter_async_context(Upstream(acts, calls).listening()) for _ in range(2)
        ]
        network = peers.trunkline(scratch / "trunkline", Deployments({MODEL: urls}), ENGINE)
        system = await stack.enter_async_context(network)
        bad = 0
        print(f"{len(FAULTS) * len(WAYS)} answers each; text reaches the app {SETTLE_S} s before")
        for name, (command, place) in commands.items():
            cases = []
            for (fault, act), way in ((item, way) for item in FAULTS.items() for way in WAYS):
                script = f"{name}|{way}|{fault}"
                acts[script] = act
                cases.append({"script": script, "way": way})
            given = {"base_url": system.base_url, "model": MODEL, "cases": cases}
            found = await _run(command, place, given)
            counts = Counter(_good(one) for one in found)
            bad += counts[False] + len(cases) - len(found)
            print(f"{name:12} {counts[True]:3}/{len(cases)} whole")
            for one in found:
                if not _good(one):
                    print(f"   {one['script']}: {one['error'] or one['text']}")
    return 1 if bad else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", choices=(*PYTHON, "vercel"), help="this app alone")
    parser.add_argument(
        "--peers", type=Path, required=True, help="folder with clients/ and vercel/"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="trunkline-bench-") as scratch:
        wanted = [options.only] if options.only else [*PYTHON, "vercel"]
        return asyncio.run(run(options.peers.resolve(), Path(scratch), wanted))


if __name__ == "__main__":
    sys.exit(main())
