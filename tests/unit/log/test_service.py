"""The log over HTTP: adding, reading, and what it refuses."""

import asyncio
import gzip
from http.client import HTTPConnection

import msgspec
import pytest

from trunkline.base.errors import ConfigError, CorruptStateError, UpstreamError
from trunkline.crypto import merkle
from trunkline.crypto.signer import Signer, sign_note
from trunkline.log.fsck import fsck
from trunkline.log.store import create_log
from trunkline.runtime.server import serving
from trunkline.tlog.checkpoint import open_checkpoint
from trunkline.tlog.tile import decode_bundle


async def fetch(network, method, url, body=None):
    """Status, headers and body of one call."""
    async with await network.transport.request(method, url, body=body) as response:
        return response.status, dict(response.headers), await response.read(1_000_000)


async def test_an_entry_is_added_and_provable(network):
    async with network.log() as (caller, _, _):
        entry = network.entry(0)
        index = await caller.add(entry)
        proof = await caller.fetch_inclusion(entry, index, network.policy(), timeout_s=90)
        assert (index, proof.index) == (0, 0)
    assert fsck(network.data).problems == []


async def test_many_at_once_share_rounds_and_get_one_index_each(network):
    async with network.log() as (caller, _, service):
        entries = [network.entry(i) for i in range(300)]
        indexes = await asyncio.gather(*(caller.add(entry) for entry in entries))
        assert sorted(indexes) == list(range(300))
        bundle = decode_bundle(await caller.tile("tile/entries/000"), 256)
        assert all(
            bundle[index] == entry
            for entry, index in zip(entries, indexes, strict=True)
            if index < 256
        )
        for entry, index in list(zip(entries, indexes, strict=True))[::37]:
            await caller.fetch_inclusion(entry, index, network.policy(), timeout_s=90)
        again = await asyncio.gather(*(caller.add(entry) for entry in entries))
        assert again == indexes
    report = fsck(network.data)
    assert (report.size, report.problems) == (300, [])
    assert service.fatal is None


async def test_the_same_entry_at_once_is_one_entry(network):
    async with network.log() as (caller, _, _):
        indexes = await asyncio.gather(*(caller.add(network.entry(7)) for _ in range(20)))
        assert set(indexes) == {0}
    assert fsck(network.data).size == 1


async def test_a_log_goes_on_where_it_stopped(network):
    for start in (0, 10, 270):
        async with network.log() as (caller, _, _):
            batch = range(start, start + 10 if start == 0 else start + 260)
            await asyncio.gather(*(caller.add(network.entry(i)) for i in batch))
    report = fsck(network.data)
    assert (report.size, report.problems, report.leftovers) == (530, [], 0)


async def test_what_is_served_and_how(network):
    async with network.log() as (caller, url, _):
        for i in range(3):
            await caller.add(network.entry(i))
        status, headers, body = await fetch(network, "GET", url + "/checkpoint")
        assert status == 200
        assert headers["content-type"] == "text/plain; charset=utf-8"
        assert headers["cache-control"] == "no-cache"
        assert open_checkpoint(body, network.log_key.vkey).size == 3
        status, headers, body = await fetch(network, "GET", url + "/tile/0/000.p/3")
        assert status == 200
        assert headers["content-type"] == "application/octet-stream"
        assert "immutable" in headers["cache-control"]
        leaves = [merkle.leaf_hash(network.entry(i)) for i in range(3)]
        assert body == b"".join(leaves)
        # A size for which a checkpoint was produced, though its file is gone.
        status, _, body = await fetch(network, "GET", url + "/tile/entries/000.p/2")
        assert decode_bundle(body, 2) == (network.entry(0), network.entry(1))
        status, _, body = await fetch(network, "GET", url + "/status")
        assert msgspec.json.decode(body) == {
            "origin": network.log_key.name, "vkey": str(network.log_key.vkey), "size": 3,
            "published": 3, "quorum": True, "pending": 0, "minimum_index": 0,
        }  # fmt: skip
        status, _, body = await fetch(network, "GET", url + "/healthz")
        assert (status, body) == (200, b"ok\n")
        status, headers, body = await fetch(network, "POST", url + "/add", network.entry(1))
        assert (status, body) == (200, b"1\n")


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip", "gzip"),
        ("br, GZIP;q=0.5, identity", "gzip"),
        ("*", "gzip"),
        ("identity", None),
        ("gzip;q=0, *", None),
        ("gzip; q=0.000", None),
        ("br;q=1.0", None),
        ("", None),
    ],
)
async def test_bundles_are_compressed_for_who_takes_it(network, accepted, coding):
    """C2SP tlog-tiles: entry bundles SHOULD be. Our own transport takes no coding."""

    def get(path):
        connection = HTTPConnection(url.removeprefix("http://"), timeout=10)
        connection.request("GET", path, headers={"accept-encoding": accepted})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return {name.lower(): value for name, value in answer.getheaders()}, body

    async with network.log() as (caller, url, _):
        for i in range(20):
            await caller.add(network.entry(i))
        headers, bundle = await asyncio.to_thread(get, "/tile/entries/000.p/20")
        assert headers.get("content-encoding") == coding
        assert headers["vary"] == "accept-encoding"
        assert int(headers["content-length"]) == len(bundle)
        whole = await caller.tile("tile/entries/000.p/20")
        assert (gzip.decompress(bundle) if coding else bundle) == whole
        assert not coding or len(bundle) < len(whole)
        headers, _ = await asyncio.to_thread(get, "/tile/0/000.p/20")
        assert "content-encoding" not in headers


@pytest.mark.parametrize(
    "path",
    [
        "/tile/0/000",
        "/tile/0/000.p/4",
        "/tile/0/001.p/1",
        "/tile/1/000.p/1",
        "/tile/entries/000.p/4",
        "/tile/0/0",
        "/tile/0/../../log.db",
        "/tile/%2e%2e/log.db",
        "/log.db",
        "/checkpoint/x",
    ],
)
async def test_what_is_not_there(network, path):
    async with network.log() as (caller, url, _):
        for i in range(3):
            await caller.add(network.entry(i))
        status, _, body = await fetch(network, "GET", url + path)
        assert status == 404
        assert msgspec.json.decode(body)["error"]["code"] == "not_found"


async def test_tiles_beyond_the_size_are_not_served(network):
    async with network.log() as (caller, url, _):
        await caller.add(network.entry(0))
        planted = network.data / "tile/0/000.p/2"
        planted.write_bytes(bytes(64))
        status, _, _ = await fetch(network, "GET", url + "/tile/0/000.p/2")
        assert status == 404
    async with network.log() as (caller, _, _):
        assert not planted.exists()
        assert await caller.add(network.entry(1)) == 1
    assert fsck(network.data).problems == []


async def test_what_is_refused(network):
    async with network.log(submitters=(str(network.node_key.vkey),)) as (_, url, _):
        stranger = Signer.generate("stranger.example", b"\x09" * 32)
        for entry, expected in (
            (b"not a note", (400, "entry_malformed")),
            (sign_note(b"other/v1\n", network.node_key), (400, "entry_type_unknown")),
            (sign_note(b"trunkline.batch/v1\n", stranger), (403, "entry_not_authorized")),
            (bytes(65_536), (413, "body_too_large")),
        ):
            status, _, body = await fetch(network, "POST", url + "/add", entry)
            assert (status, msgspec.json.decode(body)["error"]["code"]) == expected
        status, _, _ = await fetch(network, "GET", url + "/add")
        assert status == 405


async def test_a_full_queue_says_when_to_come_back(network):
    async with network.log(pending_entries_max=1) as (caller, url, service):
        # The first round is held at its start, so that the queue stays as it is.
        held, go = asyncio.Event(), asyncio.Event()
        find = service._store.find

        async def held_find(leaves):
            held.set()
            await go.wait()
            return await find(leaves)

        service._store.find = held_find
        first = asyncio.create_task(caller.add(network.entry(0)))
        await held.wait()
        status, headers, body = await fetch(network, "POST", url + "/add", network.entry(1))
        assert (status, headers["retry-after"]) == (503, "1")
        assert msgspec.json.decode(body)["error"]["code"] == "log_overloaded"
        go.set()
        assert await first == 0
        assert await caller.add(network.entry(1)) == 1


async def test_a_disk_that_refuses_is_survived(network):
    async with network.log() as (caller, _, service):
        assert await caller.add(network.entry(0)) == 0
        write = service._tiles.write_tiles

        def failing(files):
            write(files[:1])
            raise OSError(28, "No space left on device")

        service._tiles.write_tiles = failing
        with pytest.raises(UpstreamError):
            await caller.add(network.entry(1))
        service._tiles.write_tiles = write
        assert await caller.add(network.entry(2)) == 1
        assert await caller.add(network.entry(1)) == 2
    assert fsck(network.data).problems == []
    assert network.fatal == []


@pytest.mark.parametrize("stored", [False, True])
async def test_a_swap_that_fails_stops_the_log(network, stored):
    """Twins: it failed and was not stored; it failed but was stored."""
    async with network.log() as (caller, url, service):
        assert await caller.add(network.entry(0)) == 0
        swap = service._store.swap

        async def failing(*args):
            if stored:
                await swap(*args)
            raise CorruptStateError("the disk failed under the commit")

        service._store.swap = failing
        with pytest.raises(UpstreamError):
            await caller.add(network.entry(1))
        assert network.fatal == [True]
        assert isinstance(service.fatal, CorruptStateError)
        status, _, _ = await fetch(network, "GET", url + "/healthz")
        assert status == 503
    async with network.log() as (caller, _, _):
        assert await caller.add(network.entry(2)) == (2 if stored else 1)
        assert await caller.add(network.entry(1)) == (1 if stored else 2)
    assert fsck(network.data).problems == []


async def test_two_processes_can_not_share_a_log(network):
    async with network.log():
        with pytest.raises(ConfigError, match="in use"):
            async with serving(network.service()):
                pytest.fail("it started")


async def test_a_missing_store_is_not_created(network):
    service = network.service()
    (network.data / "log.db").unlink()
    with pytest.raises(ConfigError, match="init"):
        async with serving(service):
            pytest.fail("it started")
    # Nor is a new one made over what the old one left.
    with pytest.raises(ConfigError, match="already"):
        create_log(network.data, network.log_key)


async def test_another_logs_store_is_refused(network):
    other = Signer.generate(network.log_key.name, b"\x08" * 32)
    create_log(network.data, other)
    with pytest.raises(ConfigError, match="another key"):
        async with serving(network.service()):
            pytest.fail("it started")


@pytest.mark.parametrize("name", ["tile/0/000.p/3", "tile/entries/000.p/3", "checkpoint"])
async def test_a_log_does_not_start_over_a_damaged_disk(network, name):
    async with network.log() as (caller, _, _):
        for i in range(3):
            await caller.add(network.entry(i))
    path = network.data / name
    good = path.read_bytes()
    for bad in (None, good[:-1], good.replace(good[40:41], b"\x00")):
        path.unlink() if bad is None else path.write_bytes(bad)
        with pytest.raises(CorruptStateError):
            async with serving(network.service()):
                pytest.fail("it started")
        assert not fsck(network.data).sound
    path.write_bytes(good)
    assert fsck(network.data).sound


async def test_a_database_restored_from_an_old_copy_is_refused(network):
    async with network.log() as (caller, _, _):
        await caller.add(network.entry(0))
    old = (network.data / "log.db").read_bytes()
    async with network.log() as (caller, _, _):
        await caller.add(network.entry(1))
    (network.data / "log.db").write_bytes(old)
    with pytest.raises(CorruptStateError, match="beyond"):
        async with serving(network.service()):
            pytest.fail("it started")
    assert any("beyond" in problem for problem in fsck(network.data).problems)
