"""A real log process, killed at each named point and started again: nothing acknowledged is lost.

After each crash the log must come back by itself, keep every index that it acknowledged, take the
interrupted entries again, prove all of them under a cosigned checkpoint, and satisfy fsck.
"""

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager

import pytest
from tests.support import object_store

from trunkline.base.errors import UpstreamError
from trunkline.crypto.signer import Signer, sign_note
from trunkline.log import crash
from trunkline.log.config import LogConfig, ObjectStoreConfig, WitnessConfig, read, render
from trunkline.log.fsck import fsck
from trunkline.log.opening import open_tiles
from trunkline.log.store import create_log
from trunkline.log.upload import upload
from trunkline.remote.http1 import HttpTransport
from trunkline.remote.log import LogCaller
from trunkline.runtime.clock import SystemClock
from trunkline.runtime.logger import get_logger
from trunkline.runtime.server import serving
from trunkline.tlog.policy import Policy
from trunkline.witness.app import WitnessService, create_store
from trunkline.witness.config import WitnessConfig as WitnessServiceConfig
from trunkline.witness.config import WitnessedLog

LOG = Signer.generate("gamma.example/log", b"\x01" * 32)
WITNESS = Signer.generate("delta.example/witness", b"\x02" * 32)
NODE = Signer.generate("alpha.example/node", b"\x03" * 32)
POLICY = Policy.parse(f"log {LOG.vkey}\nwitness delta {WITNESS.cosigner_vkey}\nquorum delta\n")
# The role's own entry point, saying where it listens.
PROGRAM = (
    "import sys; from pathlib import Path; from trunkline.log.app import run; "
    "from trunkline.runtime.logger import configure; configure(); "
    "run(Path(sys.argv[1]), on_ready=lambda url: print(url, flush=True))"
)
DEADLINE_S = 90.0
BEFORE = range(250)
DURING = range(250, 262)
"""These finish a tile, so that every kind of file is being written."""


def entry(number: int) -> bytes:
    return sign_note(b"trunkline.batch/v1\nentry %d\n" % number, NODE)


@asynccontextmanager
async def log_process(folder, *, crash_at=""):
    """Start the log; yields its process and base URL, and kills it at the end."""
    environment = {**os.environ, crash.CRASH_VARIABLE: crash_at}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, str(folder / "log.toml"),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, env=environment,
    )  # fmt: skip
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield process, (await process.stdout.readline()).decode().strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        # Let the pipe's transport see its end before the loop closes.
        await process.stdout.read()


@asynccontextmanager
async def witness_service(folder):
    data = folder / "witness"
    create_store(data)
    service = WitnessService(
        config=WitnessServiceConfig(name=WITNESS.name, logs=(WitnessedLog(vkey=str(LOG.vkey)),)),
        data=data,
        signer=WITNESS,
        clock=SystemClock(),
        logger=get_logger("witness"),
    )
    async with serving(service) as url:
        yield url


def set_up(folder, witness_url: str, *, crash_points: bool = True, bucket_url="") -> None:
    witness = WitnessConfig(url=witness_url, vkey=str(WITNESS.cosigner_vkey))
    config = LogConfig(
        listen="127.0.0.1:0",
        origin=LOG.name,
        data="data",
        checkpoint_interval_ms=0,
        witnesses=(witness,),
        crash_points=crash_points,
        **in_bucket(bucket_url),
    )
    (folder / "key").write_text(LOG.skey())
    (folder / "key").chmod(0o600)
    (folder / "log.toml").write_text(render(config))
    create_log(folder / "data", LOG)


def in_bucket(url: str):
    """Configuration of a log whose tiles are in the bucket at ``url``, if there is one."""
    if not url:
        return {}
    store = ObjectStoreConfig(
        endpoint=url, region=object_store.REGION, path_style=True, key_file="s3"
    )
    return {"tiles": f"s3://{object_store.BUCKET}/log", "object_store": store}


async def add_all(caller, numbers) -> dict[int, int]:
    """Index by number, of those that were acknowledged."""
    results = await asyncio.gather(
        *(caller.add(entry(number)) for number in numbers), return_exceptions=True
    )
    unexpected = [one for one in results if not isinstance(one, int | UpstreamError)]
    assert not unexpected
    return {
        number: one for number, one in zip(numbers, results, strict=True) if isinstance(one, int)
    }


@pytest.mark.parametrize("point", crash.CRASH_POINTS)
async def test_killed_and_started_again(tmp_path, point):
    async with witness_service(tmp_path) as witness_url:
        set_up(tmp_path, witness_url)
        await kill_and_start_again(tmp_path, point)
    report = fsck(tmp_path / "data")
    assert (report.size, report.problems, report.leftovers) == (262, [], 0)


@pytest.mark.parametrize(
    "point",
    [
        crash.TILES_PARTLY_WRITTEN,
        crash.TILES_WRITTEN,
        crash.CHECKPOINT_SWAPPED,
        crash.COSIGNED_PUBLISHED,
    ],
)
async def test_killed_with_its_tiles_in_a_bucket(tmp_path, point):
    store = object_store.ObjectStore()
    async with witness_service(tmp_path) as witness_url, serving(store) as bucket_url:
        set_up(tmp_path, witness_url, bucket_url=bucket_url)
        (tmp_path / "s3").write_text(f"{object_store.ACCESS}:{object_store.SECRET}\n")
        (tmp_path / "s3").chmod(0o600)
        await upload(tmp_path / "log.toml")
        await kill_and_start_again(tmp_path, point)
        config = tmp_path / "log.toml"
        tiles = open_tiles(config, read(config))
        report = await asyncio.to_thread(fsck, tmp_path / "data", tiles)
        await asyncio.to_thread(tiles.close)
    assert (report.size, report.problems, report.leftovers) == (262, [], 0)
    assert store.wrong == []


async def kill_and_start_again(tmp_path, point):
    """Entries before the crash, some during it, and all of them again after it."""
    transport = HttpTransport()
    try:
        async with log_process(tmp_path) as (_, url):
            acknowledged = await add_all(LogCaller(transport, url, timeout_s=60.0), BEFORE)
            assert len(acknowledged) == len(BEFORE)

        async with log_process(tmp_path, crash_at=point) as (process, url):
            # Some points are reached while it starts (what was left to publish), others by adding.
            if url:
                acknowledged |= await add_all(LogCaller(transport, url, timeout_s=60.0), DURING)
            assert await process.wait() == -signal.SIGKILL

        async with log_process(tmp_path) as (process, url):
            caller = LogCaller(transport, url, timeout_s=60.0)
            again = await add_all(caller, [*BEFORE, *DURING])
            assert sorted(again.values()) == list(range(262))
            assert acknowledged.items() <= again.items()
            for number in (*BEFORE[::50], *DURING):
                await caller.fetch_inclusion(
                    entry(number), again[number], POLICY, timeout_s=DEADLINE_S
                )
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
    finally:
        await transport.aclose()


async def test_crash_points_are_nothing_unless_configured(tmp_path):
    transport = HttpTransport()
    async with witness_service(tmp_path) as witness_url:
        set_up(tmp_path, witness_url, crash_points=False)
        async with log_process(tmp_path, crash_at=crash.ROUND_PLANNED) as (process, url):
            assert await LogCaller(transport, url, timeout_s=60.0).add(entry(0)) == 0
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
    await transport.aclose()


async def test_killed_again_and_again_while_busy(tmp_path):
    """No named point: kills land wherever they land."""
    transport = HttpTransport()
    acknowledged: dict[int, int] = {}
    async with witness_service(tmp_path) as witness_url:
        set_up(tmp_path, witness_url)
        for start in range(0, 400, 100):
            async with log_process(tmp_path) as (process, url):
                caller = LogCaller(transport, url, timeout_s=60.0)
                adding = asyncio.create_task(add_all(caller, range(start, start + 200)))
                # Once the first of these is in, the rest is under way.
                acknowledged |= await add_all(caller, [start])
                process.kill()
                acknowledged |= await adding
        async with log_process(tmp_path) as (_, url):
            again = await add_all(LogCaller(transport, url, timeout_s=60.0), range(500))
            assert sorted(again.values()) == list(range(500))
            assert acknowledged.items() <= again.items()
    await transport.aclose()
    report = fsck(tmp_path / "data")
    assert (report.size, report.problems) == (500, [])
