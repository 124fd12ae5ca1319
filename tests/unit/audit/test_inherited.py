"""Seeds that were taken over: shown by the node that began the answer, or left open; and never the
fault of who took over, as long as the seed is made from the nonce that it states."""

from dataclasses import replace

import msgspec
import pytest
from tests.support.auditing import (
    NODE,
    NONCES,
    SECRET,
    Made,
    ToyNode,
    commitment,
    exact,
    saying,
)

from trunkline.audit.judge import Judged, judge
from trunkline.audit.nonces import Origin
from trunkline.crypto import merkle
from trunkline.crypto.encoding import encode_base64
from trunkline.crypto.signer import Signer, sign_note
from trunkline.receipts import bound_bytes
from trunkline.receipts.nonces import nonce_leaves
from trunkline.sampling import answer_seed
from trunkline.schema.audit import ShownNonce

CALIBRATION = exact()
BETA = Signer("beta.example/node", b"\x22" * 32)
AT = 3
"""Number of the answer, and of its nonce."""


def taken_over() -> Made:
    return ToyNode().serve(AT, given=(4,))


def shown(signer: Signer = BETA, index: int = AT) -> ShownNonce:
    """As ``GET /v1/nonces/…`` of the node that began the answer."""
    leaves = nonce_leaves(SECRET, NONCES)
    note = sign_note(msgspec.structs.replace(commitment(), node=signer.name).text(), signer)
    return ShownNonce(
        note=note.decode(),
        index=index,
        leaf=encode_base64(leaves[index]),
        path=tuple(map(encode_base64, merkle.audit_path(leaves, index))),
    )


ORIGIN = Origin(key=BETA.vkey, shown=shown())


def but_shown(**members: object) -> Origin:
    return replace(ORIGIN, shown=msgspec.structs.replace(ORIGIN.shown, **members))


async def judged(made: Made, **changes: object) -> Judged:
    case = await made.case(CALIBRATION)
    return judge(replace(case, **({"nonce_origin": ORIGIN} | changes)), None)  # type: ignore[arg-type]


def nonce_of(found: Judged) -> str:
    (check,) = [check for check in found.checks if check.name == "nonce"]
    return check.result


async def test_shown_by_the_node_that_began_the_answer_it_passes() -> None:
    found = await judged(taken_over())
    assert (found.result, nonce_of(found)) == ("pass", "pass"), found.checks


STRANGER = Signer("iota.example/node", b"\x23" * 32)


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce_origin": None},
        {"nonces_entry": None},
        {"nonces_entry": 10},
        {"nonce_origin": Origin(key=BETA.vkey, shown=shown(index=AT + 1))},
        {"nonce_origin": Origin(key=BETA.vkey, shown=shown(STRANGER))},
        {"nonce_origin": Origin(key=STRANGER.vkey, shown=shown(STRANGER))},
        {"nonce_origin": Origin(key=NODE.vkey, shown=shown(NODE))},
        {"nonce_origin": but_shown(leaf="x")},
        {"nonce_origin": but_shown(path=())},
        {"nonce_origin": but_shown(note="\ud800")},
    ],
    ids=[
        "nobody asked", "not in the log", "later in the log", "another place", "another's note",
        "not of the route", "the one that took over", "no leaf", "no path", "no text",
    ],
)  # fmt: skip
async def test_what_is_not_shown_is_left_open(changes: dict[str, object]) -> None:
    found = await judged(taken_over(), **changes)
    assert (found.result, nonce_of(found)) == ("inconclusive", "inconclusive")
    assert found.standing == "open"


async def test_a_nonce_that_the_first_node_never_committed_to_does_not_pass() -> None:
    """A takeover under a nonce of somebody's choice, whose seed fits it."""
    made = taken_over()
    receipt = made.receipt
    chosen = "77" * 32
    seed = answer_seed(
        bytes.fromhex(receipt.sampling.caller_nonce),
        bytes.fromhex(chosen),
        bound_bytes(receipt.request.digest),
    )
    lying = saying(made, "sampling", node_nonce=chosen, seed=seed.hex())
    found = await judged(lying)
    assert nonce_of(found) == "inconclusive"
    assert found.result == "fail", "and the tokens are not those of that seed"
    assert {check.name for check in found.checks if check.result == "fail"} == {"replay"}


async def test_a_takeover_under_another_seed_fails() -> None:
    lying = saying(taken_over(), "sampling", seed="12" * 32)
    found = await judged(lying)
    assert "seed" in {check.name for check in found.checks if check.result == "fail"}
    assert found.standing == "failed"


async def test_handing_on_a_nonce_twice_is_not_the_fault_of_who_is_handed_it() -> None:
    found = await judged(taken_over(), nonce_used_by="ans_before")
    assert (found.result, found.standing) == ("inconclusive", "open")


async def test_who_asks_before_the_log_has_it_is_not_held_to_a_commitment() -> None:
    found = await judged(taken_over(), nonce_origin=None, entry=None, nonces_entry=None)
    assert nonce_of(found) == "not_applicable"


async def test_without_a_commitment_it_is_left_open() -> None:
    made = saying(taken_over(), "sampling", nonces="", nonce_index=0)
    assert nonce_of(await judged(made)) == "inconclusive"
