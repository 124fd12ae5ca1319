"""Plants at a node that serves: whom it answers wrongly, and that it does so nobody else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import time_ns

import msgspec
import pytest
from tests.support.audit_records import OTHER, VERIFIER
from tests.unit.node.harness import KEY, SIGNER, Node, attempt, chat
from tests.unit.node.scripted import MODEL, ScriptedEngine
from tests.unit.node.test_openings import audited, audits

from trunkline.base.errors import RateLimitedError, RequestError
from trunkline.crypto.digest import digest
from trunkline.crypto.signer import Signer, sign_note
from trunkline.node.config import AuditsConfig, CacheConfig
from trunkline.node.plants import DAY_MS, FRESH_MS, PlantDesk
from trunkline.receipts import Hiding, decode
from trunkline.remote.node import NodeRefusedError
from trunkline.sampling import choice_seed
from trunkline.schema.attempt import Attempt, PreviousAttempt, Resume
from trunkline.verdicts import Plant, PlantAccepted, plant_digest

BLINDING = "b1" * 32
STRANGER = Signer("evil.example/verifier", b"\x66" * 32)


def plant(number: int = 1, signer: Signer = VERIFIER, **changes: object) -> bytes:
    made = Plant(
        attempt=f"att_{number}",
        expect="fail",
        key=str(signer.vkey),
        node=str(KEY),
        operator="gamma.example",
        unix_ms=time_ns() // 1_000_000,
    )
    return sign_note(msgspec.structs.replace(made, **changes).text(), signer)


def ask(note: bytes, number: int = 1, **changes: object) -> Attempt:
    """The planter's attempt, which binds its plant."""
    asked = attempt(chat("say something", temperature=1.0), number=number)
    hiding = Hiding(BLINDING, answer=asked.answer, attempt=asked.attempt)
    bound = hiding.bind("request.client", plant_digest(note))
    given = {"audit": True, "blinding": BLINDING, "client_request_digest": bound}
    return msgspec.structs.replace(asked, **(given | changes))


@asynccontextmanager
async def planted(
    folder: Path, config: AuditsConfig, *, cache: CacheConfig | None = None
) -> AsyncIterator[tuple[Node, ScriptedEngine]]:
    engine = ScriptedEngine()
    async with audited(folder, config, engine=engine, cache=cache) as running:
        yield running, engine


async def computed_by_its_seed(running: Node, engine: ScriptedEngine, asked: Attempt) -> bool:
    """Whether the tokens came from the seed that the receipt says."""
    heard = await running.hear(asked)
    assert heard.signed is not None, heard.error
    said = bytes.fromhex(decode(heard.signed.receipt.encode()).sampling.seed)
    return engine.jobs[-1].sampling.seed == choice_seed(said, 0)


async def test_a_plant_s_own_attempt_is_answered_wrongly_and_no_other(tmp_path: Path) -> None:
    note = plant()
    async with planted(tmp_path, audits(plants_per_day=24), cache=CacheConfig()) as (
        running,
        engine,
    ):
        accepted = PlantAccepted.open_note(await running.caller.plant(note), KEY)
        assert accepted.plant == digest(note)
        assert await computed_by_its_seed(running, engine, ask(note, 2))
        assert not await computed_by_its_seed(running, engine, ask(note))
        assert await computed_by_its_seed(running, engine, ask(note, 3))


@pytest.mark.parametrize(
    "changes",
    [
        {"client_request_digest": "sha256:" + "0" * 64},
        {"blinding": ""},
        {"audit": False},
        {
            "seed": "ab" * 32,
            "numerics": MODEL.numerics,
            "resume": Resume(tokens=((80,),)),
            "previous": (PreviousAttempt(attempt="att_0", node="beta", error="timeout"),),
        },
        {"cache": "ca" * 32},
        {"request": msgspec.Raw(msgspec.json.encode({"model": "scripted"} | chat(temperature=0)))},
    ],
)
async def test_no_user_s_attempt_is_answered_wrongly(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    """One that does not bind the plant is a gateway's. What is given again, taken over or right in
    any case is refused too."""
    note = plant()
    async with planted(tmp_path, audits(plants_per_day=24), cache=CacheConfig()) as (
        running,
        engine,
    ):
        await running.caller.plant(note)
        with pytest.raises(NodeRefusedError) as refused:
            await running.hear(ask(note, **changes))
    assert refused.value.error_code == "plant_refused"
    assert engine.jobs == []


@pytest.mark.parametrize(
    ("note", "code"),
    [
        (plant(signer=STRANGER), "plant_refused"),
        (plant(node=str(STRANGER.vkey)), "plant_refused"),
        (plant(expect="pass"), "plant_refused"),
        (plant(unix_ms=1), "plant_stale"),
        (b"a plant", "invalid_plant"),
    ],
)
async def test_what_is_not_agreed_to(tmp_path: Path, note: bytes, code: str) -> None:
    async with planted(tmp_path, audits(plants_per_day=24)) as (running, _):
        with pytest.raises(NodeRefusedError) as refused:
            await running.caller.plant(note)
    assert refused.value.error_code == code


async def test_a_node_whose_operator_wants_none_agrees_to_none(tmp_path: Path) -> None:
    async with planted(tmp_path, audits()) as (running, _):
        with pytest.raises(NodeRefusedError) as refused:
            await running.caller.plant(plant())
    assert refused.value.error_code == "not_found"


class Hands:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now_ms = 1_780_000_000_000

    def unix_ms(self) -> int:
        return self.now_ms

    def monotonic_s(self) -> float:
        return self.now_ms / 1000


def desk(clock: Hands, per_day: int = 2) -> PlantDesk:
    return PlantDesk(SIGNER, (VERIFIER.vkey, OTHER.vkey), per_day=per_day, clock=clock)


def test_each_verifier_has_so_many_a_day() -> None:
    clock = Hands()
    made = desk(clock)
    for number in (1, 2):
        made.agree(plant(number, unix_ms=clock.now_ms))
    with pytest.raises(RateLimitedError) as refused:
        made.agree(plant(3, unix_ms=clock.now_ms))
    assert refused.value.retry_after_s == DAY_MS / 1000
    made.agree(plant(3, OTHER, unix_ms=clock.now_ms))
    clock.now_ms += DAY_MS
    made.agree(plant(4, unix_ms=clock.now_ms))


def test_a_plant_is_for_one_attempt_and_one_time() -> None:
    clock = Hands()
    made = desk(clock)
    note = plant(unix_ms=clock.now_ms)
    made.agree(note)
    with pytest.raises(RequestError, match="already"):
        made.agree(plant(1, OTHER, unix_ms=clock.now_ms))
    seed = b"s" * 32
    assert made.seed(ask(note), seed, temperature=1.0) != seed
    assert made.seed(ask(note), seed, temperature=1.0) == seed
    other = plant(2, unix_ms=clock.now_ms)
    made.agree(other)
    clock.now_ms += FRESH_MS + 1
    assert made.seed(ask(other, 2), seed, temperature=1.0) == seed
