"""The numbers again, from the bundle; the scores again, from the opening."""

import msgspec
import pytest
from tests.support.audit_records import NOW_MS, VERIFIER
from tests.support.auditing import Made, Toy, ToyNode, ToyScorer, exact, saying

from trunkline.audit import bundle, calibration, recompute
from trunkline.audit.bundle import Bundle
from trunkline.audit.judge import Judged, judge
from trunkline.audit.standing import State
from trunkline.base.errors import MalformedError, VerificationError
from trunkline.crypto.digest import digest
from trunkline.verdicts import Check, Verdict

CALIBRATION = exact()
MEASURE = calibration.encode(CALIBRATION)


async def judged(made: Made, before: State | None = None) -> Judged:
    return judge(await made.case(CALIBRATION), before)


def verdict(made: Made, found: Judged) -> Verdict:
    return Verdict(
        alpha=CALIBRATION.alpha,
        bundle=digest(found.bundle),
        calibration=CALIBRATION.digest,
        checks=found.checks,
        evidence=found.evidence,
        key=str(VERIFIER.vkey),
        kind=found.kind,
        operator="gamma.example",
        previous="",
        receipt=made.leaf.hex(),
        regime=found.regime,
        result=found.result,
        salt="99" * 32,
        standing=found.standing,
        subject=found.subject,
        unix_ms=NOW_MS,
    )


async def test_a_verdicts_numbers_follow_from_its_bundle() -> None:
    state = None
    chain = []
    for number in range(5):
        made = ToyNode().serve(number)
        found = await judged(made, state)
        said = verdict(made, found)
        assert said.text()
        chain.append(recompute.verdict(said, found.bundle, MEASURE))
        assert chain[-1].state == found.state
        state = found.state
    assert all(map(recompute.follows, chain, chain[1:]))
    assert not recompute.follows(chain[0], chain[2])


async def test_a_failure_is_recomputed_too() -> None:
    made = saying(ToyNode().serve(3), "usage", completion=99)
    found = await judged(made)
    assert found.standing == "failed"
    assert recompute.numbers(found.bundle, MEASURE).state.failed == "fault"


CHANGES: dict[str, dict[str, object]] = {
    "result": {"result": "fail"},
    "standing": {"standing": "good"},
    "regime": {"regime": "noisy"},
    "checks": {"checks": (Check(name="x", result="pass", detail=""),)},
    "no trials": {"trials": msgspec.UNSET},
    "calibration": {"calibration": "sha256:" + "0" * 64},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_what_does_not_follow_is_refused(change: dict[str, object]) -> None:
    found = await judged(ToyNode().serve(3))
    other = msgspec.structs.replace(bundle.decode(found.bundle), **change)
    with pytest.raises(VerificationError):
        recompute.numbers(bundle.encode(other), MEASURE)


async def test_other_numbers_of_evidence_are_refused() -> None:
    found = await judged(ToyNode().serve(3))
    made = bundle.decode(found.bundle)
    for changes in ({"wealth": "0.5"}, {"samples": 7}, {"tokens": 7}, {"detector": "3"}):
        evidence = msgspec.structs.replace(made.evidence, **changes)
        other = msgspec.structs.replace(made, evidence=evidence)
        with pytest.raises(VerificationError):
            recompute.numbers(bundle.encode(other), MEASURE)


async def test_a_verdict_that_says_something_else_is_refused() -> None:
    made = ToyNode().serve(3)
    found = await judged(made)
    said = verdict(made, found)
    for changes in (
        {"receipt": "00" * 32},
        {"alpha": "0.01"},
        {"standing": "good"},
        {"bundle": "sha256:" + "0" * 64},
    ):
        with pytest.raises(VerificationError):
            recompute.verdict(msgspec.structs.replace(said, **changes), found.bundle, MEASURE)


async def test_bytes_that_are_no_bundle_are_refused() -> None:
    data = (await judged(ToyNode().serve(3))).bundle
    assert bundle.encode(bundle.decode(data)) == data
    for wrong in (b"", b"{}", data + b" ", data.replace(b'"tokens":', b'"tokenz":')):
        with pytest.raises(MalformedError):
            bundle.decode(wrong)
    made = bundle.decode(data)
    assert not isinstance(made.trials, msgspec.UnsetType)
    odd = msgspec.structs.replace(made.trials, bins=(1,))
    with pytest.raises(MalformedError):
        bundle.decode(bundle.encode(msgspec.structs.replace(made, trials=odd)))


async def test_a_bundle_holds_no_content() -> None:
    made = ToyNode().serve(3, messages=[{"role": "user", "content": "a secret word"}])
    data = (await judged(made)).bundle
    assert b"secret" not in data
    members = set(Bundle.__struct_fields__)
    assert members.isdisjoint({"request", "prompt", "salts", "content"})
    assert str(list(made.content.tokens[0])).replace(" ", "").encode() not in data


async def test_scores_are_found_again_from_the_opening() -> None:
    made = ToyNode().serve(3)
    found = await judged(made)
    said = recompute.numbers(found.bundle, MEASURE)
    again = await recompute.scores(said, made.receipt, made.content, ToyScorer())
    assert again.same
    assert again.trials == found.trials
    drifted = await recompute.scores(said, made.receipt, made.content, ToyScorer(Toy(drift=0.2)))
    assert not drifted.same
    assert drifted.trials is not None
    none = await recompute.scores(said, made.receipt, made.content, ToyScorer(Toy(weights=2)))
    assert (none.trials, none.same) == (None, False)
    assert none.unreachable
