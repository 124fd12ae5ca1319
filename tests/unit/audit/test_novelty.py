"""The same scores count once: an honest node is not failed by who asks the same thing for ever."""

import functools
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from tests.support.auditing import Made, Toy, ToyNode, ToyScorer, exact, saying

from trunkline.audit import bundle, calibration, novelty, recompute
from trunkline.audit.calibration import Calibration, Parties
from trunkline.audit.judge import Case, Judged, judge
from trunkline.audit.standing import State
from trunkline.audit.trials import Trials
from trunkline.base.errors import VerificationError
from trunkline.receipts import Receipt
from trunkline.schema.audit import OpenedContent

ROUNDING = Toy(drift=0.1)
PARTIES = Parties(
    configuration="toy, another engine", model="toy", node="toy-", verifier="toy-",
    weights=Toy().info.weights_digest,
)  # fmt: skip
TIMES = 400


@functools.cache
def noisy() -> Calibration:
    """One honest greedy answer of 25 differs, in one token and by little."""
    honest = [
        Trials(
            bins=(0,) * 40,
            ends=(0,),
            margins=(4_000 * (number % 25 == 0), *(0,) * 39),
            mismatches=int(number % 25 == 0),
            tokens=40,
        )
        for number in range(1_000)
    ]
    return calibration.build(
        honest, parties=PARTIES, regime="noisy", prompts="sha256:" + "0" * 64, seeds="counted"
    )


def asked(text: str, number: int = 0, *, toy: Toy = ROUNDING, **request: object) -> Made:
    """An answer by a sound engine, which rounds otherwise than the verifier's unless said."""
    messages = [{"role": "user", "content": text}]
    return ToyNode(toy=toy).serve(number, messages=messages, **request)


async def where_engines_part() -> Case:
    """A greedy answer of an honest node with a token that the verifier's engine would not take."""
    case = await asked("this", temperature=0).case(noisy())
    trials = judge(case, None).trials
    assert trials is not None
    assert trials.mismatches > 0
    return case


async def known(made: Made, receipt: Receipt | None = None) -> bytes | None:
    """How an answer is known again; by another ``receipt``, if one is given."""
    case = await made.case(noisy())
    return novelty.fingerprint(receipt or case.receipt, case.content, case.measured)


def many(case: Case, state: State | None, times: int) -> Judged:
    for _ in range(times):
        found = judge(case, state)
        state = found.state
    return found


async def test_the_same_greedy_answer_again_and_again_fails_nobody() -> None:
    case = await where_engines_part()
    first = judge(case, None)
    assert first.standing == "open"

    # What would happen if each counted, and what does.
    assert many(case, first.state, TIMES).standing == "failed"
    last = many(replace(case, counted=True), first.state, TIMES)

    assert (last.standing, last.evidence, last.result) == ("open", first.evidence, "pass")
    assert last.checks[-1] == novelty.COUNTED
    assert last.trials == first.trials


async def test_whoever_has_the_bundle_comes_to_the_same() -> None:
    case = replace(await where_engines_part(), counted=True)
    before = judge(await asked("something else").case(noisy()), None)
    judged = judge(case, before.state)

    found = recompute.numbers(judged.bundle, calibration.encode(noisy()))

    assert found.state == before.state == judged.state


async def test_a_fault_stays_one() -> None:
    case = replace(await where_engines_part(), counted=True, nonce_used_by="ans_other")
    assert judge(case, None).standing == "failed"


async def test_in_the_exact_regime_each_answer_counts() -> None:
    case = await ToyNode().serve(1, temperature=0).case(exact())
    first = judge(case, None)
    again = judge(replace(case, counted=True), first.state)
    assert again.evidence.samples == 2


@pytest.mark.parametrize(
    ("temperature", "same"), [(0, True), (0.00001, True), (0.04, True), (1.0, False)]
)
async def test_what_was_drawn_is_known_again_by_its_seed_and_nothing_else_is(
    temperature: float, same: bool
) -> None:
    made = asked("the same", 1, temperature=temperature)
    reseeded = saying(made, "sampling", seed="01" * 32)
    assert (await known(made) == await known(made, reseeded.receipt)) is same
    assert await known(made) == await known(asked("the same", 1, temperature=temperature))
    assert await known(made) != await known(asked("another", 1, temperature=temperature))


async def test_greedy_answers_are_known_again_whatever_their_seed() -> None:
    one, other = (asked("the same", number, temperature=0) for number in (1, 2))
    assert one.receipt.sampling.seed != other.receipt.sampling.seed
    assert await known(one) == await known(other)


@pytest.mark.parametrize(
    ("member", "same"),
    [
        ({"user": "somebody"}, True),
        ({"metadata": {"trace": "7"}}, True),
        ({"logit_bias": {"300": 1}}, False),
        ({"frequency_penalty": 0.5}, False),
        ({"top_p": 0.5}, False),
    ],
    ids=str,
)
async def test_what_decides_a_score_is_part_of_it(member: dict[str, Any], same: bool) -> None:
    case = await asked("the same", temperature=0).case(noisy())
    assert case.content is not None
    request = msgspec.json.decode(case.content.request) | member
    other = msgspec.structs.replace(case.content, request=msgspec.Raw(msgspec.json.encode(request)))
    found = [
        novelty.fingerprint(case.receipt, content, case.measured)
        for content in (case.content, other)
    ]
    assert (found[0] == found[1]) is same


async def test_one_vector_for_every_text_is_no_old_news() -> None:
    case = await asked("the same", temperature=0).case(noisy())
    found = {
        novelty.fingerprint(
            case.receipt,
            OpenedContent(request=msgspec.Raw(request), salts={}, vectors=("AAAA",)),
            None,
        )
        for request in (b'{"input":"one"}', b'{"input":"two"}', b'{"input":"one","user":"x"}')
    }
    assert len(found) == 2


@pytest.mark.parametrize("request_", [b"[]", b'"text"', b"7"])
async def test_what_is_no_request_is_never_known_again(request_: bytes) -> None:
    case = await asked("the same").case(noisy())
    content = OpenedContent(request=msgspec.Raw(request_), salts={})
    assert novelty.fingerprint(case.receipt, content, None) is None


async def test_nobody_leaves_out_scores_that_count() -> None:
    """An exact answer that fails, with a check that would leave its scores out."""
    cheat = await ToyNode(seed=b"\x09" * 32).serve(3).case(exact())
    judged = judge(cheat, None)
    assert judged.standing == "failed"
    made = bundle.decode(judged.bundle)
    before = State.start(exact())
    forged = msgspec.structs.replace(
        made,
        checks=(*made.checks, novelty.COUNTED),
        evidence=before.evidence,
        standing=before.standing,
    )
    with pytest.raises(VerificationError):
        recompute.numbers(bundle.encode(forged), calibration.encode(exact()))


async def test_nothing_opened_is_known_by_nothing() -> None:
    made = asked("the same")
    assert novelty.fingerprint(made.receipt, None, None) is None
    case = await made.case(noisy(), ToyScorer())
    assert novelty.fingerprint(made.receipt, case.content, None) is not None
