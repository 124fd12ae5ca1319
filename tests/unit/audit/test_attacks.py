"""Ways to be judged by what one did not do, or not to be judged by what one did."""

from dataclasses import replace

import msgspec
import pytest
from tests.support.auditing import PARTIES, Made, Toy, ToyNode, ToyScorer, exact, scored

from trunkline.audit import bundle, recompute
from trunkline.audit.calibration import Calibration, build, encode, unmeasured
from trunkline.audit.judge import WITHHELD, judge
from trunkline.audit.replay import Measured, measure
from trunkline.audit.standing import State
from trunkline.base.errors import VerificationError

EXACT = exact()
ANSWERS = 60
"""More than trust takes."""


def noisy() -> Calibration:
    return build(
        scored(ToyNode(toy=Toy(drift=0.02)), Toy(), range(40)),
        parties=PARTIES,
        regime="noisy",
        prompts="sha256:" + "0" * 64,
        seeds="counted",
    )


async def measured(made: Made) -> Measured:
    return await measure(made.receipt, made.content, ToyScorer())


def missed(found: Measured, *places: int) -> Measured:
    """The same, but for tokens of the first choice that the model would not have taken."""
    first, *others = found.scores
    first = tuple(
        msgspec.structs.replace(score, margin=5.0) if at in places else score
        for at, score in enumerate(first)
    )
    return msgspec.structs.replace(found, scores=(first, *others))


async def test_who_goes_on_with_anothers_tokens_is_not_judged_by_them() -> None:
    made = ToyNode().serve(3, given=(4,))
    found = await measured(made)
    assert len(found.scores[0]) > 5
    framed = judge(made.case_of(EXACT, missed(found, 0, 1, 2, 3)), None)
    assert framed.trials is not None
    assert framed.trials.tokens == len(found.scores[0]) - 4
    assert (framed.trials.mismatches, framed.standing) == (0, "open")
    own = judge(made.case_of(EXACT, missed(found, 4)), None)
    assert own.standing == "failed"


async def test_in_the_noisy_regime_anothers_tokens_are_no_trials_either() -> None:
    made = ToyNode().serve(3, given=(4,))
    found = await measured(made)
    judged = judge(made.case_of(noisy(), missed(found, 0, 1, 2, 3)), None)
    assert judged.trials is not None
    assert max(judged.trials.margins) == 0
    assert len(judged.trials.ends) == 1


async def test_an_answer_taken_over_whole_says_nothing_of_who_took_it() -> None:
    made = ToyNode().serve(3)
    whole = (len(made.content.tokens[0]),)
    response = msgspec.structs.replace(made.receipt.response, resumed=whole)
    taken = replace(made, receipt=msgspec.structs.replace(made.receipt, response=response))
    assert judge(taken.case_of(EXACT, await measured(made)), None).trials is None


async def test_numerics_that_nobody_has_a_calibration_for_win_no_trust() -> None:
    made = ToyNode(toy=Toy(bent=3.0)).serve(3)
    case = await made.case(unmeasured(PARTIES))
    judged = judge(case, None)
    for _ in range(ANSWERS):
        judged = judge(case, judged.state)
    assert (judged.result, judged.standing) == ("inconclusive", "open")
    assert judged.state == State.start(unmeasured(PARTIES))


@pytest.mark.parametrize("measure_", [EXACT, noisy()], ids=["exact", "noisy"])
async def test_answers_that_somebody_picked_neither_win_nor_lose_a_standing(
    measure_: Calibration,
) -> None:
    made = ToyNode().serve(3)
    good = replace(made.case_of(measure_, await measured(made)), picked=True)
    bad = replace(good, measured=missed(await measured(made), 3, 4, 5))
    judged = judge(bad, None)
    for case in [good, bad] * ANSWERS:
        judged = judge(case, judged.state)
        recompute.numbers(judged.bundle, encode(measure_))
    assert judged.state == State.start(measure_)
    if measure_ is EXACT:
        # What is said of this one answer is said all the same.
        assert judged.result == "fail"
        assert judge(good, judged.state).result == "pass"


async def test_a_fault_is_one_whoever_found_it() -> None:
    made = ToyNode().serve(3)
    usage = msgspec.structs.replace(made.receipt.usage, completion=999)
    overbilled = replace(made, receipt=msgspec.structs.replace(made.receipt, usage=usage))
    case = replace(overbilled.case_of(EXACT, await measured(made)), picked=True)
    judged = judge(case, None)
    assert (judged.result, judged.standing) == ("fail", "failed")
    recompute.numbers(judged.bundle, encode(EXACT))


async def test_a_picked_answer_that_counts_is_noticed() -> None:
    made = ToyNode().serve(3)
    judged = judge(replace(made.case_of(EXACT, await measured(made)), picked=True), None)
    said = bundle.decode(judged.bundle)
    drawn = judge(made.case_of(EXACT, await measured(made)), None)
    moved = msgspec.structs.replace(said, evidence=drawn.evidence)
    with pytest.raises(VerificationError):
        recompute.numbers(bundle.encode(moved), encode(EXACT))


async def test_in_the_exact_regime_a_bundle_has_no_fingerprint_of_the_text() -> None:
    made = ToyNode().serve(3)
    judged = judge(await made.case(EXACT), None)
    assert judged.trials is not None
    assert (judged.trials.bins, judged.trials.margins, judged.trials.ends) == ((), (), ())
    assert judged.trials.tokens == len(made.content.tokens[0])


@pytest.mark.parametrize(
    ("asked", "read", "check"),
    [
        ({"stop": ["a"]}, {"stop": None}, "finish"),
        ({}, {"stop": ["a"]}, "finish"),
        ({"max_tokens": 40}, {"max_tokens": 7}, "finish"),
        ({"max_tokens": 7}, {"max_tokens": 40}, "finish"),
        ({"n": 2}, {"n": 1}, "finish"),
        ({"stream_options": {"include_usage": True}}, {"stream_options": None}, "response"),
        (
            {"logprobs": True, "top_logprobs": 1},
            {"logprobs": False, "top_logprobs": None},
            "response",
        ),
        ({"min_p": 0.9}, {"min_p": 0.0}, "sampler"),
        ({"frequency_penalty": 2.0}, {"frequency_penalty": 0.0}, "replay"),
        ({}, {"presence_penalty": 2.0}, "replay"),
        ({}, {"logit_bias": {"300": 50}}, "replay"),
        ({"logit_bias": {"300": 50}}, {"logit_bias": {}}, "replay"),
    ],
    ids=str,
)
async def test_a_request_that_is_read_otherwise_than_it_says_is_noticed(
    asked: dict[str, object], read: dict[str, object], check: str
) -> None:
    """Everything that the node signs fits together: what it answered is another request."""
    made = ToyNode(reads=read).serve(3, **asked)
    judged = judge(await made.case(EXACT), None)
    failed = {one.name for one in judged.checks if one.result == "fail"}
    # What is sent where nothing was asked for is withheld if it is not shown.
    assert check in failed or (judged.kind, failed) == ("opening", {"opened"})
    assert judged.standing == "failed"
    assert judge(await ToyNode().serve(3, **asked).case(EXACT), None).result == "pass"


def test_withholding_counts_however_the_receipt_was_chosen() -> None:
    made = ToyNode().serve(3)
    case = replace(made.case_of(EXACT, None), content=None, reason=WITHHELD, picked=True)
    assert judge(case, None).standing == "failed"
