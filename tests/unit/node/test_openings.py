"""Demands for openings, at a node that serves: honoured, and refused in each way there is."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from tests.support import audit_records as make
from tests.support.audit_records import LOG, OTHER, POLICY, VERIFIER, checkpoint_note
from tests.unit.node.harness import KEY, NAME, SIGNER, Heard, Node, attempt, chat, node
from tests.unit.node.scripted import MODEL, PIECES, ScriptedEngine, says, spell

from trunkline.audit import rerun
from trunkline.crypto.encoding import decode_base64
from trunkline.crypto.merkle import root_from_path
from trunkline.crypto.signer import Signer, sign_note
from trunkline.inference.ports import Embedded, Embedder, EmbedderInfo, Engine
from trunkline.node import opening_store, openings, store
from trunkline.node.config import (
    AuditsConfig,
    AuditVerifier,
    CacheConfig,
    LogTarget,
    NodeConfig,
)
from trunkline.node.core.demand import Rules, chance
from trunkline.node.openings import OpeningKeeper
from trunkline.receipts import (
    binds,
    decode,
    open_nonces,
    prompt_digest,
    receipt_leaf,
    request_digest,
    tokens_digest,
    verify_nonce,
    verify_signed,
)
from trunkline.remote.node import NodeRefusedError
from trunkline.runtime.http import Call, Receive, Scope, Send
from trunkline.runtime.server import serving
from trunkline.runtime.store import Database
from trunkline.schema.attempt import Attempt
from trunkline.schema.audit import Demand, Opening, Openings, WantedReceipt
from trunkline.verdicts import Demand as DemandRecord
from trunkline.verdicts import Draw, Terms, demanded_digest, plain_checkpoint

SIZE = 1000
STRANGER = Signer("evil.example/verifier", b"\x66" * 32)
SECRET = "a secret question"


class Log:
    """Gives every entry a place; ``deaf``: takes nothing for now."""

    def __init__(self) -> None:
        self.entries: list[bytes] = []
        self.deaf = False
        self.looks = self.late = 0
        """So many looks do not show the last entry yet."""

    async def startup(self) -> None:
        """Nothing to open."""

    async def shutdown(self) -> None:
        """Nothing to close."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(scope, receive, send)
        entry = await call.body(1 << 16)
        if self.deaf:
            await call.reply(503, b"later", "text/plain")
            return
        if call.method == "GET":
            self.looks += 1
            shown = len(self.entries) - (self.looks <= self.late)
            await call.reply(200, checkpoint_note(shown), "text/plain")
            return
        if entry not in self.entries:
            self.entries.append(entry)
        await call.reply(200, b"%d" % self.entries.index(entry), "text/plain")


class OneVector:
    async def model(self) -> EmbedderInfo:
        return EmbedderInfo(dimensions=384, numerics="toy-1", weights_digest=f"sha256:{'e5' * 32}")

    async def embed(self, texts: object, *, query: bool) -> Embedded:
        return Embedded(vectors=(b"\x00\x00\x80\x3f" * 384,), tokens=3)

    async def close(self) -> None:
        """Nothing is held."""


def audits(**more: object) -> AuditsConfig:
    keys = (VERIFIER.vkey, OTHER.vkey)
    settings: dict[str, object] = {"rate_max": 1.0, "demands_per_s": 1000.0} | more
    return AuditsConfig(
        verifiers=tuple(AuditVerifier(vkey=str(key)) for key in keys),
        **settings,  # type: ignore[arg-type]
    )


@asynccontextmanager
async def audited(
    folder: Path,
    config: AuditsConfig | None,
    *,
    log: Log | None = None,
    cache: CacheConfig | None = None,
    engine: Engine | None = None,
    embedder: Embedder | None = None,
) -> AsyncIterator[Node]:
    log = log or Log()
    async with serving(log) as url:
        settings = NodeConfig(
            name=NAME,
            operator="alpha.example",
            log=LogTarget(url=url, vkey=str(LOG.vkey)),
            audits=config,
            cache=cache,
        )
        engine = engine or ScriptedEngine(says("Paris"))
        embedder = embedder or OneVector()
        async with node(folder, engine, embedder=embedder, config=settings) as running:
            yield running


def ask(number: int = 1, **more: object) -> Attempt:
    asked = attempt(chat(SECRET), number=number)
    changes = {"audit": True, "blinding": "b1" * 32} | more
    return msgspec.structs.replace(asked, **changes)


async def place(running: Node, heard: Heard, number: int = 1) -> WantedReceipt:
    """Where the receipt is, once the node knows where the log has it: after some writes to a disk,
    each of which takes seconds where others keep that busy."""
    async with asyncio.timeout(120):
        while (await running.get(f"/v1/receipts/att_{number}"))[2] is None:
            pass
    return wanted(heard)


async def unlogged(running: Node) -> int:
    _, body, _ = await running.get("/healthz")
    return int(msgspec.json.decode(body)["unlogged_batches"])


def wanted(heard: Heard) -> WantedReceipt:
    assert heard.signed is not None
    verified = verify_signed(heard.signed, KEY)
    return WantedReceipt(batch=verified.batch.root.hex(), index=heard.signed.index)


def draw_note(signer: Signer = VERIFIER, *, log: Signer = LOG, **more: object) -> str:
    fields: dict[str, object] = {
        "checkpoint": plain_checkpoint(checkpoint_note(SIZE), POLICY).decode()
        if log is LOG
        else checkpoint_note(SIZE, log=log).decode(),
        "from_": 0,
        "key": str(signer.vkey),
        "operator": "gamma.example",
        "rate_ppm": 1_000_000,
        "to": SIZE,
        "unix_ms": 1,
    }
    return sign_note(Draw(**(fields | more)).text(), signer).decode()  # type: ignore[arg-type]


def demand(
    receipts: tuple[WantedReceipt, ...],
    signer: Signer = VERIFIER,
    *,
    draw: str = "",
    name: str = NAME,
    ahead_ms: int = 0,
) -> Demand:
    draw = draw or draw_note()
    record = DemandRecord(
        digest=demanded_digest(draw, receipts),
        key=str(signer.vkey),
        node=name,
        operator="gamma.example",
        unix_ms=int(time.time() * 1000) + ahead_ms,
    )
    note = sign_note(record.text(), signer).decode()
    return Demand(draw=draw, receipts=receipts, demand=note)


async def code(running: Node, asked: Demand) -> str:
    with pytest.raises(NodeRefusedError) as refused:
        await running.caller.openings(asked)
    return refused.value.error_code


async def opened(running: Node, *receipts: WantedReceipt, **more: object) -> list[Opening]:
    found: Openings = await running.caller.openings(demand(receipts, **more))  # type: ignore[arg-type]
    return list(found.openings)


async def test_what_is_opened_is_what_the_receipt_binds(tmp_path: Path) -> None:
    asked = ask()
    log = Log()
    async with audited(tmp_path, audits(), log=log) as running:
        heard = await running.hear(asked)
        (opening,) = await opened(running, await place(running, heard))
    assert opening.signed == heard.signed
    assert opening.reason == ""
    content = opening.content
    assert content is not None
    assert heard.signed is not None
    receipt = decode(heard.signed.receipt.encode())
    assert receipt.policy.audit
    assert bytes(content.request) == bytes(asked.request)
    assert content.tokens == (spell("Paris"),)
    digests = {
        "request.digest": request_digest(bytes(content.request)),
        "request.prompt": prompt_digest(content.prompt),
        "response.tokens": tokens_digest(content.tokens),
    }
    for item, digest in digests.items():
        assert binds(receipt, item, digest, content.salts) is True  # type: ignore[arg-type]
    assert "request.client" not in content.salts, "the app's own body stays closed"
    assert content.nonce is not None
    commitment = open_nonces(content.nonce.note.encode(), KEY)
    assert commitment.root.hex() == receipt.sampling.nonces
    path = [decode_base64(hash_) for hash_ in content.nonce.path]
    verify_nonce(commitment, content.nonce.index, bytes.fromhex(receipt.sampling.node_nonce), path)
    batch = heard.signed.batch.encode()
    assert log.entries.index(content.nonce.note.encode()) < log.entries.index(batch)


async def test_the_log_has_a_draw_before_anything_is_opened_under_it(tmp_path: Path) -> None:
    log = Log()
    async with audited(tmp_path, audits(), log=log) as running:
        receipt = await place(running, await running.hear(ask()))
        assert draw_note().encode() not in log.entries
        log.late = 2
        (opening,) = await opened(running, receipt)
        assert opening.content is not None
        assert log.entries[-1] == draw_note().encode()
        assert log.looks == 3
        await opened(running, receipt)
        assert log.looks == 3


async def test_what_the_node_can_not_log_is_no_reason_to_withhold(tmp_path: Path) -> None:
    log = Log()
    async with audited(tmp_path, audits(), log=log) as running:
        receipt = await place(running, await running.hear(ask()))
        log.deaf = True
        (opening,) = await opened(running, receipt)
        assert opening.content is not None
        # It tries again, as long as the log does not have it.
        log.deaf = False
        await opened(running, receipt)
        assert draw_note().encode() in log.entries


@pytest.mark.parametrize("more", [{}, {"n": 2}, {"stream": False}], ids=str)
async def test_what_was_sent_beside_tokens_is_opened_with_them(
    tmp_path: Path, more: dict[str, object]
) -> None:
    asked = attempt(chat(SECRET, logprobs=True, top_logprobs=2, max_tokens=9, **more))
    asked = msgspec.structs.replace(asked, audit=True, blinding="b1" * 32)
    async with audited(tmp_path, audits(), engine=ScriptedEngine()) as running:
        heard = await running.hear(asked)
        (opening,) = await opened(running, await place(running, heard))
    content = opening.content
    assert content is not None
    assert heard.signed is not None
    receipt = decode(heard.signed.receipt.encode())
    assert [len(each) for each in content.logprobs] == [len(each) for each in content.tokens]
    planned = rerun.plan(rerun.read_request(content), content.prompt, MODEL)
    again = rerun.rerun(receipt, planned, content.tokens, PIECES, content.logprobs)
    assert again.problem == ""
    assert binds(receipt, "response.digest", again.digest, content.salts) is True


async def test_embeddings_are_opened_by_their_vectors(tmp_path: Path) -> None:
    asked = attempt({"input": "x"}, kind="embeddings", model="multilingual-e5-small")
    asked = msgspec.structs.replace(asked, audit=True)
    async with audited(tmp_path, audits()) as running:
        heard = await running.hear(asked)
        (opening,) = await opened(running, await place(running, heard))
    assert opening.content is not None
    assert [decode_base64(text) for text in opening.content.vectors] == [b"\x00\x00\x80\x3f" * 384]
    assert opening.content.nonce is None


async def test_an_answer_given_again_is_opened_with_its_origin(tmp_path: Path) -> None:
    log = Log()
    async with audited(tmp_path, audits(), log=log, cache=CacheConfig()) as running:
        made = await running.hear(ask(1, cache="ca" * 32))
        await place(running, made, 1)
        again = await running.hear(ask(2, answer="ans_2", cache="ca" * 32))
        first, second = await opened(running, wanted(made), await place(running, again, 2))
    assert made.signed is not None
    assert again.signed is not None
    receipt = decode(again.signed.receipt.encode())
    assert receipt.cached
    assert (second.reason, second.signed) == ("", again.signed)
    assert first.content is not None
    assert first.content.origin is None
    content = second.content
    assert content is not None
    assert content.origin is not None
    assert content.origin.signed == made.signed
    assert content.origin.salts == first.content.salts != content.salts
    own = msgspec.structs.replace(content, origin=None, salts=content.origin.salts)
    assert own == first.content, "request, answer and nonce are its origin's"
    digest = request_digest(bytes(content.request))
    assert binds(receipt, "request.digest", digest, content.salts) is True
    assert "response.digest" in content.salts


async def test_what_may_be_audited_comes_from_what_may_be(tmp_path: Path) -> None:
    """The origin is opened with it, and this one's caller had not let it be."""
    async with audited(tmp_path, audits(), cache=CacheConfig()) as running:
        heard = []
        for number, audit in enumerate((False, True, True, False), start=1):
            heard.append(await running.hear(ask(number, cache="ca" * 32, audit=audit)))
            await place(running, heard[-1], number)
    cached = [bool(decode(one.signed.receipt.encode()).cached) for one in heard if one.signed]
    assert cached == [False, False, True, True]


async def test_what_may_be_audited_is_given_once_the_log_has_its_receipt(tmp_path: Path) -> None:
    log = Log()
    log.deaf = True
    async with audited(tmp_path, audits(), log=log, cache=CacheConfig()) as running:
        heard = [await running.hear(ask(number, cache="ca" * 32)) for number in (1, 2)]
        log.deaf = False
        await place(running, heard[0], 1)
        heard.append(await running.hear(ask(3, cache="ca" * 32)))
    receipts = [decode(one.signed.receipt.encode()) for one in heard if one.signed]
    assert [bool(one.cached) for one in receipts] == [False, False, True]
    assert heard[0].signed is not None
    leaf = receipt_leaf(heard[0].signed.receipt.encode()).hex()
    assert receipts[2].cached
    assert receipts[2].cached.receipt == leaf, "the one that was kept first"


async def test_a_store_from_before_audits_is_brought_up_to_date(tmp_path: Path) -> None:
    before = Database.open(
        tmp_path / store.FILE_NAME, must_exist=False, migrations=store.MIGRATIONS[:2]
    )
    before.close()
    (tmp_path / "key").write_text(SIGNER.skey() + "\n")
    (tmp_path / "key").chmod(0o600)
    async with audited(tmp_path, audits()) as running:
        (opening,) = await opened(running, await place(running, await running.hear(ask())))
        assert opening.content is not None


@pytest.mark.parametrize("unchained", [False, True])
def test_what_is_drawn_by_a_chain_and_what_older_terms_let_be_drawn(unchained: bool) -> None:
    draw = make.draw(0, SIZE, rate_ppm=500_000, seeds={10: b"\x5e" * 32})
    rules = Rules(
        node=NAME,
        log=LOG.vkey,
        verifiers=(VERIFIER.vkey,),
        rate_ppm_max=200_000,
        since_ms=0,
        unchained=unchained,
    )
    honoured = chance(make.signed(draw).decode(), rules)
    for entry in range(40):
        drawn = set(draw.chosen(entry, 16, rate_ppm_max=200_000))
        otherwise = set(draw.chosen(entry, 16, rate_ppm_max=200_000, chance=draw.randomness()))
        expected = drawn | otherwise if unchained else drawn
        assert {leaf for leaf in range(16) if honoured.has(entry, leaf)} == expected
        assert entry >= 10 or drawn == otherwise


async def test_the_node_says_that_it_knows_of_chains(tmp_path: Path) -> None:
    log = Log()
    async with audited(tmp_path, audits(), log=log) as running:
        await place(running, await running.hear(ask()))
    (said,) = [entry for entry in log.entries if entry.startswith(b"trunkline.terms/v1")]
    assert Terms.open_note(said, KEY).chains is True


async def test_another_verifier_may_ask_for_what_one_has_drawn(tmp_path: Path) -> None:
    async with audited(tmp_path, audits()) as running:
        at = await place(running, await running.hear(ask()))
        (opening,) = await opened(running, at, signer=OTHER, draw=draw_note(VERIFIER))
        assert opening.content is not None


Refusal = tuple[str, Callable[[tuple[WantedReceipt, ...]], Demand]]
REFUSED: list[Refusal] = [
    ("demand_refused", lambda at: demand(at, STRANGER)),
    ("demand_refused", lambda at: demand(at, name="beta.example/node")),
    (
        "demand_refused",
        lambda at: msgspec.structs.replace(demand(at), demand=demand((WANTED_OTHER,)).demand),
    ),
    ("demand_refused", lambda at: msgspec.structs.replace(demand(at), draw=draw_note(OTHER))),
    ("demand_stale", lambda at: demand(at, ahead_ms=-360_000)),
    ("demand_stale", lambda at: demand(at, ahead_ms=360_000)),
    ("draw_refused", lambda at: demand(at, draw=draw_note(STRANGER))),
    ("draw_refused", lambda at: demand(at, draw=draw_note(log=STRANGER))),
    ("invalid_demand", lambda at: demand(at, draw="no note\n")),
    ("invalid_demand", lambda at: msgspec.structs.replace(demand(at), demand="no note\n")),
    ("invalid_demand", lambda at: msgspec.structs.replace(demand(at), receipts=at * 2)),
    ("invalid_demand", lambda at: msgspec.structs.replace(demand(at), receipts=())),
    (
        "invalid_demand",
        lambda at: msgspec.structs.replace(
            demand(at), receipts=(msgspec.structs.replace(at[0], batch="xy"),)
        ),
    ),
]
WANTED_OTHER = WantedReceipt(batch="00" * 32, index=0)


async def test_refused_in_each_way(tmp_path: Path) -> None:
    async with audited(tmp_path, audits(rate_max=0.5)) as running:
        at = await place(running, await running.hear(ask()))
        for expected, make in REFUSED:
            assert await code(running, make((at,))) == expected
        status, body = await post(running, b"[" * 100_000)
        assert (status, error(body)) == (400, "invalid_demand")
        status, body = await post(running, b" " * (128 * 1024 + 1))
        assert (status, error(body)) == (413, "body_too_large")
        (opening,) = await opened(running, at, draw=draw_note(rate_ppm=500_000))
        assert opening.reason in ("", "not_drawn")


async def post(running: Node, body: bytes) -> tuple[int, bytes]:
    response = await running.transport.request("POST", running.base_url + "/v1/openings", body=body)
    async with response:
        return response.status, await response.read(1 << 16)


def error(body: bytes) -> str:
    return str(msgspec.json.decode(body)["error"]["code"])


async def test_a_demand_is_used_once_and_not_too_often(tmp_path: Path) -> None:
    async with audited(tmp_path, audits(demands_per_s=0.02)) as running:
        at = await place(running, await running.hear(ask()))
        once = demand((at,))
        assert (await running.caller.openings(once)).openings[0].content is not None
        assert await code(running, once) == "demand_replayed"
        with pytest.raises(NodeRefusedError) as refused:
            await running.caller.openings(demand((at,), ahead_ms=1))
        assert refused.value.error_code == "demands_rate_limited"
        assert refused.value.retryable
        assert 0 < (refused.value.retry_after_s or 0) <= 50
        # Another verifier has a pace of its own.
        (opening,) = await opened(running, at, signer=OTHER)
        assert opening.content is not None


async def test_a_demand_from_before_the_process_began_is_stale(tmp_path: Path) -> None:
    """What was used is forgotten with the process, so nothing from before it is taken."""
    async with audited(tmp_path, audits()) as running:
        at = await place(running, await running.hear(ask()))
        once = demand((at,))
        await running.caller.openings(once)
    async with audited(tmp_path, audits()) as running:
        assert await code(running, once) == "demand_stale"
        (opening,) = await opened(running, at)
        assert opening.content is not None, "kept over the restart"


async def test_a_verifier_draws_once_from_the_same_entries(tmp_path: Path) -> None:
    async with audited(tmp_path, audits()) as running:
        at = await place(running, await running.hear(ask()))
        first = draw_note(rate_ppm=1)
        for _ in range(2):
            (opening,) = await opened(running, at, draw=first)
            assert opening.reason == "not_drawn"
            assert opening.signed is None
        assert await code(running, demand((at,), draw=draw_note())) == "draw_conflict"
        (opening,) = await opened(running, at, draw=draw_note(OTHER))
        assert opening.content is not None
    async with audited(tmp_path, audits()) as running:
        assert await code(running, demand((at,), draw=draw_note())) == "draw_conflict"


async def test_each_receipt_is_answered_for_itself(tmp_path: Path) -> None:
    log = Log()
    async with audited(tmp_path, audits(), log=log) as running:
        open_one = await running.hear(ask(1))
        closed = await running.hear(ask(2, audit=False))
        private = await running.hear(ask(3, audit=False, mode="private"))
        async with asyncio.timeout(120):
            while await unlogged(running):
                pass
        log.deaf = True
        late = await running.hear(ask(4))
        found = await opened(
            running, wanted(open_one), wanted(closed), wanted(private), wanted(late), WANTED_OTHER
        )
    first, second, third, fourth, fifth = found
    assert first.content is not None
    assert (second.reason, second.signed, second.content) == ("not_audited", closed.signed, None)
    assert private.signed is not None
    assert (third.reason, third.signed, third.content) == ("not_audited", None, None)
    data = private.signed.receipt.encode()
    assert third.leaf == receipt_leaf(data).hex()
    path = [decode_base64(hash_) for hash_ in third.path]
    assert root_from_path(bytes.fromhex(third.leaf), 0, 1, path).hex() == third.batch
    assert (fourth.reason, fourth.signed) == ("not_logged", None)
    assert (fifth.reason, fifth.signed) == ("unknown", None)


async def test_an_answer_that_is_full_says_which_to_ask_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with audited(tmp_path, audits()) as running:
        heard = [await running.hear(ask(number)) for number in (1, 2)]
        at = [await place(running, each, n) for n, each in enumerate(heard, start=1)]
        monkeypatch.setattr(openings, "OPENINGS_BYTES_MAX", 12_000)
        first, second = await opened(running, *at)
        assert first.content is not None
        assert (second.reason, second.signed) == ("later", heard[1].signed)
        (second,) = await opened(running, at[1])
        assert second.content is not None


async def test_a_private_answer_may_not_be_audited(tmp_path: Path) -> None:
    async with audited(tmp_path, audits()) as running:
        with pytest.raises(NodeRefusedError) as refused:
            await running.hear(ask(mode="private"))
    assert refused.value.error_code == "invalid_attempt"


async def test_a_node_that_names_no_verifier_keeps_nothing(tmp_path: Path) -> None:
    async with audited(tmp_path, None) as running:
        at = await place(running, await running.hear(ask()))
        for signer in (VERIFIER, STRANGER):
            (opening,) = await opened(running, at, signer=signer)
            assert (opening.reason, opening.signed) == ("not_kept", None)
    assert SECRET.encode() not in stored(tmp_path)


def stored(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.glob("node.db*"))


async def test_what_had_its_time_is_nowhere_in_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openings, "SWEEP_S_MAX", 0.01)
    async with audited(tmp_path, audits(keep_s=600.0)) as running:
        heard = await running.hear(ask())
        at = await place(running, heard)
        (opening,) = await opened(running, at)
        assert opening.content is not None
        assert SECRET.encode() in stored(tmp_path)
        # Its time is over when this says so, and not when a slow disk has let it pass.
        monkeypatch.setattr(openings.OpeningKeeper, "keep_ms", property(lambda _: 0))
        async with asyncio.timeout(120):
            while SECRET.encode() in stored(tmp_path):
                await unlogged(running)
        (opening,) = await opened(running, at)
        assert (opening.reason, opening.signed) == ("expired", heard.signed)


async def test_where_space_is_wanted_the_oldest_go_and_are_counted(tmp_path: Path) -> None:
    async with audited(tmp_path, audits(bytes_max=2**16)) as running:
        numbers = range(1, 61)
        heard = []
        for number in numbers:
            asked = ask(number)
            wide = b"{" + b" " * 2000 + bytes(asked.request)[1:]
            asked = msgspec.structs.replace(asked, request=msgspec.Raw(wide))
            heard.append(await running.hear(asked))
        at = [await place(running, each, n) for n, each in enumerate(heard, start=1)]
        found = await opened(running, *at[:30])
        found += await opened(running, *at[30:])
        kept = [opening.content is not None for opening in found]
        assert kept == sorted(kept), "the oldest go first"
        dropped = kept.count(False)
        assert 0 < dropped < len(kept)
        assert all(o.reason == "not_kept" for o in found if o.content is None)
        _, metrics, _ = await running.get("/metrics")
    assert b"trunkline_node_openings_dropped_total %d" % dropped in metrics
    assert b"trunkline_node_openings_kept_bytes" in metrics


async def test_the_keeper_counts_in_the_transaction(tmp_path: Path) -> None:
    """A batch that was not stored leaves the count as it was."""
    async with audited(tmp_path, audits()) as running:
        await running.hear(ask())
        database = running.app._database
        assert database is not None
        before = await database.read(opening_store.total_bytes)
        assert before > 0
        keeper: OpeningKeeper | None = running.app._keeper
        assert keeper is not None

        def fails(connection: opening_store.Connection) -> None:
            keeper.keep(connection, 99, [(0, b"x" * 1000)], 1)
            raise KeyError("the batch was refused")

        with pytest.raises(KeyError):
            await database.write(fails)
        assert await database.read(opening_store.total_bytes) == before
