"""A batch is read by what its node had stated when it was signed, however late the log has it."""

import msgspec
import pytest
from tests.support.auditing import NODE, Made, ToyNode
from tests.support.toy_network import LAMBDA, ToyNetwork, revealed

from trunkline.audit.judge import OTHER_CONTEXT
from trunkline.crypto.signer import sign_note
from trunkline.inference.rules import RULES
from trunkline.receipts.batch import open_batch
from trunkline.remote.http1 import HttpTransport
from trunkline.remote.verifier import VerifierCaller
from trunkline.schema.attempt import SignedReceipt
from trunkline.schema.audit import AskedAudit
from trunkline.verdicts import Verdict

ROOM = 40
ENDLESS: dict[str, object] = {"max_tokens": None, "temperature": 0.5}


def signs(network: ToyNetwork, made: Made) -> tuple[SignedReceipt, int]:
    """Answer and keep the batch from the log; its receipt, and a date after the batch's."""
    (signed,) = network.node.answer(made)
    assert network.log.entries.pop() == signed.batch.encode()
    return signed, open_batch(signed.batch.encode(), NODE.vkey).unix_ms + 1


async def verdict_of(network: ToyNetwork, transport: HttpTransport) -> Verdict:
    caller = VerifierCaller(transport, await network.verifier(LAMBDA))
    (found,) = await revealed(caller, 1)
    return Verdict.open_note(found.note.encode(), LAMBDA.vkey)


def result(verdict: Verdict, name: str) -> str:
    (found,) = [check.result for check in verdict.checks if check.name == name]
    return found


@pytest.mark.parametrize(("rules", "later"), [(RULES, RULES + 1), (RULES + 1, RULES)])
async def test_terms_hold_for_what_was_signed_under_them_though_the_log_has_others_first(
    network: ToyNetwork, transport: HttpTransport, rules: int, later: int
) -> None:
    """A node can not have an answer with a hidden prompt read by other rules, by logging it late;
    and who upgrades while the log is away is not held to rules that made no such answer."""
    network.node.state(LAMBDA, rules=rules)
    signed, after_ms = signs(network, ToyNode(hidden="ba da ba").serve(3))
    network.node.state(LAMBDA, rules=later, unix_ms=after_ms)
    network.log.append(signed.batch.encode())
    verdict = await verdict_of(network, transport)
    assert verdict.result == ("fail" if rules == RULES else "inconclusive")


async def test_a_batch_has_the_date_that_the_log_has_whatever_the_node_shows(
    network: ToyNetwork, transport: HttpTransport
) -> None:
    """Else a node could sign the same receipts under another date once one of them is drawn."""
    network.node.state(LAMBDA, rules=RULES + 1)
    _, stated_ms = signs(network, ToyNode().serve(2))
    network.node.state(LAMBDA, rules=RULES, unix_ms=stated_ms)
    (signed,) = network.node.answer(ToyNode(hidden="ba da ba").serve(3))
    logged = open_batch(signed.batch.encode(), NODE.vkey)
    assert logged.unix_ms >= stated_ms
    earlier = msgspec.structs.replace(logged, unix_ms=stated_ms - 1)
    network.node.shows(signed, sign_note(earlier.text(), NODE))
    verdict = await verdict_of(network, transport)
    assert verdict.result == "fail"


async def test_nobody_has_to_open_what_was_answered_before_he_said_that_it_may_be_drawn(
    network: ToyNetwork, transport: HttpTransport
) -> None:
    network.node.behaviour = "not_kept"
    signed, after_ms = signs(network, ToyNode().serve(3))
    first = network.log.statements("trunkline.terms/v1")[0]
    network.log.entries.remove(first)
    network.node.state(LAMBDA, unix_ms=after_ms)
    network.log.append(signed.batch.encode())
    verdict = await verdict_of(network, transport)
    assert (verdict.result, verdict.standing) == ("not_applicable", "open")
    assert result(verdict, "terms") == "not_applicable"


@pytest.mark.parametrize(
    ("room", "later_room", "expected"),
    [(ROOM, 512, "pass"), (512, ROOM, "inconclusive"), (512, 512, "fail")],
)
async def test_an_engine_has_the_room_that_was_stated_when_the_answer_was_signed(
    network: ToyNetwork, transport: HttpTransport, room: int, later_room: int, expected: str
) -> None:
    network.node.stated = {"context_tokens": room}
    made = ToyNode(context_tokens=ROOM).serve(4, **ENDLESS)
    assert made.receipt.response.finish == ("length",)
    signed, after_ms = signs(network, made)
    network.node.stated = {"context_tokens": later_room, "unix_ms": after_ms}
    network.log.append(network.node.self_test())
    network.log.append(signed.batch.encode())
    verdict = await verdict_of(network, transport)
    assert result(verdict, "finish") == expected
    if expected == "inconclusive":
        (found,) = [check.detail for check in verdict.checks if check.name == "finish"]
        assert found == OTHER_CONTEXT


async def test_who_asks_about_an_answer_from_before_a_restart_has_it_read_as_it_was_made(
    network: ToyNetwork, transport: HttpTransport
) -> None:
    made = ToyNode(hidden="ba da ba").serve(3)
    signed, after_ms = signs(network, made)
    network.node.state(LAMBDA, rules=RULES + 1, unix_ms=after_ms)
    caller = VerifierCaller(transport, await network.verifier(LAMBDA, rate_ppm=0))
    while (await caller.info()).followed < len(network.log.entries):
        await caller.verdicts(0, 0.05)
    asked = AskedAudit(signed=signed, content=made.content, deadline_ms=60_000)
    assert (await caller.audit(asked, 90)).result == "fail"
