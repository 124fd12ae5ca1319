"""Batches reach the log: late, once more, and those signed before there was a log."""

import asyncio
from pathlib import Path

import msgspec
from tests.unit.node.harness import KEY, NAME, Node, attempt, chat, node
from tests.unit.node.scripted import ScriptedEngine, says

from trunkline.node import store
from trunkline.node.config import AuditsConfig, AuditVerifier, LogTarget, NodeConfig
from trunkline.receipts import ITEMS, bound, decode, open_nonces
from trunkline.receipts.batch import open_batch
from trunkline.runtime.http import Call, Receive, Scope, Send
from trunkline.runtime.server import serving
from trunkline.schema.attempt import Mode
from trunkline.verdicts import Terms


class Log:
    """Takes entries, the same one at the same index; fails as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.entries: list[bytes] = []
        self.failures = failures
        self.refused = b"nothing"
        """Entries that begin so are refused for good."""
        self.added = asyncio.Event()
        """A batch was."""

    @property
    def batches(self) -> list[bytes]:
        return [entry for entry in self.entries if entry.startswith(b"trunkline.batch/")]

    async def startup(self) -> None:
        """Nothing to open."""

    async def shutdown(self) -> None:
        """Nothing to close."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(scope, receive, send)
        entry = await call.body(1 << 16)
        if self.failures:
            self.failures -= 1
            await call.reply(503, b"later", "text/plain")
            return
        if entry.startswith(self.refused):
            await call.reply(400, b"no", "text/plain")
            return
        if entry not in self.entries:
            self.entries.append(entry)
        await call.reply(200, b"%d" % (41 + self.entries.index(entry)), "text/plain")
        if entry in self.batches:
            self.added.set()


def config(base_url: str) -> NodeConfig:
    return NodeConfig(
        name=NAME,
        operator="a",
        embeddings=False,
        log=LogTarget(url=base_url, vkey=str(KEY)),
    )


async def indexed(running: Node, number: int) -> str:
    async with asyncio.timeout(120):
        while True:
            _, _, index = await running.get(f"/v1/receipts/att_{number}")
            if index is not None:
                return index


async def test_a_batch_reaches_the_log_though_it_failed_first(tmp_path: Path) -> None:
    log = Log(failures=3)
    engine = ScriptedEngine(says("x"))
    async with (
        serving(log) as base_url,
        node(tmp_path, engine, config=config(base_url)) as running,
    ):
        heard = await running.hear(attempt(chat()))
        index = await indexed(running, 1)
        info = await running.caller.info()

    assert heard.signed is not None
    assert log.batches == [heard.signed.batch.encode()]
    assert index == str(41 + log.entries.index(log.batches[0]))
    assert info.log == KEY.name


async def test_an_answer_does_not_wait_for_the_log(tmp_path: Path) -> None:
    """Nothing listens there: the answer and its receipt come all the same."""
    dead = config("http://127.0.0.1:9")
    async with node(tmp_path, ScriptedEngine(says("x")), config=dead) as running:
        heard = await running.hear(attempt(chat()))
        status, body, _ = await running.get("/healthz")

    assert heard.signed is not None
    assert status == 200
    assert msgspec.json.decode(body)["unlogged_batches"] == 1


async def test_batches_from_before_there_was_a_log_are_caught_up(tmp_path: Path) -> None:
    log = Log()
    without = NodeConfig(name=NAME, operator="a", embeddings=False)
    async with node(tmp_path, ScriptedEngine(says("x")), config=without) as running:
        for number in (1, 2):
            await running.hear(attempt(chat(), number=number))
    async with (
        serving(log) as base_url,
        node(tmp_path, ScriptedEngine(says("x")), config=config(base_url)) as running,
    ):
        found = [await indexed(running, number) for number in (1, 2)]

    assert sorted(found) == [str(41 + log.entries.index(entry)) for entry in log.batches]
    assert len(found) == 2


async def test_commitments_are_in_the_log_before_any_batch_that_uses_them(tmp_path: Path) -> None:
    """The log fails while commitments and batches are queued, so that all come back in any order:
    still, what the nonces of a batch are committed to in is there first."""
    for failures in range(8):
        log = Log(failures=failures)
        folder = tmp_path / str(failures)
        async with (
            serving(log) as base_url,
            node(folder, ScriptedEngine(says("x")), config=config(base_url)) as running,
        ):
            heard = [await running.hear(attempt(chat(), number=n)) for n in (1, 2, 3)]
            for number in (1, 2, 3):
                await indexed(running, number)
        first_batch = log.entries.index(log.batches[0])
        roots = {
            open_nonces(entry, KEY).root.hex()
            for entry in log.entries[:first_batch]
            if entry.startswith(b"trunkline.nonces/")
        }
        for each in heard:
            assert each.signed is not None
            assert decode(each.signed.receipt.encode()).sampling.nonces in roots


async def test_what_a_later_process_states_is_dated_after_the_batches_that_it_finds_waiting(
    tmp_path: Path,
) -> None:
    """Else an upgrade while the log is away has answers read by the terms of a process that did not
    make them."""
    log = Log()
    dead = config("http://127.0.0.1:9")
    async with node(tmp_path, ScriptedEngine(says("x")), config=dead) as running:
        before = await running.hear(attempt(chat()))
    audits = AuditsConfig(verifiers=(AuditVerifier(vkey=str(KEY)),))
    async with serving(log) as base_url:
        later = msgspec.structs.replace(config(base_url), audits=audits)
        async with node(tmp_path, ScriptedEngine(says("x")), config=later) as running:
            after = await running.hear(attempt(chat(), number=2))
            for number in (1, 2):
                await indexed(running, number)
    terms = [
        Terms.open_note(entry, KEY).unix_ms
        for entry in log.entries
        if entry.startswith(b"trunkline.terms/")
    ]
    assert before.signed is not None
    assert after.signed is not None
    first, second = (open_batch(one.signed.batch.encode(), KEY).unix_ms for one in (before, after))
    assert min(terms) <= first < max(terms) <= second


async def test_a_log_that_takes_no_commitments_gets_the_batches(tmp_path: Path) -> None:
    log = Log()
    log.refused = b"trunkline.nonces/"
    async with (
        serving(log) as base_url,
        node(tmp_path, ScriptedEngine(says("x")), config=config(base_url)) as running,
    ):
        await running.hear(attempt(chat()))
        await indexed(running, 1)
    assert not any(entry.startswith(log.refused) for entry in log.entries)
    assert len(log.batches) == 1


def stored(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.glob("node.db*"))


MODES: tuple[Mode, ...] = ("private", "batched", "full")


async def test_every_byte_that_leaves_is_the_signed_root_in_each_mode(tmp_path: Path) -> None:
    """What the log is sent of an answer is the batch's note, whatever the mode; a private receipt
    is for the caller alone; and nothing of content or blinding is on the node's disk."""
    log = Log()
    async with (
        serving(log) as base_url,
        node(tmp_path, ScriptedEngine(says("x")), config=config(base_url)) as running,
    ):
        for number, mode in enumerate(MODES, start=1):
            log.added.clear()
            asked = attempt(chat("a secret question"), number=number)
            asked = msgspec.structs.replace(
                asked,
                mode=mode,
                blinding="b1" * 32,
                client_request_digest="salted:" + "c1" * 32,
            )
            heard = await running.hear(asked)
            async with asyncio.timeout(120):
                await log.added.wait()
            assert heard.signed is not None
            assert log.batches[number - 1 :] == [heard.signed.batch.encode()]
            status, found, _ = await running.get(f"/v1/receipts/att_{number}")
            assert status == (404 if mode == "private" else 200)
            assert found == store.encode_signed(heard.signed) or mode == "private"
            receipt = decode(heard.signed.receipt.encode())
            assert receipt.policy.mode == mode
            assert {bound(receipt, item)[:7] for item in ITEMS} == {"", "salted:"}
    others = [entry for entry in log.entries if entry not in log.batches]
    terms, *nonces = sorted(others, reverse=True)
    assert Terms.open_note(terms, KEY).verifiers == ()
    assert all(open_nonces(entry, KEY) for entry in nonces)
    left = stored(tmp_path)
    assert left
    assert b"a secret question" not in left
    assert b"b1" * 32 not in left
