"""The callers of logs and witnesses, against scripted servers and real proofs."""

import asyncio

import pytest

from trunkline.base.errors import (
    BadResponseError,
    InclusionError,
    MalformedError,
    SignatureError,
    TimedOutError,
    UpstreamError,
)
from trunkline.crypto.merkle import leaf_hash, root
from trunkline.crypto.signer import Signer, sign_note
from trunkline.remote.log import LogCaller
from trunkline.remote.witness import WitnessCaller, WitnessConflictError
from trunkline.tlog import proof as tlog_proof
from trunkline.tlog.checkpoint import Checkpoint
from trunkline.tlog.policy import Policy
from trunkline.tlog.tile import TILE_WIDTH

SIGNER = Signer.generate("test.example/log", bytes(range(32)))
OTHER = Signer.generate("test.example/log", bytes(32))
WITNESS = Signer.generate("witness.example", bytes([7]) * 32)
POLICY = Policy.parse(f"log {SIGNER.vkey}\nquorum none\n")
ENTRIES = [b"entry %d" % number for number in range(700)]
LEAVES = [leaf_hash(entry) for entry in ENTRIES]


def checkpoint(size: int, signer: Signer = SIGNER) -> bytes:
    made = Checkpoint(origin="test.example/log", size=size, root=root(LEAVES[:size]))
    return sign_note(made.text(), signer)


def files(size: int, signer: Signer = SIGNER) -> dict[str, bytes]:
    """All of a small log: level 0 in full and partial tiles, level 1."""
    made = {"checkpoint": checkpoint(size, signer)}
    for index in range(-(-size // TILE_WIDTH)):
        hashes = LEAVES[index * TILE_WIDTH : min(size, (index + 1) * TILE_WIDTH)]
        partial = "" if len(hashes) == TILE_WIDTH else f".p/{len(hashes)}"
        made[f"tile/0/{index:03}{partial}"] = b"".join(hashes)
    full = size // TILE_WIDTH
    if full:
        level1 = [root(LEAVES[i * TILE_WIDTH : (i + 1) * TILE_WIDTH]) for i in range(full)]
        made[f"tile/1/000.p/{full}"] = b"".join(level1)
    return made


def serves(*states: dict[str, bytes]):
    """Serve the next state each time the checkpoint is asked for, the last one for ever."""
    left = list(states)
    now: dict[str, bytes] = {}

    async def script(peer) -> None:
        nonlocal now
        while True:
            path = (await peer.request()).split(b" ")[1].decode().removeprefix("/")
            if path == "checkpoint":
                now = left.pop(0) if len(left) > 1 else left[0]
            body = now.get(path)
            status = 404 if body is None else 200
            body = body or b""
            await peer.send(
                b"HTTP/1.1 %d x\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)
            )

    return script


def replies(status: int, body: bytes, kind: str = "text/plain"):
    async def script(peer) -> None:
        while True:
            await peer.request()
            await peer.send(
                b"HTTP/1.1 %d x\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b"
                % (status, kind.encode(), len(body), body)
            )

    return script


@pytest.fixture(autouse=True)
def quick_polls(monkeypatch):
    monkeypatch.setattr("trunkline.remote.log.POLL_FIRST_S", 0.005)


async def test_add(transport, server):
    async with server(replies(200, b"42\n")) as s:
        assert await LogCaller(transport, s.url).add(b"entry\n") == 42
        assert s.peers[0].requests[0].startswith(b"POST /add HTTP/1.1\r\n")
        assert s.peers[0].requests[0].endswith(b"\r\n\r\nentry\n")


@pytest.mark.parametrize("body", [b"", b"x", b"-1", b"01", b"1.0", b"9" * 20])
async def test_add_without_an_index(transport, server, body):
    async with server(replies(200, body)) as s:
        with pytest.raises(BadResponseError):
            await LogCaller(transport, s.url).add(b"entry\n")


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (400, "upstream_rejected", False),
        (413, "upstream_rejected", False),
        (429, "upstream_rate_limited", True),
        (503, "upstream_unavailable", True),
    ],
)
async def test_add_refused(transport, server, status, code, retryable):
    async with server(replies(status, b"no")) as s:
        with pytest.raises(UpstreamError) as caught:
            await LogCaller(transport, s.url).add(b"entry\n")
    assert (caught.value.error_code, caught.value.retryable) == (code, retryable)


@pytest.mark.parametrize(("index", "size"), [(0, 1), (0, 700), (255, 256), (300, 600), (699, 700)])
async def test_inclusion(transport, server, index, size):
    async with server(serves(files(size))) as s:
        log = LogCaller(transport, s.url + "/")
        found = await log.fetch_inclusion(ENTRIES[index], index, POLICY, timeout_s=5)
    accepted = tlog_proof.verify(found, LEAVES[index], POLICY)
    assert (found.index, accepted.checkpoint.size) == (index, size)


async def test_inclusion_waits_for_the_log(transport, server):
    async with server(serves(files(5), {}, files(5), files(9))) as s:
        log = LogCaller(transport, s.url)
        found = await log.fetch_inclusion(ENTRIES[7], 7, POLICY, timeout_s=5)
    assert tlog_proof.verify(found, LEAVES[7], POLICY).checkpoint.size == 9


async def test_many_who_wait_for_a_log_look_once(transport, server, monkeypatch):
    # A moment, on a busy machine too.
    monkeypatch.setattr("trunkline.remote.log.VIEW_S_MAX", 60.0)
    async with server(serves({}, files(5), files(600))) as s:
        log = LogCaller(transport, s.url)
        found = await asyncio.gather(
            *(log.fetch_inclusion(ENTRIES[i], i, POLICY, timeout_s=60) for i in range(300, 340))
        )
        asked = [request.split(b" ")[1].decode() for peer in s.peers for request in peer.requests]
    for proof in found:
        accepted = tlog_proof.verify(proof, LEAVES[proof.index], POLICY)
        assert accepted.checkpoint.size == 600
    assert asked.count("/checkpoint") < 8
    tiles = [path for path in asked if path.startswith("/tile/")]
    assert len(tiles) == len(set(tiles))


async def test_each_policy_has_its_own_look(transport, server):
    other = Policy.parse(f"log {OTHER.vkey}\nquorum none\n")
    async with server(serves(files(9))) as s:
        log = LogCaller(transport, s.url)
        await log.fetch_inclusion(ENTRIES[7], 7, POLICY, timeout_s=5)
        with pytest.raises(SignatureError):
            await log.fetch_inclusion(ENTRIES[7], 7, other, timeout_s=5)


async def test_inclusion_waits_for_the_quorum(transport, server):
    policy = Policy.parse(f"log {SIGNER.vkey}\nwitness w {WITNESS.cosigner_vkey}\nquorum w\n")
    async with server(serves(files(9))) as s:
        with pytest.raises(TimedOutError) as caught:
            await LogCaller(transport, s.url).fetch_inclusion(ENTRIES[7], 7, policy, timeout_s=0.05)
    assert caught.value.error_code == "log_inclusion_timeout"


async def test_partial_tile_that_was_replaced_is_cut_from_the_full_one(transport, server):
    state = files(300)
    later = files(512)
    del state["tile/0/001.p/44"]
    state["tile/0/001"] = later["tile/0/001"]
    async with server(serves(state)) as s:
        log = LogCaller(transport, s.url)
        found = await log.fetch_inclusion(ENTRIES[299], 299, POLICY, timeout_s=5)
    assert tlog_proof.verify(found, LEAVES[299], POLICY).checkpoint.size == 300


async def test_a_log_that_lies_is_not_waited_for(transport, server):
    async with server(serves(files(9, OTHER))) as s:
        with pytest.raises(SignatureError):
            await LogCaller(transport, s.url).fetch_inclusion(b"x", 0, POLICY, timeout_s=5)
    async with server(serves(files(9))) as s:
        with pytest.raises(InclusionError):
            await LogCaller(transport, s.url).fetch_inclusion(b"x", 0, POLICY, timeout_s=5)
    async with server(serves(files(9) | {"tile/0/000.p/9": b"short"})) as s:
        with pytest.raises(MalformedError):
            await LogCaller(transport, s.url).fetch_inclusion(ENTRIES[0], 0, POLICY, timeout_s=5)
    async with server(serves({"checkpoint": b"nonsense"})) as s:
        with pytest.raises(MalformedError):
            await LogCaller(transport, s.url).fetch_inclusion(b"x", 0, POLICY, timeout_s=5)


async def test_tile_paths_are_checked_before_they_are_asked_for(transport):
    with pytest.raises(MalformedError):
        await LogCaller(transport, "http://127.0.0.1:1").tile("tile/../../etc/passwd")


async def test_witness_cosigns(transport, server):
    line = "— witness.example AAAA\n".encode()
    async with server(replies(200, line)) as s:
        got = await WitnessCaller(transport, s.url).add_checkpoint(3, [bytes(32)], checkpoint(5))
        request = s.peers[0].requests[0]
    assert got == line
    assert request.startswith(b"POST /add-checkpoint HTTP/1.1\r\n")
    body = request.partition(b"\r\n\r\n")[2]
    assert body == b"old 3\n" + b"A" * 43 + b"=\n\n" + checkpoint(5)


async def test_witness_at_another_size(transport, server):
    async with server(replies(409, b"17\n", "text/x.tlog.size")) as s:
        with pytest.raises(WitnessConflictError) as caught:
            await WitnessCaller(transport, s.url).add_checkpoint(3, [], checkpoint(5))
    assert caught.value.size == 17


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (replies(409, b"x\n", "text/x.tlog.size"), "witness_bad_response"),
        (replies(409, b"other conflict"), "upstream_conflict"),
        (replies(403, b""), "upstream_auth"),
        (replies(404, b""), "upstream_not_found"),
        (replies(422, b""), "upstream_rejected"),
        (replies(200, b""), "witness_bad_response"),
        (replies(200, "— no newline".encode()), "witness_bad_response"),
        (replies(200, b"- hyphen AAAA\n"), "witness_bad_response"),
    ],
)
async def test_witness_refusals(transport, server, script, code):
    async with server(script) as s:
        with pytest.raises(UpstreamError) as caught:
            await WitnessCaller(transport, s.url).add_checkpoint(0, [], checkpoint(5))
    assert caught.value.error_code == code


async def test_deadline(transport, server):
    async def silent(peer) -> None:
        await peer.request()
        await peer.closed_by_client()

    async with server(silent) as s:
        with pytest.raises(TimedOutError):
            await LogCaller(transport, s.url, timeout_s=0.05).checkpoint()
        await asyncio.wait_for(s.peers[0].gone.wait(), 5)
