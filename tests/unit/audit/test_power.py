"""What tests on accumulated scores promise, by simulation: few false alarms, and cheats found.

Logits are synthetic: 64 tokens, hard and easy places mixed. Another engine's rounding is noise on
them whose size differs from answer to answer, which is what makes tokens of one answer go together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import msgspec
import numpy as np
from tests.support.auditing import PARTIES, PROMPTS

from trunkline.audit.calibration import Calibration, build
from trunkline.audit.standing import State, update
from trunkline.audit.trials import Trials, quantise
from trunkline.inference.ports import Sampling, TokenScore
from trunkline.sampling import choose, score

VOCABULARY = 64
TOKENS = 25
ALPHA = 0.05


@dataclass(frozen=True)
class Cheat:
    bent: float = 0.0
    """Other weights: noise on the node's logits, far more than rounding."""
    temperature: float = 1.0
    other_seed: bool = False


HONEST = Cheat()


def answer(number: int, cheat: Cheat) -> Trials:
    generator = np.random.default_rng((7, number))
    rounding = 0.02 * generator.gamma(1.0)
    said = Sampling(seed=generator.bytes(32))
    own = msgspec.structs.replace(
        said,
        temperature=cheat.temperature,
        seed=bytes(32) if cheat.other_seed else said.seed,
    )
    scores = []
    for position in range(TOKENS):
        spread = generator.choice([1.0, 3.0, 8.0])
        logits = spread * generator.standard_normal(VOCABULARY)
        noise = (rounding + cheat.bent) * generator.standard_normal(VOCABULARY)
        token = choose(
            (logits + noise).astype(np.float32), own, seed=own.seed, position=position, counts={}
        )
        held = score(
            logits.astype(np.float32), said, seed=said.seed, position=position, counts={},
            token=token, ends=(0,),
        )  # fmt: skip
        scores.append(
            TokenScore(
                token=token, position=position, margin=held.margin, kept=held.kept,
                decided=held.decided, entropy=held.entropy, end=0.0,
            )
        )  # fmt: skip
    return quantise([scores], clip=0.25, end_tokens={0})


@cache
def calibration() -> Calibration:
    honest = [answer(number, HONEST) for number in range(200)]
    return build(
        honest, parties=PARTIES, regime="noisy", prompts=PROMPTS, seeds="0 to 199", alpha=ALPHA
    )


@cache
def held_out() -> tuple[Trials, ...]:
    return tuple(answer(number, HONEST) for number in range(1_000, 1_120))


def after(answers: Sequence[Trials]) -> State:
    state = State.start(calibration())
    for one in answers:
        state = update(state, calibration(), one, fault=False)
        if state.failed:
            break
    return state


def tokens_to_fail(cheat: Cheat, most: int) -> int:
    found = []
    for stream in range(5):
        numbers = range(5_000 + 100 * stream, 5_000 + 100 * stream + most // TOKENS)
        state = State.start(calibration())
        for number in numbers:
            state = update(state, calibration(), answer(number, cheat), fault=False)
            if state.failed:
                break
        found.append(state.tokens if state.failed else 10**9)
    return int(np.median(found))


def test_honest_streams_fail_no_oftener_than_alpha() -> None:
    generator = np.random.default_rng(3)
    pool = held_out()
    failed = 0
    for _ in range(60):
        drawn = generator.choice(len(pool), size=40, replace=False)
        failed += bool(after([pool[at] for at in drawn]).failed)
    assert failed <= 60 * ALPHA


def test_honest_noise_of_held_out_answers_lies_below_its_bound() -> None:
    scores = np.concatenate([calibration().scores(one) for one in held_out()])
    assert 0 < scores.mean() < calibration().mu0


def test_a_wrong_seed_is_found_in_one_answer() -> None:
    assert tokens_to_fail(Cheat(other_seed=True), 100) == TOKENS


def test_other_weights_are_found() -> None:
    assert tokens_to_fail(Cheat(bent=0.5), 400) <= 100


def test_another_temperature_is_found() -> None:
    assert tokens_to_fail(Cheat(temperature=0.6), 1_000) <= 500


def test_a_cheat_that_is_as_small_as_rounding_is_not_found() -> None:
    # Said plainly: what hides in the honest noise of two engines is beyond this test.
    assert tokens_to_fail(Cheat(bent=0.005), 500) > 500


def test_trust_in_an_honest_node_comes() -> None:
    state = State.start(calibration())
    for one in held_out():
        state = update(state, calibration(), one, fault=False)
    assert state.standing == "good"
