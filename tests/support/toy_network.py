"""A network that verifiers can work in, without a gateway and without a model: a small log whose
checkpoints a witness cosigned, a node that opens receipts or does not, verifiers with a toy engine.

All over real connections, so that the code under test is all of the verifier's.
"""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
from tests.support.audit_records import terms
from tests.support.auditing import NODE, Made, Toy, ToyNode, ToyScorer, commitment
from tests.support.fake_verifier import RoutedApp

from trunkline.audit.calibration import Calibration, Parties, build
from trunkline.audit.calibration import encode as encode_calibration
from trunkline.audit.trials import Trials
from trunkline.base.errors import Error, RequestError
from trunkline.crypto import merkle, note
from trunkline.crypto.digest import digest
from trunkline.crypto.signer import Signer, sign_note
from trunkline.inference.ports import Score, TokenScore
from trunkline.receipts import Batch, BatchBuilder, encode
from trunkline.remote.verifier import VerifierCaller
from trunkline.runtime.http import TEXT_TYPE, Call, Router, http_status
from trunkline.runtime.server import serving
from trunkline.schema.attempt import (
    INFO_PATH,
    NodeError,
    NodeErrorBody,
    NodeInfo,
    ServedModel,
    SignedReceipt,
)
from trunkline.schema.audit import (
    DEMAND_BYTES_MAX,
    OPENINGS_PATH,
    SELF_TEST_PATH,
    Demand,
    Opening,
    Openings,
    RevealedVerdict,
)
from trunkline.tlog.checkpoint import Checkpoint
from trunkline.tlog.tile import ENTRY_BYTES_MAX, TILE_HEIGHT, Tile, encode_bundle
from trunkline.verdicts import SelfTest, open_demand
from trunkline.verifier.app import VerifierApp, create_store
from trunkline.verifier.config import AuditedNode, PeerVerifier, VerifierConfig, read, render

LOG: Final = Signer("log.example", b"\x10" * 32)
WITNESS: Final = Signer("delta.example/witness", b"\x11" * 32)
LAMBDA: Final = Signer("lambda.example/verifier", b"\x41" * 32)
MU: Final = Signer("mu.example/verifier", b"\x42" * 32)
NU: Final = Signer("nu.example/verifier", b"\x43" * 32)
POLICY: Final = f"log {LOG.vkey}\nwitness delta {WITNESS.cosigner_vkey}\nquorum delta\n"
COSIGNED_S: Final = 1_780_000_000


REFUSALS: Final = {
    "refuses": "not_today",
    "stale": "demand_stale",
    "conflict": "draw_conflict",
    "limits": "demands_rate_limited",
}


class SmallLog:
    """A log in memory: every entry is in the next checkpoint, which the witness has cosigned."""

    def __init__(self) -> None:
        self.entries: list[bytes] = []
        self.added = 0
        """Calls of ``/add``, repeated ones included."""
        self.cosigned = True
        self.router = Router(_refuse)
        self.router.add("POST", "/add", self._add)
        self.router.add("GET", "/checkpoint", self._checkpoint)
        self.router.add_prefix("GET", "/tile/", self._tile)

    def append(self, entry: bytes) -> int:
        if entry not in self.entries:
            self.entries.append(entry)
        return self.entries.index(entry)

    def checkpoint(self, size: int | None = None) -> bytes:
        leaves = self.leaves[:size]
        tree = Checkpoint(origin=LOG.name, size=len(leaves), root=merkle.root(leaves))
        text = tree.text()
        lines = [LOG.signature(text)]
        return note.format(
            text, [*lines, WITNESS.cosignature(text, COSIGNED_S)] if self.cosigned else lines
        )

    @property
    def leaves(self) -> list[bytes]:
        return [merkle.leaf_hash(entry) for entry in self.entries]

    def statements(self, first_line: str) -> list[bytes]:
        """Entries of one type, in order."""
        return [one for one in self.entries if one.startswith(f"{first_line}\n".encode())]

    def tile(self, path: str) -> bytes:
        tile = Tile.parse(path)
        if tile.level is None:
            return encode_bundle(self.entries[tile.start : tile.start + tile.width])
        span = 1 << TILE_HEIGHT * tile.level
        leaves = self.leaves
        begins = range(tile.start, tile.start + tile.width * span, span)
        return b"".join(merkle.root(leaves[begin : begin + span]) for begin in begins)

    async def _add(self, call: Call) -> None:
        self.added += 1
        await call.reply(200, b"%d\n" % self.append(await call.body(ENTRY_BYTES_MAX)), TEXT_TYPE)

    async def _checkpoint(self, call: Call) -> None:
        await call.reply(200, self.checkpoint(), TEXT_TYPE)

    async def _tile(self, call: Call) -> None:
        await call.reply(200, self.tile(call.path.removeprefix("/")))


class OpeningNode:
    """A node that has answered, and is asked to open."""

    def __init__(self, log: SmallLog, verifiers: Sequence[Signer], toy: Toy | None = None) -> None:
        self.log = log
        self.toy = toy or Toy()
        self.behaviour = "opens"
        """Or one of ``REFUSALS``, ``not_audited``, ``not_kept``, ``expired``, ``lies`` (opens
        another receipt), ``cheats``, ``private`` (shows a leaf alone), ``made up`` (shows one that
        is nowhere)."""
        self.asked = 0
        self.stated: dict[str, object] = {}
        """What its self-test says otherwise."""
        self.logs_self_test = True
        self.counts = True
        """Its batches say how many of their receipts may be audited."""
        self._verifiers = {one.name: one.vkey for one in verifiers}
        self._kept: dict[tuple[str, int], tuple[SignedReceipt, Made]] = {}
        self.router = Router(_refuse)
        self.router.add("POST", OPENINGS_PATH, self._open)
        self.router.add("GET", SELF_TEST_PATH, self._self_test)
        self.router.add("GET", INFO_PATH, self._info)
        log.append(sign_note(commitment().text(), NODE))
        self.state(*verifiers)

    def state(self, *verifiers: Signer, **changes: object) -> None:
        """Log terms that let ``verifiers`` draw everything, of a node that counts what may be
        audited."""
        lets = {"rate_ppm": 1_000_000, "demands_per_min": 60_000, "counts": True, "whole": True}
        lets |= changes
        self.log.append(sign_note(terms(*verifiers, node=NODE, **lets).text(), NODE))

    def answer(self, *made: Made, audited: int | None = None) -> list[SignedReceipt]:
        """Sign receipts as one batch, and log it, the self-test before the first. Those that may be
        audited come first, and so they are returned. ``audited``: how many it says that they are,
        where that is not so."""
        if self.logs_self_test:
            self.log.append(self.self_test())
        builder = BatchBuilder(NODE.name)
        ordered = sorted(made, key=lambda one: not one.receipt.policy.audit)
        for one in ordered:
            builder.add(encode(one.receipt))
        may = sum(one.receipt.policy.audit for one in made) if audited is None else audited
        sealed = builder.seal(
            previous=None,
            unix_ms=time.time_ns() // 1_000_000,
            audited=may if self.counts else None,
        )
        signed = sealed.signed(sign_note(sealed.text, NODE))
        for one, kept in zip(signed, ordered, strict=True):
            self._kept[sealed.root.hex(), one.index] = one, kept
        self.log.append(signed[0].batch.encode())
        return list(signed)

    def shows(self, signed: SignedReceipt, batch: bytes) -> None:
        """Open a receipt with another ``batch`` note over the same root than the log has."""
        place = Batch.parse(note.parse(batch).text).root.hex(), signed.index
        _, made = self._kept[place]
        self._kept[place] = msgspec.structs.replace(signed, batch=batch.decode()), made

    async def _open(self, call: Call) -> None:
        self.asked += 1
        demand = msgspec.json.decode(await call.body(DEMAND_BYTES_MAX), type=Demand)
        claimed = note.parse(demand.demand.encode()).signatures[0].name
        open_demand(demand, self._verifiers[claimed], NODE.name)
        assert demand.draw.encode() in self.log.entries, "demanded before the draw was logged"
        if self.behaviour in REFUSALS:
            raise RequestError("no", code=REFUSALS[self.behaviour], status=403)
        openings = tuple(self._opening(one.batch, one.index) for one in demand.receipts)
        await call.reply_json(200, Openings(openings=openings))

    def _opening(self, batch: str, index: int) -> Opening:
        signed, made = self._kept[batch, index]
        if self.behaviour == "lies":
            signed, made = next(iter(self._kept.values()))
        if self.behaviour in ("private", "made up"):
            leaf = made.leaf.hex() if self.behaviour == "private" else "00" * 32
            return Opening(
                batch=batch, index=index, leaf=leaf, path=signed.path, reason="not_audited"
            )
        content = made.content
        if self.behaviour == "cheats":
            first, *rest = content.tokens[0]
            content = msgspec.structs.replace(content, tokens=((first ^ 1, *rest),))
        if self.behaviour in ("not_audited", "not_kept", "expired"):
            return Opening(batch=batch, index=index, signed=signed, reason=self.behaviour)
        return Opening(batch=batch, index=index, signed=signed, content=content)

    def self_test(self) -> bytes:
        """Signed: what its engine computes, or is ``stated`` to compute."""
        info = self.toy.info
        said = SelfTest(
            bits=digest(repr(self.toy).encode()),
            cpu="toy",
            engine="toy",
            key=str(NODE.vkey),
            model=info.name,
            numerics=info.numerics,
            unix_ms=1,
            weights=info.weights_digest,
        )
        return sign_note(msgspec.structs.replace(said, **self.stated).text(), NODE)

    async def _self_test(self, call: Call) -> None:
        await call.reply(200, self.self_test(), TEXT_TYPE)

    async def _info(self, call: Call) -> None:
        info = self.toy.info
        model = ServedModel(
            name=info.name,
            kind="chat",
            provider="embedded",
            weights=info.weights_digest,
            numerics=info.numerics,
            context_tokens=info.context_tokens,
        )
        await call.reply_json(
            200,
            NodeInfo(
                node=NODE.name, operator="alpha.example", key=str(NODE.vkey), models=(model,),
                log=LOG.name, ready=True, running=0, queued=0,
            ),
        )  # fmt: skip


class ToyEngine(ToyScorer):
    """The toy, as a process that an engine pool can start. It says of itself that it computes like
    any other, and does not if it is bent: a verifier that is wrong, or lies."""

    pid = None

    async def self_test(self) -> str:
        return await ToyScorer().self_test()


class LazyEngine(ToyEngine):
    """Of a verifier that runs no model: every token is found to be just the right one."""

    async def score(self, job: Score) -> tuple[TokenScore, ...]:
        return tuple(
            TokenScore(
                token=token, position=position, margin=0.0, kept=True, decided=True,
                entropy=1.0, end=0.0,
            )
            for position, token in enumerate(job.tokens)
        )  # fmt: skip


def calibrations() -> list[Calibration]:
    """Between toys of the same weights: honest answers of an exact engine never mismatch."""
    info = Toy().info
    clean = Trials(bins=(0,), ends=(1000,), margins=(0,), mismatches=0, tokens=1)
    parties = Parties(
        configuration="toy exact",
        model=info.name,
        node="toy-",
        verifier="toy-",
        weights=info.weights_digest,
    )
    return [
        build([clean] * 2000, parties=parties, regime="exact", prompts=digest(b""), seeds="none")
    ]


def write_verifier(
    folder: Path,
    signer: Signer,
    *,
    log_url: str,
    node_url: str,
    peers: Sequence[tuple[Signer, str]] = (),
    **settings: object,
) -> Path:
    """Make a verifier's folder; its configuration file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "policy").write_text(POLICY)
    (folder / "key").write_text(signer.skey())
    (folder / "key").chmod(0o600)
    (folder / "calibrations").mkdir(exist_ok=True)
    for number, one in enumerate(calibrations()):
        (folder / "calibrations" / f"{number}.json").write_bytes(encode_calibration(one))
    defaults: dict[str, object] = {
        "rate_ppm": 1_000_000,
        "poll_s": 0.05,
        "reveal_after_s": 0.2,
        "opening_s": 0.05,
        "unreachable_s": 0.05,
        "lease_s": 30.0,
        "probe_per_minute": 0.0,
    }
    config = VerifierConfig(
        name=signer.name,
        operator=signer.name.partition("/")[0],
        listen="127.0.0.1:0",
        policy_file="policy",
        log_url=log_url,
        calibrations="calibrations",
        nodes=(AuditedNode(url=node_url, vkey=str(NODE.vkey), operator="alpha.example"),),
        verifiers=tuple(
            PeerVerifier(url=url, vkey=str(one.vkey), operator=one.name.partition("/")[0])
            for one, url in peers
        ),
        **(defaults | settings),  # type: ignore[arg-type]
    )
    path = folder / "verifier.toml"
    path.write_text(render(config))
    if not (folder / "verifier.db").exists():
        create_store(folder)
    return path


@dataclass(kw_only=True)
class ToyNetwork:
    """What runs."""

    folder: Path
    log: SmallLog
    node: OpeningNode
    log_url: str
    node_url: str
    stack: AsyncExitStack
    toys: dict[str, Toy] = field(default_factory=dict)
    lazy: set[str] = field(default_factory=set)
    """Names of verifiers that never run the model."""

    async def verifier(
        self,
        signer: Signer,
        peers: Sequence[tuple[Signer, str]] = (),
        *,
        folder: str = "",
        **settings: object,
    ) -> str:
        """Start a verifier in this process, with a store of its own in ``folder`` (by default,
        its name's); its base URL."""
        path = write_verifier(
            self.folder / (folder or signer.name.replace("/", "-")),
            signer,
            log_url=self.log_url,
            node_url=self.node_url,
            peers=peers,
            **settings,
        )
        app = app_of(path, self.toys.get(signer.name), lazy=signer.name in self.lazy)
        return await self.stack.enter_async_context(serving(app, shutdown_grace_s=0.05))


def app_of(path: Path, toy: Toy | None = None, *, lazy: bool = False) -> VerifierApp:
    """A verifier with the toy for an engine."""
    engine = LazyEngine if lazy else ToyEngine
    return VerifierApp(read(path), base=path, engines=[lambda: engine(toy)])


@asynccontextmanager
async def toy_network(folder: Path) -> AsyncIterator[ToyNetwork]:
    """A log and a node; verifiers are added."""
    log = SmallLog()
    node = OpeningNode(log, (LAMBDA, MU, NU))
    async with AsyncExitStack() as stack:
        log_url = await stack.enter_async_context(serving(RoutedApp(log.router)))
        node_url = await stack.enter_async_context(serving(RoutedApp(node.router)))
        yield ToyNetwork(
            folder=folder, log=log, node=node, log_url=log_url, node_url=node_url, stack=stack
        )


async def revealed(caller: VerifierCaller, count: int, after: int = 0) -> list[RevealedVerdict]:
    """So many verdicts with numbers above ``after``, by long polls: as long as it takes."""
    found: list[RevealedVerdict] = []
    while len(found) < count:
        found += (await caller.verdicts(after + len(found), 10)).verdicts
    return found


def honest(number: int) -> Made:
    """An honest answer."""
    return ToyNode().serve(number)


async def _refuse(call: Call, error: Error) -> None:
    said = NodeError(code=error.error_code, message="", retryable=False, status=http_status(error))
    await call.reply_json(said.status, NodeErrorBody(error=said))
