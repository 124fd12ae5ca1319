"""Embeddings judged: honest ones pass in both regimes, and each way to save work is caught."""

import asyncio

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tests.support.auditing import NODE, PROMPTS, Made, but, saying
from tests.support.embedding import CHEATS, Cheat, ToyEmbedder, served

from trunkline.audit import bundle, calibration, embedding, recompute
from trunkline.audit.calibration import Calibration, Parties
from trunkline.audit.judge import Case, Judged, judge
from trunkline.audit.standing import State
from trunkline.audit.trials import LEVELS
from trunkline.base.errors import VerificationError
from trunkline.inference.ports import Embedder

TEXTS = ("a dog", "a cat on a mat", "rates rose again")
HONEST = ToyEmbedder()
OTHER_BUILD = ToyEmbedder(drift=0.005)
PARTIES = Parties(
    configuration="toy embedders",
    model="multilingual-e5-small",
    node="toye5-",
    verifier="toye5-",
    weights="",
)


async def vectors(embedder: Embedder, number: int) -> tuple[bytes, ...]:
    return (await embedder.embed([f"{text} {number}" for text in TEXTS], query=False)).vectors


async def made_from(node: Embedder, verifier: Embedder, regime: str) -> Calibration:
    """As ``bench/calibrate_embeddings.py`` does it."""
    pairs = [(await vectors(node, at), await vectors(verifier, at)) for at in range(300)]
    return calibration.build(
        [embedding.compare(ours, theirs, clip=embedding.CLIP) for ours, theirs in pairs],
        parties=PARTIES,
        regime="exact" if regime == "exact" else "noisy",
        prompts=PROMPTS,
        seeds="none",
        clip=embedding.CLIP,
    )


@pytest.fixture(scope="module")
def calibrations() -> dict[str, Calibration]:
    async def both() -> dict[str, Calibration]:
        return {
            "exact": await made_from(HONEST, HONEST, "exact"),
            "noisy": await made_from(OTHER_BUILD, HONEST, "noisy"),
        }

    return asyncio.run(both())


async def case_of(made: Made, measure: Calibration, embedder: Embedder | None = HONEST) -> Case:
    remade = None
    if embedder is not None:
        remade = await embedding.measure(made.receipt, made.content, embedder)
    return Case(
        receipt=made.receipt,
        leaf=made.leaf,
        key=NODE.vkey,
        calibration=measure,
        content=made.content,
        remade=remade,
    )


async def stream(
    embedder: Embedder, measure: Calibration, *, answers: int, **request: object
) -> list[Judged]:
    """Verdict after verdict on one node."""
    judged: list[Judged] = []
    state: State | None = None
    for number in range(answers):
        texts = [f"{text} {number}" for text in TEXTS]
        made = await served(embedder, texts, **request)
        judged.append(judge(await case_of(made, measure), state))
        state = judged[-1].state
    return judged


@pytest.mark.parametrize(
    "request_",
    [{}, {"encoding_format": "base64"}, {"input_type": "query"}, {"dimensions": 384, "user": "u"}],
    ids=str,
)
async def test_an_honest_answer_passes(
    request_: dict[str, object], calibrations: dict[str, Calibration]
) -> None:
    made = await served(HONEST, TEXTS, **request_)
    judged = judge(await case_of(made, calibrations["exact"]), None)
    assert (judged.kind, judged.regime, judged.result) == ("embedding", "exact", "pass")
    assert [one.name for one in judged.checks] == [
        "request", "vectors", "response", "usage", "replay",
    ]  # fmt: skip
    assert judged.checks[-1].detail == "all of 3 vectors are the model's"
    assert judged.subject.weights == made.receipt.model.weights
    assert made.receipt.model.weights


@pytest.mark.parametrize("cheat", CHEATS)
async def test_each_cheat_fails_in_the_exact_regime(
    cheat: str, calibrations: dict[str, Calibration]
) -> None:
    cheating = Cheat(claims=HONEST, **CHEATS[cheat])  # type: ignore[arg-type]
    judged = await stream(cheating, calibrations["exact"], answers=5)
    assert judged[0].result == "fail"
    assert judged[-1].standing == "failed"


async def test_another_model_fails_in_both_regimes(calibrations: dict[str, Calibration]) -> None:
    for regime, claimed in (("exact", HONEST), ("noisy", OTHER_BUILD)):
        cheating = Cheat(claims=claimed, really=ToyEmbedder(weights=2))
        judged = await stream(cheating, calibrations[regime], answers=5)
        assert judged[-1].standing == "failed", regime


async def test_other_kernels_are_honest(calibrations: dict[str, Calibration]) -> None:
    judged = await stream(OTHER_BUILD, calibrations["noisy"], answers=150)
    assert {one.result for one in judged} == {"pass"}
    assert judged[-1].standing == "good"
    assert judged[-1].state.tokens == 150 * len(TEXTS)


@pytest.mark.parametrize(
    "cheat", ["the other prefix", "swapped order", "a cached vector of another text"]
)
async def test_what_other_kernels_can_not_explain_fails_within_a_few_answers(
    cheat: str, calibrations: dict[str, Calibration]
) -> None:
    cheating = Cheat(claims=OTHER_BUILD, **CHEATS[cheat])  # type: ignore[arg-type]
    judged = await stream(cheating, calibrations["noisy"], answers=5)
    assert judged[-1].standing == "failed"


@pytest.mark.parametrize("cheat", ["the other prefix", "swapped order", "truncated dimensions"])
async def test_by_other_kernels_too_each_answer_has_a_result(
    cheat: str, calibrations: dict[str, Calibration]
) -> None:
    """Who is shown no answer without a verdict waits for this one, not for a standing."""
    (honest,) = await stream(OTHER_BUILD, calibrations["noisy"], answers=1)
    assert (
        honest.checks[-1].detail == f"all of {len(TEXTS)} vectors are the model's, but for rounding"
    )
    cheating = Cheat(claims=OTHER_BUILD, **CHEATS[cheat])  # type: ignore[arg-type]
    (judged,) = await stream(cheating, calibrations["noisy"], answers=1)
    assert judged.result == "fail"


async def test_bundles_of_before_vectors_had_a_result_are_recomputed(
    calibrations: dict[str, Calibration],
) -> None:
    measure = calibrations["noisy"]
    (judged,) = await stream(OTHER_BUILD, measure, answers=1)
    older = msgspec.structs.replace(
        bundle.decode(judged.bundle), checks=(*judged.checks[:-1], bundle.NOISE)
    )
    again = recompute.numbers(bundle.encode(older), calibration.encode(measure))
    assert again.state == judged.state


async def test_without_an_embedder_it_is_left_open(calibrations: dict[str, Calibration]) -> None:
    made = await served(HONEST, TEXTS)
    judged = judge(await case_of(made, calibrations["exact"], None), None)
    assert (judged.result, judged.standing, judged.trials) == ("inconclusive", "open", None)
    results = {one.name: one.result for one in judged.checks}
    assert results["request"] == results["response"] == "pass"
    assert results["usage"] == results["replay"] == "inconclusive"


async def test_with_other_weights_it_is_left_open(calibrations: dict[str, Calibration]) -> None:
    made = await served(HONEST, TEXTS)
    case = await case_of(made, calibrations["exact"], ToyEmbedder(weights=2))
    judged = judge(case, None)
    assert judged.result == "inconclusive"
    assert judged.checks[-1].detail == embedding.OTHER_WEIGHTS


async def test_without_a_calibration_only_faults_count(
    calibrations: dict[str, Calibration],
) -> None:
    measure = calibration.unmeasured(PARTIES)
    honest = judge(await case_of(await served(HONEST, TEXTS), measure), None)
    assert (honest.result, honest.standing) == ("inconclusive", "open")
    billed = await served(Cheat(claims=HONEST, tokens=9), TEXTS)
    assert judge(await case_of(billed, measure), None).standing == "failed"


async def test_vectors_that_were_not_sent_are_no_trials(
    calibrations: dict[str, Calibration],
) -> None:
    cheated = await served(Cheat(claims=HONEST, other_prefix=True), TEXTS)
    shown = await served(HONEST, TEXTS)
    made = but(cheated, vectors=shown.content.vectors)
    judged = judge(await case_of(made, calibrations["exact"]), None)
    results = {one.name: one.result for one in judged.checks}
    assert results["response"] == "fail"
    assert judged.trials is None
    assert judged.standing == "failed"


@pytest.mark.parametrize("regime", ["exact", "noisy"])
@pytest.mark.parametrize("factor", [0.0, 0.5, 1.01, 1e6])
async def test_longer_or_shorter_vectors_point_where_they_should_and_are_others(
    factor: float, regime: str, calibrations: dict[str, Calibration]
) -> None:
    """By their cosine nothing would be wrong with most of them."""
    node = HONEST if regime == "exact" else OTHER_BUILD
    made = await served(Cheat(claims=node, bend=lambda rows: factor * rows), TEXTS)
    judged = judge(await case_of(made, calibrations[regime]), None)
    results = {one.name: one.result for one in judged.checks}
    assert (results["vectors"], judged.standing) == ("fail", "failed")


@pytest.mark.parametrize(
    "opened",
    [(), ("AAAA",), ("not base64!",) * 3, ("AADAfw==",) * 3, ("",) * 3],
    ids=["none", "one", "garbage", "no numbers", "empty"],
)
async def test_an_opening_that_is_no_vectors_fails(
    opened: tuple[str, ...], calibrations: dict[str, Calibration]
) -> None:
    made = but(await served(HONEST, TEXTS), vectors=opened)
    judged = judge(await case_of(made, calibrations["exact"]), None)
    assert (judged.result, judged.trials) == ("fail", None)


async def test_a_receipt_of_another_shape_fails(calibrations: dict[str, Calibration]) -> None:
    made = await served(HONEST, TEXTS)
    for part, members in (
        ("usage", {"counted": False}),
        ("usage", {"completion": 1}),
        ("usage", {"cached": 1}),
        ("response", {"chunks": 2}),
    ):
        judged = judge(await case_of(saying(made, part, **members), calibrations["exact"]), None)
        assert judged.result == "fail"


async def test_a_request_that_nobody_serves_fails(calibrations: dict[str, Calibration]) -> None:
    made = but(await served(HONEST, TEXTS), request=msgspec.Raw(b'{"model":"m"}'))
    judged = judge(await case_of(made, calibrations["exact"]), None)
    assert judged.result == "fail"


@pytest.mark.parametrize("regime", ["exact", "noisy"])
async def test_the_numbers_come_out_again(
    regime: str, calibrations: dict[str, Calibration]
) -> None:
    measure = calibrations[regime]
    node = HONEST if regime == "exact" else OTHER_BUILD
    (judged,) = await stream(node, measure, answers=1)
    again = recompute.numbers(judged.bundle, calibration.encode(measure))
    assert again.state == judged.state
    changed = judged.bundle.replace(b"vectors are", b"tokens are")
    if regime == "exact":
        with pytest.raises(VerificationError):
            recompute.numbers(changed, calibration.encode(measure))


async def test_a_cheat_that_says_it_has_other_kernels_is_judged_by_their_noise(
    calibrations: dict[str, Calibration],
) -> None:
    """What rounding saves hides there, which is why the exact regime is worth having."""
    rounded = Cheat(claims=OTHER_BUILD, **CHEATS["rounded to float16"])  # type: ignore[arg-type]
    judged = await stream(rounded, calibrations["noisy"], answers=20)
    assert judged[-1].standing != "failed"


FLOATS = arrays.arrays(np.dtype("<f4"), 8, elements=st.floats(-2.0, 2.0, width=32, allow_nan=False))


@given(FLOATS, FLOATS)
def test_distance_is_bounded_symmetric_and_nothing_for_oneself(
    one: np.ndarray, other: np.ndarray
) -> None:
    a, b = one.tobytes(), other.tobytes()
    far = embedding.distance(a, b)
    assert 0.0 <= far <= 2.0 + 1e-12
    assert far == embedding.distance(b, a)
    (level,) = embedding.compare([a], [b], clip=embedding.CLIP).margins
    assert 0 <= level <= LEVELS
    assert embedding.compare([a], [a], clip=embedding.CLIP).mismatches == 0


async def test_what_was_embedded_shows_in_no_repr() -> None:
    made = await served(HONEST, TEXTS)
    remade = await embedding.measure(made.receipt, made.content, HONEST)
    assert "a dog" not in repr(remade)
    assert repr(remade) == "Remade(3 vectors)"
