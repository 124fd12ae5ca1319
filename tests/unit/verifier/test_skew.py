"""Honest nodes of other versions, with other engines or less room: none of them fails for it."""

from collections.abc import Mapping

import pytest
from tests.support.auditing import Made, Toy, ToyNode, saying
from tests.support.toy_network import LAMBDA, ToyNetwork, honest, revealed

from trunkline.audit import recompute
from trunkline.audit.judge import OTHER_CONTEXT, OTHER_RULES
from trunkline.inference.rules import RULES
from trunkline.remote.http1 import HttpTransport
from trunkline.remote.verifier import VerifierCaller
from trunkline.schema.audit import AskedAudit
from trunkline.verdicts import Verdict
from trunkline.verifier import auditing

ROOM = 40
LATER_MS = 2_000_000_000_000
ENDLESS: dict[str, object] = {"max_tokens": None, "temperature": 0.5}


async def verdict_on(made: Made, network: ToyNetwork, transport: HttpTransport) -> Verdict:
    """The only verifier's, with its numbers computed again."""
    network.node.answer(made)
    return await verdict_of(network, transport)


async def verdict_of(network: ToyNetwork, transport: HttpTransport) -> Verdict:
    """On the only answer that there is."""
    caller = VerifierCaller(transport, await network.verifier(LAMBDA))
    (found,) = await revealed(caller, 1)
    verdict = Verdict.open_note(found.note.encode(), LAMBDA.vkey)
    measure = await caller.calibration(verdict.calibration)
    recompute.verdict(verdict, await caller.bundle(verdict.receipt), measure)
    return verdict


def by_name(verdict: Verdict) -> dict[str, tuple[str, str]]:
    return {check.name: (check.result, check.detail) for check in verdict.checks}


@pytest.mark.parametrize("hidden", ["", "ba da ba"])
async def test_answers_by_other_rules_are_not_held_against_anybody_and_never_pass(
    network: ToyNetwork, transport: HttpTransport, hidden: str
) -> None:
    """A node of another version renders prompts in another way, which looks like a hidden one."""
    network.node.state(LAMBDA, rules=RULES + 1)
    verdict = await verdict_on(ToyNode(hidden=hidden).serve(3), network, transport)
    assert (verdict.result, verdict.standing) == ("inconclusive", "open")
    found = by_name(verdict)
    for name in ("response", "sampler", "template", "finish", "canonical", "replay"):
        assert found[name] == ("inconclusive", OTHER_RULES)
    for name in ("request", "prompt", "tokens", "usage", "seed", "nonce"):
        assert found[name][0] == "pass"


@pytest.mark.parametrize("rules", [{}, {"rules": RULES}])
async def test_the_same_rules_hold_for_a_node_that_states_them_or_none(
    network: ToyNetwork, transport: HttpTransport, rules: Mapping[str, object]
) -> None:
    network.node.state(LAMBDA, **rules)
    verdict = await verdict_on(ToyNode(hidden="ba da ba").serve(3), network, transport)
    assert (verdict.result, verdict.standing) == ("fail", "failed")
    assert by_name(verdict)["template"][0] == "fail"


async def test_terms_hold_for_the_answers_after_them(
    network: ToyNetwork, transport: HttpTransport
) -> None:
    made = ToyNode(hidden="ba da ba").serve(3)
    network.node.state(LAMBDA, rules=RULES + 1)
    network.node.answer(made)
    network.node.state(LAMBDA)
    caller = VerifierCaller(transport, await network.verifier(LAMBDA))
    (found,) = await revealed(caller, 1)
    assert Verdict.open_note(found.note.encode(), LAMBDA.vkey).result == "inconclusive"


async def test_who_asks_about_an_answer_by_other_rules_is_told_so(
    network: ToyNetwork, transport: HttpTransport
) -> None:
    network.node.state(LAMBDA, rules=RULES + 1)
    made = ToyNode().serve(3)
    caller = VerifierCaller(transport, await network.verifier(LAMBDA, rate_ppm=0))
    while (await caller.info()).followed < len(network.log.entries):
        await caller.verdicts(0, 0.05)
    (signed,) = network.node.answer(made)
    asked = AskedAudit(signed=signed, content=made.content, deadline_ms=60_000)
    answer = await caller.audit(asked, 90)
    assert (answer.result, answer.reason, answer.note) == ("inconclusive", "other_rules", "")


@pytest.mark.parametrize(
    "stated", [{}, {"bits": "sha256:" + "0" * 64}], ids=["other numerics", "other bits too"]
)
async def test_another_engine_version_is_not_held_to_the_verifiers_bits(
    network: ToyNetwork, transport: HttpTransport, stated: dict[str, object]
) -> None:
    other = Toy(drift=0.3)
    network.node.toy = other
    network.node.stated = stated
    verdict = await verdict_on(ToyNode(toy=other).serve(3), network, transport)
    assert verdict.regime != "exact"
    assert (verdict.result, verdict.standing) == ("inconclusive", "open")


async def test_the_same_name_for_other_bits_is_not_exact(
    network: ToyNetwork, transport: HttpTransport
) -> None:
    network.node.stated = {"bits": "sha256:" + "0" * 64}
    verdict = await verdict_on(ToyNode().serve(3), network, transport)
    assert verdict.regime != "exact"
    assert verdict.result == "inconclusive"


LATER: dict[str, object] = {"unix_ms": LATER_MS}
"""Of another process, as it says."""


@pytest.mark.parametrize(
    ("before", "after", "result"),
    [
        ({"context_tokens": ROOM}, None, "pass"),
        ({"context_tokens": ROOM}, {"context_tokens": 512} | LATER, "pass"),
        ({"context_tokens": 512}, {"context_tokens": ROOM} | LATER, "inconclusive"),
        (None, {"context_tokens": 512} | LATER, "inconclusive"),
        ({}, LATER, "inconclusive"),
        ({"context_tokens": 512}, None, "fail"),
        ({"context_tokens": 512}, {"context_tokens": 512} | LATER, "fail"),
        ({"context_tokens": 512} | LATER, None, "fail"),
        (LATER, None, "fail"),
        ({"context_tokens": 8}, None, "fail"),
    ],
    ids=[
        "it had said so",
        "it had said so, and has more by now",
        "it says so later",
        "it had said nothing",
        "it does not say, and began anew",
        "it had said more",
        "it had said more, and began anew",
        "it had said more, of a time to come",
        "it does not say, of a time to come",
        "it had said less than the answer took",
    ],
)
async def test_an_answer_that_filled_a_smaller_context(
    network: ToyNetwork,
    transport: HttpTransport,
    before: dict[str, object] | None,
    after: dict[str, object] | None,
    result: str,
) -> None:
    """``before`` and ``after`` the answer, the log has this of the node."""
    made = ToyNode(context_tokens=ROOM).serve(4, **ENDLESS)
    assert made.receipt.response.finish == ("length",)
    network.node.logs_self_test = before is not None
    network.node.stated = before or {}
    network.node.answer(made)
    if after is not None:
        network.node.stated = after
        network.log.append(network.node.self_test())
    verdict = await verdict_of(network, transport)
    found = by_name(verdict)
    assert (verdict.result, found["finish"][0]) == (result, result)
    if result == "inconclusive":
        assert found["finish"][1] == OTHER_CONTEXT
        assert found["replay"][0] == "pass"


async def test_what_it_says_when_it_is_asked_explains_nothing(
    network: ToyNetwork, transport: HttpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked by verifiers alone, and knows by then which answer is looked at."""
    monkeypatch.setattr(auditing, "SELF_TEST_TRIES_MAX", 0)
    network.node.stated = {"context_tokens": 512}
    network.node.answer(ToyNode(context_tokens=ROOM).serve(4, **ENDLESS))
    network.node.stated = {"context_tokens": ROOM}
    verdict = await verdict_of(network, transport)
    assert (verdict.result, by_name(verdict)["finish"][0]) == ("fail", "fail")


async def test_what_it_has_queued_for_the_log_is_waited_for(
    network: ToyNetwork, transport: HttpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditing, "SELF_TEST_TRIES_MAX", 10**6)
    monkeypatch.setattr(auditing, "RETRY_MS", 20)
    network.node.stated = {"context_tokens": 512}
    network.node.answer(ToyNode(context_tokens=ROOM).serve(4, **ENDLESS))
    network.node.stated = {"context_tokens": ROOM}
    caller = VerifierCaller(transport, await network.verifier(LAMBDA))
    while not network.node.asked:
        await caller.verdicts(0, 0.05)
    network.log.append(network.node.self_test())
    (found,) = await revealed(caller, 1)
    assert Verdict.open_note(found.note.encode(), LAMBDA.vkey).result == "inconclusive"


async def test_who_asks_about_an_answer_does_not_wait_for_the_log(
    network: ToyNetwork, transport: HttpTransport
) -> None:
    network.node.stated = {"context_tokens": 512}
    network.node.answer(honest(1))
    caller = VerifierCaller(transport, await network.verifier(LAMBDA, rate_ppm=0))
    while (await caller.info()).followed < len(network.log.entries):
        await caller.verdicts(0, 0.05)
    network.node.stated = {"context_tokens": ROOM}
    network.node.logs_self_test = False
    made = ToyNode(context_tokens=ROOM).serve(4, **ENDLESS)
    (signed,) = network.node.answer(made)
    asked = AskedAudit(signed=signed, content=made.content, deadline_ms=60_000)
    answer = await caller.audit(asked, 90)
    verdict = Verdict.open_note(answer.note.encode(), LAMBDA.vkey)
    assert by_name(verdict)["finish"] == ("inconclusive", OTHER_CONTEXT)


async def test_times_that_a_receipt_claims_make_no_statement_a_later_one(
    network: ToyNetwork, transport: HttpTransport
) -> None:
    made = saying(ToyNode(context_tokens=ROOM).serve(4, **ENDLESS), "times", ended_ms=0)
    network.node.stated = {"context_tokens": 512, "unix_ms": 1000}
    verdict = await verdict_on(made, network, transport)
    assert (verdict.result, by_name(verdict)["finish"][0]) == ("fail", "fail")


async def test_a_node_that_begins_anew_with_less_room_is_not_held_to_what_it_said_before(
    network: ToyNetwork, transport: HttpTransport
) -> None:
    caller = VerifierCaller(transport, await network.verifier(LAMBDA))
    found = []
    for seen, room in enumerate((512, ROOM)):
        network.node.stated = {"context_tokens": room}
        network.node.answer(ToyNode(context_tokens=room).serve(4 + seen, **ENDLESS))
        (one,) = await revealed(caller, 1, after=seen)
        found.append(Verdict.open_note(one.note.encode(), LAMBDA.vkey))
    assert [(one.result, by_name(one)["finish"][0]) for one in found] == [("pass", "pass")] * 2
