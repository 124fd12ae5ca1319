"""Scoring inside the batcher: honest answers have margin 0 in any company, others do not; the
grammar follows the answer as claimed; the self-test notices an engine that is not exact."""

import numpy as np
import pytest
from tests.unit.engine.test_batcher import (
    END,
    OURS,
    PROMPTS,
    FakeMemory,
    alone,
    batcher,
    generate,
)
from tests.unit.engine.test_batcher import running as running_job
from tests.unit.engine.test_sequence import FakeGrammar, falling

from trunkline.base.errors import Error, UpstreamError
from trunkline.engine.batcher import Batcher
from trunkline.engine.scoring import Scoring
from trunkline.engine.self_test import STEPS, TOKENS, Probe, SelfTest, script
from trunkline.inference.ports import Generate, Sampling, Score, TokenScore


def claimed(job: Generate, tokens: tuple[int, ...], **changes: object) -> Score:
    sampling = Sampling(**{name: getattr(job.sampling, name) for name in FIELDS} | changes)
    return Score(prompt=job.prompt, tokens=tokens, sampling=sampling, sharing=job.sharing)


FIELDS = ("seed", "logit_bias", "temperature", "top_p", "top_k", "min_p", "frequency_penalty")
RULES: list[dict[str, object]] = [
    {},
    {"temperature": 0.0},
    {"top_p": 0.8, "frequency_penalty": 0.9},
    {"top_k": 5, "min_p": 0.05, "temperature": 1.7},
]


def scoring(id_: int, job: Score) -> Scoring:
    return Scoring(id_, job, ends=frozenset({END}), constraint=None)


def scores(shared: Batcher) -> dict[int, list[TokenScore]]:
    found: dict[int, list[TokenScore]] = {}
    while shared.busy:
        for moves in (shared.advance_answers(), shared.advance_prompt()):
            for id_, outcome in moves:
                assert not isinstance(outcome, Error)
                found.setdefault(id_, []).extend(
                    event for event in outcome if isinstance(event, TokenScore)
                )
    return found


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_an_honest_answer_has_margin_zero_beside_generation(
    prompt: list[int], rule: dict[str, object]
) -> None:
    job = generate(prompt, **rule)
    answer = tuple(event.token for event in alone(job))
    shared, _ = batcher()
    for id_ in (1, 2):
        shared.add(running_job(id_, generate(PROMPTS[-id_])))
    shared.add(scoring(3, claimed(job, answer)))
    shared.add(running_job(4, generate(PROMPTS[3])))
    found = scores(shared)[3]
    assert [score.token for score in found] == list(answer)
    assert [score.position for score in found] == list(range(20))
    assert all(score.kept and score.margin == 0.0 for score in found)


def test_scoring_changes_nothing_about_generation() -> None:
    shared, _ = batcher()
    jobs = {id_: generate(PROMPTS[id_]) for id_ in range(len(PROMPTS))}
    for id_, job in jobs.items():
        shared.add(running_job(id_, job))
        shared.add(scoring(100 + id_, claimed(job, (5, 6, 7, 8, 9, 10, 11))))
    tokens: dict[int, list[int]] = {}
    while shared.busy:
        for id_, outcome in shared.advance_answers() + shared.advance_prompt():
            assert not isinstance(outcome, Error)
            tokens.setdefault(id_, []).extend(event.token for event in outcome)
    assert {id_: tokens[id_] for id_ in jobs} == {
        id_: [event.token for event in alone(job)] for id_, job in jobs.items()
    }


@pytest.mark.parametrize("change", [{"seed": b"other" + bytes(27)}, {"temperature": 2.5}])
def test_another_rule_shows(change: dict[str, object]) -> None:
    job = generate(PROMPTS[-1])
    answer = tuple(event.token for event in alone(job))
    shared, _ = batcher()
    shared.add(scoring(1, claimed(job, answer, **change)))
    assert sum(score.margin > 0 for score in scores(shared)[1]) > 5


def test_a_second_audit_of_a_conversation_computes_only_what_is_new() -> None:
    shared, memory = batcher()
    job = generate(PROMPTS[-1], sharing=OURS)
    shared.add(scoring(1, claimed(job, (3, 4, 5))))
    scores(shared)
    memory.batches.clear()
    shared.add(scoring(2, claimed(job, (9, 8, 7))))
    scores(shared)
    # The prompt's last token, whose logits are wanted, and two of the answer's three.
    assert memory.batches == [3]


def test_cancelling_stops_scoring() -> None:
    shared, memory = batcher()
    shared.add(scoring(1, claimed(generate(PROMPTS[-1]), tuple(range(20)))))
    shared.advance_prompt()
    shared.cancel(1)
    assert not shared.busy
    assert len(memory.batches) == 1


def constrained(grammar: FakeGrammar, *tokens: int) -> Scoring:
    job = Score(prompt=(1, 2), tokens=tokens, sampling=Sampling(temperature=0))
    return Scoring(1, job, ends=frozenset({9}), constraint=grammar)


def test_with_a_grammar_the_best_admitted_token_has_margin_zero() -> None:
    run = constrained(FakeGrammar({4, 5}, {7}), 4, 7)
    (first,) = run.take(1, falling())
    (second,) = run.take(2, falling())
    assert (first.kept, first.margin, second.kept, second.margin) == (True, 0.0, True, 0.0)
    assert run.ended
    (worse,) = constrained(FakeGrammar({4, 5}), 5).take(1, falling())
    assert (worse.kept, worse.margin) == (True, 1.0)


def test_what_follows_a_contradiction_of_the_grammar_is_not_kept() -> None:
    grammar = FakeGrammar({4, 5}, {7})
    run = constrained(grammar, 0, 7, 0)
    kept = [run.take(position, falling())[0].kept for position in (1, 2, 3)]
    assert kept == [False, False, False]
    assert grammar.closed


def test_logits_that_are_no_numbers_end_the_job_with_a_named_error() -> None:
    run = scoring(1, Score(prompt=(1,), tokens=(2,), sampling=Sampling()))
    with pytest.raises(UpstreamError) as caught:
        run.take(0, np.full(10, np.nan, dtype=np.float32))
    assert caught.value.error_code == "score_impossible"


def self_test(memory: FakeMemory) -> str | Error:
    shared = Batcher(memory, slots=4, piece_tokens=8, queue_jobs_max=8)
    test = SelfTest(1, 97)
    while probes := test.stage():
        for probe in probes:
            shared.add(probe)
        staged = False
        while shared.busy:
            for id_, outcome in shared.advance_answers() + shared.advance_prompt():
                assert test.owns(id_)
                assert not isinstance(outcome, Error)
                staged = test.note(id_, [event for event in outcome if isinstance(event, bytes)])
        assert staged
    assert len(test.probes) == 4
    return test.result()


def test_the_self_test_is_the_same_on_each_exact_engine_and_tells_others() -> None:
    first = self_test(FakeMemory(4))
    assert isinstance(first, str)
    assert first.startswith("sha256:")
    assert self_test(FakeMemory(4)) == first

    class OtherWeights(FakeMemory):
        def logits(self, index: int) -> np.ndarray:
            return super().logits(index) * np.float32(1 + 2**-20)

    assert self_test(OtherWeights(4)) != first


def test_the_self_test_notices_that_company_changes_bits() -> None:
    class Inexact(FakeMemory):
        def logits(self, index: int) -> np.ndarray:
            return super().logits(index) * np.float32(1 + 2**-20 * (self.batches[-1] > 2))

    result = self_test(Inexact(4))
    assert isinstance(result, UpstreamError)
    assert result.error_code == "engine_not_exact"


def test_a_probe_takes_its_last_steps_one_at_a_time() -> None:
    tokens = script(97)
    assert len(set(tokens)) == TOKENS
    probe = Probe(-1, tokens, steps=STEPS)
    assert len(probe.tokens) == TOKENS - STEPS
    logits = np.zeros(97, dtype=np.float32)
    for position in range(TOKENS):
        assert not probe.ended
        assert position < len(probe.tokens)
        probe.take(position, logits)
    assert probe.ended
