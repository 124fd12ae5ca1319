"""From a case to a result: what may be audited, what was opened, what could not be reached."""

from dataclasses import replace

import msgspec
import pytest
from tests.support.auditing import (
    NODE,
    PARTIES,
    Made,
    Toy,
    ToyNode,
    ToyScorer,
    exact,
    saying,
    scored,
)

from trunkline.audit import bundle, calibration
from trunkline.audit.judge import WITHHELD, Case, judge
from trunkline.audit.replay import measure
from trunkline.audit.standing import State
from trunkline.base.errors import UpstreamError
from trunkline.verdicts import Result, Standing

CALIBRATION = exact()


def unopened(made: Made, reason: str) -> Case:
    return Case(
        receipt=made.receipt,
        leaf=made.leaf,
        key=NODE.vkey,
        calibration=CALIBRATION,
        reason=reason,
    )


@pytest.mark.parametrize(
    ("reason", "result", "standing"),
    [
        (WITHHELD, "fail", "failed"),
        ("unknown", "fail", "failed"),
        ("not_audited", "fail", "failed"),
        ("not_kept", "inconclusive", "open"),
        ("expired", "inconclusive", "open"),
        ("not_drawn", "inconclusive", "open"),
        ("whatever", "inconclusive", "open"),
    ],
)
def test_withholding_is_a_fault_and_not_having_is_none(
    reason: str, result: Result, standing: Standing
) -> None:
    judged = judge(unopened(ToyNode().serve(3), reason), None)
    assert (judged.kind, judged.result, judged.standing) == ("opening", result, standing)


def test_a_receipt_that_allows_no_audit_is_not_judged() -> None:
    judged = judge(unopened(saying(ToyNode().serve(3), "policy", audit=False), WITHHELD), None)
    assert (judged.result, judged.standing) == ("not_applicable", "open")


async def test_a_model_without_known_weights_is_not_judged() -> None:
    made = saying(ToyNode().serve(3), "model", weights="")
    judged = judge(await made.case(CALIBRATION), None)
    assert judged.result == "not_applicable"


async def test_a_model_that_can_not_be_asked_leaves_it_open() -> None:
    made = ToyNode().serve(3)
    judged = judge(made.case_of(CALIBRATION, None), None)
    assert judged.result == "inconclusive"
    assert judged.state.answers == 0
    results = {check.name: check.result for check in judged.checks}
    assert results["replay"] == results["template"] == results["finish"] == "inconclusive"
    assert results["request"] == results["usage"] == results["seed"] == "pass"


async def test_an_engine_that_fails_is_no_verdict() -> None:
    made = ToyNode().serve(3)
    with pytest.raises(UpstreamError):
        await measure(made.receipt, made.content, ToyScorer(down=True))


async def test_an_answer_beyond_the_verifiers_context_is_not_scored() -> None:
    class Small(ToyScorer):
        async def model(self):  # type: ignore[no-untyped-def]
            return msgspec.structs.replace(self.toy.info, context_tokens=40)

    made = ToyNode().serve(3)
    measured = await measure(made.receipt, made.content, Small(), context_tokens=512)
    assert measured.unreachable
    assert judge(replace(made.case_of(CALIBRATION, measured), context_tokens=512), None).result in (
        "inconclusive",
    )


@pytest.mark.parametrize(
    "node",
    [
        ToyNode(seed=b"\x09" * 32),
        ToyNode(sampling={"temperature": 0.5}),
        ToyNode(toy=Toy(bent=1.0)),
    ],
    ids=["seed", "temperature", "weights"],
)
async def test_in_the_exact_regime_one_answer_fails_a_cheat_and_its_standing(node: ToyNode) -> None:
    made = node.serve(3)
    honest = ToyNode(toy=Toy()).serve(3)
    made = replace(made, receipt=msgspec.structs.replace(made.receipt, model=honest.receipt.model))
    made = saying(made, "response", digest=honest.receipt.response.digest)
    judged = judge(await made.case(CALIBRATION), None)
    results = {check.name: check.result for check in judged.checks}
    assert results["replay"] == "fail"
    assert judged.state.detector.alarmed
    assert judged.standing == "failed"


async def test_in_the_noisy_regime_one_answer_says_nothing() -> None:
    noisy = calibration.build(
        scored(ToyNode(toy=Toy(drift=0.02)), Toy(), range(40)),
        parties=PARTIES,
        regime="noisy",
        prompts="sha256:" + "0" * 64,
        seeds="counted",
    )
    made = ToyNode(toy=Toy(drift=0.02)).serve(100)
    judged = judge(await made.case(noisy), None)
    results = {check.name: check.result for check in judged.checks}
    assert results["replay"] == "not_applicable"
    assert (judged.result, judged.standing) == ("pass", "open")
    assert judged.trials is not None


async def test_tokens_of_an_opening_that_was_not_signed_are_no_trials() -> None:
    made = ToyNode().serve(3)
    other = saying(made, "response", tokens="salted:" + "0" * 64)
    judged = judge(await other.case(CALIBRATION), None)
    assert judged.trials is None
    assert judged.result == "fail"


async def test_scores_for_other_tokens_are_no_scores() -> None:
    case = await ToyNode().serve(3).case(CALIBRATION)
    assert case.measured is not None
    measured = msgspec.structs.replace(case.measured, scores=(case.measured.scores[0][1:],))
    judged = judge(replace(case, measured=measured), None)
    assert (judged.trials, judged.result) == (None, "inconclusive")


async def test_a_state_of_another_calibration_starts_anew_but_stays_failed() -> None:
    made = ToyNode().serve(3)
    failed = judge(unopened(made, WITHHELD), None).state
    other = exact(5_000)
    judged = judge(await made.case(other), failed)
    assert judged.standing == "failed"
    assert judged.state.calibration == other.digest
    assert isinstance(judged.state, State)


@pytest.mark.parametrize("text", ["", "x" * 5_000])
def test_no_name_of_a_nodes_keeps_a_verdict_from_being_written(text: str) -> None:
    made = saying(ToyNode().serve(3), "model", served=text, numerics=text)
    made = saying(made, "", operator=text)
    judged = judge(unopened(made, WITHHELD), None)
    assert bundle.decode(judged.bundle).subject == judged.subject
    assert judged.standing == "failed"
