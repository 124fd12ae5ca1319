"""The vectors beside the specification are what the script makes, and what the code makes of them.

The rules of the draw are written here a second time, out of the specification.
"""

import hashlib
import json
from typing import Any

import msgspec
import pytest
from tests.unit.verdicts import make_vectors as made

from trunkline.base.errors import MalformedError
from trunkline.crypto.keys import VerifierKey
from trunkline.schema.audit import Demand, WantedReceipt
from trunkline.tlog.policy import Policy
from trunkline.verdicts import (
    Draw,
    Drawn,
    Verdict,
    check_draw,
    check_reveal,
    open_demand,
    opinions,
    plain_checkpoint,
)

DOCUMENT: dict[str, Any] = json.loads(made.VECTORS.read_text())
NOTES = {record["name"]: record["note"].encode() for record in DOCUMENT["records"]}
KEYS = {record["name"]: VerifierKey.parse(record["vkey"]) for record in DOCUMENT["records"]}
DRAW = DOCUMENT["draw"]


def test_the_file_is_up_to_date() -> None:
    assert made.VECTORS.read_text() == made.document(), (
        "run: python -m tests.unit.verdicts.make_vectors"
    )


def test_each_record_is_opened_by_its_key() -> None:
    for name, (record, _) in made.records().items():
        assert type(record).open_note(NOTES[name], KEYS[name]) == record


def test_digests_are_of_the_whole_note() -> None:
    for record in DOCUMENT["records"]:
        hashed = hashlib.sha256(record["note"].encode()).hexdigest()
        assert record["digest"] == f"sha256:{hashed}"


def test_the_draw_is_what_the_specification_says() -> None:
    draw = Draw.open_note(NOTES["draw"], KEYS["draw"])
    assert draw.checkpoint == DRAW["plain"]
    chance = hashlib.sha256(b"trunkline.draw/v1\n" + DRAW["plain"].encode()).digest()
    assert chance.hex() == DRAW["randomness"]
    chosen: dict[str, list[int]] = {}
    for entry in range(draw.from_, draw.to):
        for index in range(DRAW["count"]):
            place = entry.to_bytes(8, "big") + index.to_bytes(4, "big")
            first = hashlib.sha256(chance + place).digest()[:8]
            if int.from_bytes(first, "big") * 1_000_000 < draw.rate_ppm * 2**64:
                chosen.setdefault(str(entry), []).append(index)
    assert chosen == DRAW["chosen"]
    found = {str(entry): draw.chosen(entry, DRAW["count"]) for entry in range(made.SIZE + 1)}
    assert {entry: list(one) for entry, one in found.items() if one} == chosen
    verdict = Verdict.open_note(NOTES["verdict"], KEYS["verdict"])
    assert isinstance(verdict.drawn, Drawn)
    assert verdict.drawn.index in chosen[str(verdict.drawn.entry)]


def test_a_chain_is_what_the_specification_says() -> None:
    def back(value: bytes) -> bytes:
        return hashlib.sha256(b"trunkline.draw-chain/v1\n" + value).digest()

    draw = Draw.open_note(NOTES["draw_chained"], KEYS["draw_chained"])
    (shown,) = draw.bound if isinstance(draw.bound, tuple) else ()
    values = {draw.to - 1: bytes.fromhex(shown.link)}
    for entry in range(draw.to - 2, shown.first - 2, -1):
        values[entry] = back(values[entry + 1])
    assert values.pop(shown.first - 1).hex() == shown.anchor
    unchained = bytes.fromhex(DRAW["randomness"])
    chosen: dict[str, list[int]] = {}
    for entry in range(draw.from_, draw.to):
        chance = unchained
        if entry in values:
            chance = hashlib.sha256(b"trunkline.draw-chance/v1\n" + values[entry]).digest()
            assert DRAW["chained"]["chance"].get(str(entry), chance.hex()) == chance.hex()
        for index in range(DRAW["count"]):
            place = entry.to_bytes(8, "big") + index.to_bytes(4, "big")
            first = hashlib.sha256(chance + place).digest()[:8]
            if int.from_bytes(first, "big") * 1_000_000 < draw.rate_ppm * 2**64:
                chosen.setdefault(str(entry), []).append(index)
    assert chosen == DRAW["chained"]["chosen"]
    found = {str(entry): draw.chosen(entry, DRAW["count"]) for entry in range(made.SIZE + 1)}
    assert {entry: list(one) for entry, one in found.items() if one} == chosen


def test_strangers_lines_are_left_out_of_the_draw() -> None:
    policy = Policy.parse(DOCUMENT["policy"])
    assert plain_checkpoint(DRAW["checkpoint"].encode(), policy).decode() == DRAW["plain"]
    check_draw(Draw.open_note(NOTES["draw"], KEYS["draw"]), policy)


def test_opinions_are_ranked_as_the_specification_says() -> None:
    chance, leaf = bytes.fromhex(DRAW["randomness"]), bytes.fromhex(DRAW["leaf"])
    operators: dict[str, str] = DRAW["verifiers"]
    for by, expected in DRAW["opinions"].items():
        assert list(opinions(chance, leaf, operators, by, 3)) == expected
        others = sorted(
            operators.keys() - {by},
            key=lambda name: hashlib.sha256(chance + leaf + name.encode()).digest(),
        )
        seconds = [name for name in others if operators[name] != operators[by]]
        assert expected[:2] == [by, seconds[0]]


def test_the_commitment_is_to_the_verdict() -> None:
    verdict = Verdict.open_note(NOTES["verdict"], KEYS["verdict"])
    commitment = made.records()["commitment"][0]
    assert isinstance(commitment, made.make.Commitment)
    check_reveal(commitment, verdict, NOTES["verdict"])


def test_the_demand_is_for_these_receipts() -> None:
    wanted = msgspec.convert(DOCUMENT["demanded"]["receipts"], tuple[WantedReceipt, ...])
    asked = Demand(draw=NOTES["draw"].decode(), receipts=wanted, demand=NOTES["demand"].decode())
    open_demand(asked, KEYS["demand"], DOCUMENT["demanded"]["node"])
    inner = hashlib.sha256(NOTES["draw"]).digest()
    for one in wanted:
        inner += bytes.fromhex(one.batch) + one.index.to_bytes(4, "big")
    digest = hashlib.sha256(b"trunkline.demanded/v1\n" + inner).hexdigest()
    assert f'"digest":"sha256:{digest}"'.encode() in NOTES["demand"]


@pytest.mark.parametrize("case", DOCUMENT["not_a_verdict"], ids=lambda case: case["name"])
def test_what_is_no_verdict_is_refused(case: dict[str, str]) -> None:
    with pytest.raises(MalformedError):
        Verdict.open_note(case["note"].encode(), KEYS["verdict"])
