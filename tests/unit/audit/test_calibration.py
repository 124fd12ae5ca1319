"""Calibrations: bounds from honest answers, and bytes that mean one thing."""

import msgspec
import numpy as np
import pytest
from tests.support.auditing import PARTIES, PROMPTS, exact

from trunkline.audit import calibration
from trunkline.audit.calibration import ANSWERS_MIN, Calibration, build, decode, encode
from trunkline.audit.trials import BINS, EDGES, LEVELS, Trials, bin_of, quantise
from trunkline.base.errors import MalformedError
from trunkline.inference.ports import TokenScore
from trunkline.sequential import FRACTIONS, mismatch_rate_max


def answers(count: int = 200, mean: float = 0.01, seed: int = 1) -> list[Trials]:
    """Answers of 50 tokens in two bins; the second is ten times as noisy, and answers differ."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        own = generator.gamma(2.0, mean / 2)
        bins = generator.integers(1, 3, 50)
        margins = generator.random(50) < own * np.where(bins == 2, 10, 1) * 2
        levels = (margins * generator.random(50) * LEVELS).astype(int)
        found.append(
            Trials(
                bins=tuple(bins.tolist()),
                ends=(0,),
                margins=tuple(levels.tolist()),
                mismatches=int((levels > 0).sum()),
                tokens=50,
            )
        )
    return found


def noisy(found: list[Trials] | None = None) -> Calibration:
    return build(
        found or answers(), parties=PARTIES, regime="noisy", prompts=PROMPTS, seeds="0 to 199"
    )


def test_bounds_lie_above_the_means_and_not_far_above() -> None:
    made = noisy()
    for at in (1, 2):
        mean, mu = float(made.bins[at].mean), made.means[at]
        assert mu is not None
        assert mean < mu < 3 * mean + 0.002
    assert made.mu0 == made.means[1]


def test_bounds_are_raised_where_some_answers_are_noisy_throughout() -> None:
    calm = [_one(bins=(1,) * 50, margins=(0,) * 49 + (LEVELS // 10,))] * 99
    wild = _one(bins=(1,) * 50, margins=(LEVELS // 10,) * 50)
    assert float(noisy([*calm, calm[0]]).inflation) == 1.0
    raised = noisy([*calm, wild])
    assert float(raised.inflation) > 1.0
    # On that answer itself the boldest bet gains no more than the others of it lose.
    ratios = raised.scores(wild) / raised.mu0
    growth = [np.prod(1 - f + f * ratios) for f in FRACTIONS]
    others = [np.prod(1 - f + f * raised.scores(calm[0]) / raised.mu0) for f in FRACTIONS]
    assert max((g + 99 * o) / 100 for g, o in zip(growth, others, strict=True)) <= 1.0


def test_answers_without_any_common_bound_are_refused() -> None:
    calm = [_one(bins=(1,) * 100, margins=(0,) * 100)] * 399
    wild = [_one(bins=(1,) * 100, margins=(LEVELS,) * 100)]
    with pytest.raises(ValueError, match="no bound holds"):
        noisy([*calm, *wild])


def test_a_bin_that_few_answers_reach_says_nothing() -> None:
    found = [*answers(), *[_one(bins=(5,), margins=(LEVELS,))] * (ANSWERS_MIN - 1)]
    made = noisy(found)
    assert made.means[5] is None
    assert made.scores(_one(bins=(5, 1), margins=(LEVELS, LEVELS))).tolist() == [1.0]
    enough = noisy([*found, _one(bins=(5,), margins=(LEVELS,))])
    assert enough.means[5] is not None


def test_a_bin_that_showed_nothing_is_still_bounded() -> None:
    made = noisy([_one(bins=(1,) * 40, margins=(0,) * 40)] * 100)
    assert made.means[1] == pytest.approx(2.996 / 4000, rel=1e-3)


def test_scores_of_all_bins_have_one_mean_to_be_held_against() -> None:
    made = noisy()
    one, two = made.means[1], made.means[2]
    assert one is not None
    assert two is not None
    scores = made.scores(_one(bins=(1, 2, 1), margins=(LEVELS, LEVELS, 0)))
    assert scores.tolist() == [1.0, one / two, 0.0]


def test_the_exact_regime_counts_answers() -> None:
    made = exact(3_200)
    assert made.mu0 == mismatch_rate_max(3_200, 0.95)
    assert made.scores(_one(bins=(1,), margins=(9,), mismatches=1)).tolist() == [1.0]
    assert made.scores(_one(bins=(1,), margins=(9,))).tolist() == [0.0]


def test_honest_answers_that_mismatch_are_no_exact_calibration() -> None:
    with pytest.raises(ValueError, match="does not hold"):
        build(answers(), parties=PARTIES, regime="exact", prompts=PROMPTS, seeds="")
    with pytest.raises(ValueError, match="made from answers"):
        build([], parties=PARTIES, regime="exact", prompts=PROMPTS, seeds="")
    with pytest.raises(ValueError, match="enough answers"):
        build(answers(3), parties=PARTIES, regime="noisy", prompts=PROMPTS, seeds="")


def test_the_same_answers_give_the_same_bytes_and_bytes_read_back() -> None:
    made = noisy()
    assert encode(made) == encode(noisy())
    assert decode(encode(made)) == made
    assert decode(encode(made)).digest == made.digest
    assert made.digest != noisy(answers(seed=2)).digest
    for other in (exact(), calibration.unmeasured(PARTIES)):
        assert decode(encode(other)) == other


@pytest.mark.parametrize(
    "change",
    [
        {"alpha": "2"},
        {"clip": "0"},
        {"run_length": "1"},
        {"trust_rate": "0"},
        {"trust_alpha": "1"},
        {"bins": ()},
        {"edges": ()},
        {"regime": "exact"},
        {"regime": "none"},
    ],
)
def test_parts_that_can_not_stand_together_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(MalformedError):
        decode(encode(msgspec.structs.replace(noisy(), **change)))


def test_other_bytes_are_refused() -> None:
    data = encode(noisy())
    for wrong in (b"", b"{}", data + b" ", data.replace(b'"alpha"', b'"alphb"'), b"[" * 5000):
        with pytest.raises(MalformedError):
            decode(wrong)


def test_entropy_bins_are_closed_above_and_greedy_has_its_own() -> None:
    assert bin_of(0.0) == 0
    assert bin_of(1e-9) == 1
    assert [bin_of(edge) for edge in EDGES] == list(range(BINS - 1))
    assert bin_of(99.0) == BINS - 1


def _score(**changes: object) -> TokenScore:
    plain = {
        "token": 5, "position": 0, "margin": 0.0, "kept": True, "decided": True, "entropy": 1.0,
        "end": 0.0,
    }  # fmt: skip
    return TokenScore(**(plain | changes))  # type: ignore[arg-type]


def test_margins_are_clipped_and_rounded_in_the_nodes_favour() -> None:
    choice = [
        _score(),
        _score(margin=0.25),
        _score(margin=9.0),
        _score(margin=0.0, kept=False),
        _score(margin=5.0, decided=False),
    ]
    made = quantise([choice], clip=0.5, end_tokens={1})
    assert made.margins == (0, LEVELS // 2, LEVELS, LEVELS)
    assert (made.mismatches, made.tokens, made.bins) == (3, 5, (4,) * 4)


def test_an_end_counts_how_unlikely_it_was_not_to_have_come_before() -> None:
    ended = [_score(end=0.5), _score(token=1, end=0.5)]
    cut = [_score(end=0.5), _score(end=0.0)]
    made = quantise([ended, cut, []], clip=1.0, end_tokens={1})
    assert made.ends == (LEVELS // 4, LEVELS // 4)


def _one(bins: tuple[int, ...], margins: tuple[int, ...], mismatches: int = 0) -> Trials:
    return Trials(bins=bins, ends=(0,), margins=margins, mismatches=mismatches, tokens=len(bins))
