"""Log-probabilities that an app was sent: the model's own pass, anybody's else fail."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec
import pytest
from tests.support.auditing import PARTIES, Made, Toy, ToyNode, ToyScorer, exact, saying, scored

from trunkline.audit import bundle, recompute
from trunkline.audit.bundle import LOGPROBS, Compared
from trunkline.audit.calibration import Calibration, build, encode, unmeasured
from trunkline.audit.judge import Case, Judged, judge
from trunkline.audit.logprobs import SLACK
from trunkline.audit.replay import measure
from trunkline.base.errors import MalformedError, VerificationError
from trunkline.engine.sequence import beside
from trunkline.inference.ports import Beside, TokenLogprob
from trunkline.verdicts import Check

EXACT = exact()
ASKED: dict[str, object] = {"logprobs": True, "top_logprobs": 3}
REQUESTS: list[dict[str, object]] = [
    {}, {"n": 2}, {"stream": False}, {"top_logprobs": 0}, {"temperature": 0},
]  # fmt: skip
Tells = Callable[[Sequence[int], int, int], Beside]


def noisy() -> Calibration:
    answers = scored(ToyNode(toy=Toy(drift=0.02)), Toy(), range(40))
    return build(
        answers, parties=PARTIES, regime="noisy", prompts="sha256:" + "0" * 64, seeds="counted"
    )


async def judged(made: Made, measure_: Calibration = EXACT) -> Judged:
    found = judge(await made.case(measure_), None)
    recompute.numbers(found.bundle, encode(measure_))
    return found


def checked(found: Judged) -> Check | None:
    return next((check for check in found.checks if check.name == LOGPROBS), None)


def result(found: Judged) -> str:
    check = checked(found)
    return "" if check is None else check.result


def others(found: Judged) -> set[str]:
    return {one.name for one in found.checks if one.result == "fail" and one.name != LOGPROBS}


@pytest.mark.parametrize("request_", REQUESTS, ids=str)
async def test_the_models_own_pass(request_: dict[str, object]) -> None:
    found = await judged(ToyNode().serve(3, **ASKED | request_))
    assert (found.result, result(found)) == ("pass", "pass")
    made = bundle.decode(found.bundle)
    assert isinstance(made.logprobs, Compared)
    assert isinstance(made.trials, type(found.trials))
    assert (made.logprobs.differing, made.logprobs.tokens) == (0, found.evidence.tokens)


async def test_where_none_were_asked_for_there_is_no_check_and_no_number() -> None:
    made = ToyNode().serve(3)
    found = await judged(made)
    assert checked(found) is None
    assert b"logprobs" not in found.bundle
    measured = await measure(made.receipt, made.content, ToyScorer())
    assert all(score.beside is None for choice in measured.scores for score in choice)


def shifted(before: Sequence[int], token: int, top: int) -> Beside:
    honest = Toy().beside(before, token, top)
    return msgspec.structs.replace(honest, logprob=honest.logprob - 0.01)


def shifted_once(before: Sequence[int], token: int, top: int) -> Beside:
    honest = Toy().beside(before, token, top)
    return shifted(before, token, top) if len(before) % 8 == 0 else honest


def alternatives_shifted(before: Sequence[int], token: int, top: int) -> Beside:
    honest = Toy().beside(before, token, top)
    first, *rest = honest.top
    lower = TokenLogprob(token=first.token, logprob=first.logprob - 0.01)
    return msgspec.structs.replace(honest, top=(lower, *rest))


def of_another_temperature(before: Sequence[int], token: int, top: int) -> Beside:
    return beside(token, Toy().logits(before) / 0.7, top)


def of_another_model(before: Sequence[int], token: int, top: int) -> Beside:
    return Toy(bent=0.05).beside(before, token, top)


def swapped(before: Sequence[int], token: int, top: int) -> Beside:
    honest = Toy().beside(before, token, top)
    first, second, *rest = honest.top
    return msgspec.structs.replace(
        honest,
        top=(
            TokenLogprob(token=second.token, logprob=first.logprob),
            TokenLogprob(token=first.token, logprob=second.logprob),
            *rest,
        ),
    )


def fewer(before: Sequence[int], token: int, top: int) -> Beside:
    return Toy().beside(before, token, top - 1)


LIES: list[Tells] = [
    shifted, shifted_once, alternatives_shifted, of_another_temperature, of_another_model, swapped,
    fewer,
]  # fmt: skip


@pytest.mark.parametrize("tells", LIES, ids=lambda tells: tells.__name__)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_node_that_makes_them_up_fails_by_nothing_else(tells: Tells, stream: bool) -> None:
    found = await judged(ToyNode(tells=tells).serve(3, stream=stream, **ASKED))
    assert (found.result, found.standing, result(found)) == ("fail", "failed", "fail")
    assert others(found) == set(), "the answer itself is honest"
    made = bundle.decode(found.bundle)
    assert isinstance(made.logprobs, Compared)
    assert 0 < made.logprobs.differing <= made.logprobs.tokens


async def test_a_lie_counts_whoever_picked_the_answer() -> None:
    case = replace(
        await ToyNode(tells=shifted).serve(3, **ASKED).case(EXACT), picked=True, entry=None
    )
    assert judge(case, None).standing == "failed"


async def test_what_arithmetic_may_round_otherwise_is_no_lie() -> None:
    def rounded(before: Sequence[int], token: int, top: int) -> Beside:
        honest = Toy().beside(before, token, top)
        return msgspec.structs.replace(honest, logprob=honest.logprob * (1 + 4e-16))

    assert (await judged(ToyNode(tells=rounded).serve(3, **ASKED))).result == "pass"
    assert SLACK < 1e-6


async def test_in_the_noisy_regime_nothing_is_said_of_them() -> None:
    for made in (ToyNode(), ToyNode(tells=of_another_model)):
        found = await judged(made.serve(3, **ASKED), noisy())
        assert result(found) == "not_applicable"
        assert found.result == "pass"
        assert bundle.decode(found.bundle).logprobs is msgspec.UNSET


async def test_what_can_not_be_compared_is_never_a_pass() -> None:
    made = ToyNode(tells=shifted).serve(3, **ASKED)
    unknown = await made.case(unmeasured(PARTIES), ToyScorer(Toy(weights=2)))
    assert result(judge(unknown, None)) == "inconclusive"
    silent = await made.case(EXACT)
    assert silent.measured is not None
    mute = tuple(
        tuple(msgspec.structs.replace(score, beside=None) for score in choice)
        for choice in silent.measured.scores
    )
    quiet = replace(silent, measured=msgspec.structs.replace(silent.measured, scores=mute))
    assert result(judge(quiet, None)) == "not_applicable"
    unbound = await saying(made, "response", digest="sha256:" + "0" * 64).case(EXACT)
    assert result(judge(unbound, None)) == "inconclusive"


async def taken_over(made: Made, upto: int, beside_: float) -> Case:
    """Its opening with other values beside the first tokens, which were taken over."""
    first = made.content.logprobs[0]
    changed = tuple(msgspec.structs.replace(one, logprob=beside_) for one in first[:upto])
    content = msgspec.structs.replace(made.content, logprobs=((*changed, *first[upto:]),))
    return await replace(made, content=content).case(EXACT)


async def test_nobody_is_framed_by_what_was_not_sent() -> None:
    """A stream that goes on does not say again what stood beside the tokens before it: whoever
    brings its opening could write anything there."""
    made = ToyNode().serve(3, given=(4,), **ASKED)
    found = judge(await taken_over(made, 4, -0.5), None)
    assert (result(found), others(found)) == ("pass", set())
    own = judge(await taken_over(made, 5, -0.5), None)
    assert result(own) == "inconclusive", "what is beside its own tokens was sent, and is bound"


async def test_who_goes_on_with_another_stream_answers_for_its_own_part() -> None:
    made = ToyNode(tells=shifted).serve(3, given=(4,), **ASKED)
    assert result(await judged(made)) == "fail"


async def test_a_bundle_in_which_they_do_not_lead_to_their_check_is_refused() -> None:
    honest = bundle.decode((await judged(ToyNode().serve(3, **ASKED))).bundle)
    lying = bundle.decode((await judged(ToyNode(tells=shifted).serve(3, **ASKED))).bundle)
    for said, compared in (
        (honest, lying.logprobs), (lying, honest.logprobs),
        (honest, msgspec.UNSET), (lying, msgspec.UNSET),
    ):  # fmt: skip
        other = msgspec.structs.replace(said, logprobs=compared)
        with pytest.raises(VerificationError):
            recompute.numbers(bundle.encode(other), encode(EXACT))
    checks = tuple(check for check in honest.checks if check.name != LOGPROBS)
    with pytest.raises(VerificationError):
        unchecked = msgspec.structs.replace(honest, checks=checks)
        recompute.numbers(bundle.encode(unchecked), encode(EXACT))
    for impossible in (
        msgspec.structs.replace(honest, logprobs=Compared(differing=2, tokens=1)),
        msgspec.structs.replace(honest, regime="noisy"),
    ):
        with pytest.raises(MalformedError):
            bundle.decode(bundle.encode(impossible))


async def test_the_numbers_are_found_again_from_the_opening() -> None:
    for node in (ToyNode(), ToyNode(tells=shifted_once)):
        made = node.serve(3, **ASKED)
        found = await judged(made)
        said = recompute.numbers(found.bundle, encode(EXACT))
        again = await recompute.scores(said, made.receipt, made.content, ToyScorer())
        assert again.same
        assert again.logprobs == said.bundle.logprobs
