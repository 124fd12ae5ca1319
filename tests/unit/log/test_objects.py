"""A log whose tiles are in an object store: what lies there, and that no fault loses an entry.

The store is a stand-in (``tests/support/object_store.py``), which fails requests in both twins.
"""

import asyncio
import shutil
from contextlib import asynccontextmanager
from functools import partial

import pytest
from tests.support import object_store
from tests.unit.log.conftest import LOG, make_entry
from tests.unit.log.rounds import BEFORE, ROUNDS, add, play_and_recover, run_rounds, service

from trunkline.base.errors import ConfigError, CorruptStateError
from trunkline.cli import fsck as fsck_command
from trunkline.crypto.signer import sign_note
from trunkline.log.app import build
from trunkline.log.config import LogConfig, ObjectStoreConfig, render
from trunkline.log.fsck import fsck
from trunkline.log.objects import ObjectTiles
from trunkline.log.store import create_log
from trunkline.log.upload import upload
from trunkline.remote.http1 import HttpTransport
from trunkline.remote.log import LogCaller
from trunkline.remote.s3 import Bucket, S3Caller
from trunkline.remote.sigv4 import Credentials
from trunkline.runtime.clock import SystemClock
from trunkline.runtime.server import serving
from trunkline.runtime.store import DiskError
from trunkline.tlog.checkpoint import Checkpoint
from trunkline.tlog.tile import Tile

PREFIX = "logs/gamma"
KINDS = ("refused", "stored", "silent", "late", "gone")


@asynccontextmanager
async def tiles_on(store):
    """The tiles on a store, which is served meanwhile. Patient with one that has no faults."""
    timeout_s, operation_timeout_s = (0.25, 0.8) if store.plan else (5, 20)
    async with serving(store, shutdown_grace_s=0.1) as url:
        transport = HttpTransport()
        bucket = Bucket(
            endpoint=url, name=object_store.BUCKET, region=object_store.REGION, path_style=True
        )
        key = Credentials.parse(f"{object_store.ACCESS}:{object_store.SECRET}")
        caller = S3Caller(transport, bucket, key, clock=SystemClock(), timeout_s=timeout_s)
        tiles = ObjectTiles(caller, transport, PREFIX, operation_timeout_s=operation_timeout_s)
        try:
            yield tiles
        finally:
            await asyncio.to_thread(tiles.close)


async def run_once(data, store, rounds):
    """Start the log, play rounds until it stops by itself; what was acknowledged."""
    store.gone = False
    async with tiles_on(store) as tiles:
        return await run_rounds(service(data, tiles), rounds)


async def checked(data, store):
    async with tiles_on(store) as tiles:
        return await asyncio.to_thread(fsck, data, tiles)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A log with 250 entries on a store, to be copied: its folder, and the store's objects."""
    data = tmp_path_factory.mktemp("template") / "log"
    store = new_log(data)
    asyncio.run(run_once(data, store, [(0, 100), (100, BEFORE)]))
    return data, store.objects


def new_log(data, **store):
    """An empty log's folder, and a store that holds its checkpoint."""
    create_log(data, LOG)
    made = object_store.ObjectStore(**store)
    note = (data / "checkpoint").read_bytes()
    made.objects[f"{PREFIX}/checkpoint"] = (note, {})
    return made


def fresh(template, path, plan=None):
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(template[0], path)
    store = object_store.ObjectStore(plan)
    store.objects = dict(template[1])
    return path, store


async def play(data, store):
    """Run under faults, starting again after each stop; then on a healthy store, and check."""
    await play_and_recover(partial(run_once, data, store), store, partial(checked, data, store))
    assert store.wrong == []


@pytest.mark.parametrize("kind", KINDS)
def test_each_request_fails_once(template, tmp_path, kind):
    """Requests of those rounds, one after the other; the kinds take turns, and meet every one."""
    data, store = fresh(template, tmp_path / "log")
    asyncio.run(run_once(data, store, ROUNDS))
    assert store.requests > 35
    for number in range(KINDS.index(kind), store.requests, len(KINDS)):
        asyncio.run(play(*fresh(template, tmp_path / "log", {number: kind})))


async def test_who_waits_for_the_store_is_let_go_when_the_log_stops(template, tmp_path):
    """A thread that waits for ever keeps its process from ending."""
    _, store = fresh(template, tmp_path / "log")
    async with tiles_on(store) as tiles:
        note = await asyncio.to_thread(tiles.read_checkpoint)
        store.gone, before = True, store.requests
        writing = asyncio.create_task(asyncio.to_thread(tiles.write_checkpoint, note))
        while store.requests == before:  # noqa: ASYNC110 - counted in the server's own call
            await asyncio.sleep(0.01)
        await asyncio.to_thread(tiles.close)
        with pytest.raises(OSError, match="closed"):
            await writing
        with pytest.raises(OSError, match="closed"):
            await asyncio.to_thread(tiles.read_checkpoint)


def test_what_lies_in_the_bucket(template):
    _, objects = template
    names = sorted(name.removeprefix(f"{PREFIX}/") for name in objects)
    # Partial tiles that were published stay: readers of the bucket may ask for them.
    assert names == [
        "checkpoint", "tile/0/000.p/100", "tile/0/000.p/250",
        "tile/entries/000.p/100", "tile/entries/000.p/250",
    ]  # fmt: skip
    kinds = {name.removeprefix(f"{PREFIX}/"): headers for name, (_, headers) in objects.items()}
    assert kinds["checkpoint"] == {
        "content-type": "text/plain; charset=utf-8",
        "cache-control": "no-cache",
    }
    assert kinds["tile/0/000.p/250"] == {
        "content-type": "application/octet-stream",
        "cache-control": "public, max-age=31536000, immutable",
    }


async def test_a_full_tile_replaces_the_partial_ones(template, tmp_path):
    data, store = fresh(template, tmp_path / "log")
    await run_once(data, store, ROUNDS)
    level0 = [name for name in sorted(store.objects) if "/tile/0/" in name]
    assert level0 == [f"{PREFIX}/tile/0/{n}" for n in ("000", "001.p/2", "001.p/3", "001.p/6")]
    async with tiles_on(store) as tiles:
        whole = await asyncio.to_thread(tiles.read_tile, Tile(level=0, index=0))
        for width in (1, 100, 250):
            tile = Tile(level=0, index=0, width=width)
            assert await asyncio.to_thread(tiles.read_tile, tile) == whole[: 32 * width]
        with pytest.raises(FileNotFoundError):
            await asyncio.to_thread(tiles.read_tile, Tile(level=0, index=1, width=7))


async def test_it_is_served_and_proven(template, tmp_path, network):
    data, store = fresh(template, tmp_path / "log")
    witness = await network.witness("delta.example/witness")
    async with tiles_on(store) as tiles, serving(service(data, tiles, witnesses=(witness,))) as url:
        caller = LogCaller(network.transport, url, timeout_s=60.0)
        index = await caller.add(make_entry(1000))
        assert index == BEFORE
        for number, entry in ((3, make_entry(3)), (index, make_entry(1000))):
            await caller.fetch_inclusion(entry, number, network.policy(), timeout_s=90)


async def test_a_store_that_ignores_conditions_is_refused(tmp_path):
    store = new_log(tmp_path / "log", honours_conditions=False)
    before = dict(store.objects)
    async with tiles_on(store) as tiles:
        log = service(tmp_path / "log", tiles)
        with pytest.raises(ConfigError, match="ignores the conditions"):
            await log.startup()
        await log.shutdown()
    assert {name: body for name, (body, _) in store.objects.items()} == {
        name: body for name, (body, _) in before.items()
    }


@pytest.mark.parametrize("failing", [False, True])
async def test_a_second_log_on_the_bucket_is_noticed(template, tmp_path, failing):
    """Its database does not know of the other; the bucket does. Nothing there is deleted."""
    data, store = fresh(template, tmp_path / "log")
    async with tiles_on(store) as tiles:
        log = service(data, tiles)
        await log.startup()
        others = {f"{PREFIX}/tile/0/000.p/251": (b"x" * 251 * 32, {})} if failing else {}
        text = Checkpoint(origin=LOG.name, size=251, root=bytes(32)).text()
        others[f"{PREFIX}/checkpoint"] = (sign_note(text, LOG), {})
        store.objects |= others
        assert await add(log, [500]) == {}
        assert isinstance(log.fatal, CorruptStateError)
        await log.shutdown()
    assert others.items() <= store.objects.items()


async def test_what_comes_late_does_not_stay(template, tmp_path):
    """A tile of a failed round arrives after it was given up, with other bytes than the next's."""
    data, store = fresh(template, tmp_path / "log")
    async with tiles_on(store) as tiles:
        log = service(data, tiles)
        await log.startup()
        store.objects[f"{PREFIX}/tile/0/000.p/251"] = (b"x" * 251 * 32, {})
        assert await add(log, [BEFORE]) == {}
        assert await add(log, [BEFORE]) == {BEFORE: BEFORE}
        await log.shutdown()
    assert (await checked(data, store)).problems == []


def written(tmp_path, url, **changes):
    """A configuration file whose tiles are in the bucket, beside an empty log's folder."""
    config = LogConfig(
        origin=LOG.name,
        tiles=f"s3://{object_store.BUCKET}/{PREFIX}",
        object_store=ObjectStoreConfig(
            endpoint=url, region=object_store.REGION, path_style=True, key_file="s3", **changes
        ),
    )
    (tmp_path / "log.toml").write_text(render(config))
    for name, secret in (
        ("key", LOG.skey()),
        ("s3", f"{object_store.ACCESS}:{object_store.SECRET}\n"),
    ):
        (tmp_path / name).write_text(secret)
        (tmp_path / name).chmod(0o600)
    return tmp_path / "log.toml"


async def test_a_local_log_is_brought_into_a_bucket(tmp_path, network, capsys):
    network.data = tmp_path
    async with network.log() as (caller, _, _):
        await asyncio.gather(*(caller.add(make_entry(number)) for number in range(300)))
    store = object_store.ObjectStore()
    async with serving(store) as url:
        path = written(tmp_path, url)
        # It stops half-way, and is run again.
        store.plan = dict.fromkeys(range(3, 200), "gone")
        object_tiles = ObjectTiles.__init__.__kwdefaults__
        object_tiles["operation_timeout_s"], kept = 0.3, object_tiles["operation_timeout_s"]
        try:
            with pytest.raises(DiskError):
                await upload(path)
        finally:
            object_tiles["operation_timeout_s"] = kept
        assert f"{PREFIX}/checkpoint" not in store.objects
        store.plan, store.gone = {}, False
        assert await upload(path) == await upload(path) == 5
        shutil.rmtree(tmp_path / "tile")
        (tmp_path / "checkpoint").unlink()
        assert await asyncio.to_thread(fsck_command.command, tmp_path, as_program=True) == 0
        assert '"sound":true' in capsys.readouterr().out
        log, _ = build(path)
        async with serving(log) as log_url:
            caller = LogCaller(network.transport, log_url, timeout_s=60.0)
            assert await caller.add(make_entry(7)) == 7
            assert await caller.add(make_entry(300)) == 300
            with pytest.raises(ConfigError, match="in use"):
                await upload(path)
    assert store.wrong == []


async def test_another_logs_bucket_is_left_alone(tmp_path):
    create_log(tmp_path, LOG)
    store = object_store.ObjectStore()
    store.objects[f"{PREFIX}/checkpoint"] = (b"another\n1\n\n\n", {})
    async with serving(store) as url:
        with pytest.raises(ConfigError, match="already"):
            await upload(written(tmp_path, url))
    assert list(store.objects) == [f"{PREFIX}/checkpoint"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ((f"s3://{object_store.BUCKET}", "https://somewhere"), "tiles must be s3"),
        (('key_file = "s3"', ""), "key_file or key_env"),
        (('key_file = "s3"', 'key_env = "NO_SUCH_VARIABLE"'), "NO_SUCH_VARIABLE is not set"),
        (('endpoint = "http', 'endpoint = "ftp'), "object_store"),
        (("[object_store]", "[other]"), "other"),
        (("timeout_s = 10.0", "timeout_s = 0"), "timeout_s"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, change, why):
    path = written(tmp_path, "http://127.0.0.1:1")
    text = path.read_text()
    assert change[0] in text
    path.write_text(text.replace(*change))
    with pytest.raises(ConfigError, match=why):
        build(path)
