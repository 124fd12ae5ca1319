"""Batching rules, against a memory that checks each micro-batch and computes logits that a wrong
cache would change."""

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from trunkline.base.errors import Error, OverloadedError
from trunkline.engine.batcher import Batcher
from trunkline.engine.sequence import Running
from trunkline.inference.ports import NOT_SHARED, Generate, Sampling, Sharing, Token

VOCABULARY = 97
END = 96
ROOM = 64
PIECE = 8
LONE_PIECE = 15
OURS, THEIRS = Sharing(scope="ours"), Sharing(scope="theirs")


class FakeMemory:
    """A context whose logits are a hash of the whole cache up to the row: any wrong, missing or
    misplaced token in it changes what comes next."""

    def __init__(self, slots: int) -> None:
        self.cache: list[list[int]] = [[] for _ in range(slots)]
        self.rows: dict[int, np.ndarray] = {}
        self.batches: list[int] = []
        self.outputs: list[int] = []
        self.copies = 0
        self.swapped: list[tuple[int, int]] = []
        """How long the two were that changed places."""

    def decode(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        sequences: Sequence[int],
        outputs: Sequence[bool],
    ) -> None:
        assert len(tokens) >= 2, "never one row"
        assert sum(outputs) != 1, "never one row in the output layer"
        lengths = {sequences.count(s) for s in sequences}
        assert len(lengths) == 1, "one piece, or one row each"
        assert sorted(set(sequences)) == list(range(min(sequences), max(sequences) + 1))
        self.batches.append(len(tokens))
        self.outputs.append(sum(outputs))
        self.rows = {}
        for row, (token, position, sequence) in enumerate(
            zip(tokens, positions, sequences, strict=True)
        ):
            held = self.cache[sequence]
            assert position == len(held) < ROOM, "a cache has no gaps"
            held.append(token)
            if outputs[row]:
                state = hash(tuple(held)) & 0xFFFFFFFF
                self.rows[row] = (
                    np.random.default_rng(state).standard_normal(VOCABULARY).astype(np.float32) * 4
                )

    def logits(self, index: int) -> np.ndarray:
        return self.rows[index]

    def forget(self, sequence: int, from_position: int) -> None:
        assert from_position <= len(self.cache[sequence])
        del self.cache[sequence][from_position:]

    def copy(self, source: int, target: int) -> None:
        assert source != target
        self.copies += 1
        self.cache[target] = list(self.cache[source])

    def swap(self, one: int, other: int) -> None:
        self.swapped.append((len(self.cache[one]), len(self.cache[other])))
        self.cache[one], self.cache[other] = self.cache[other], self.cache[one]


def running(id_: int, job: Generate) -> Running:
    return Running(
        id_, job, end_tokens=frozenset({END}), vocabulary_size=VOCABULARY, constraint=None
    )


def generate(
    prompt: Sequence[int],
    prefix: Sequence[int] = (),
    sharing: Sharing = NOT_SHARED,
    **sampling: object,
) -> Generate:
    return Generate(
        sharing=sharing,
        prompt=tuple(prompt),
        prefix=tuple(prefix),
        max_tokens=20,
        sampling=Sampling(seed=bytes([len(prompt)]) * 32, logit_bias={END: -100.0}, **sampling),
    )


def drain(batcher: Batcher) -> dict[int, list[Token]]:
    """Run everything to its end."""
    answers: dict[int, list[Token]] = {}
    while batcher.busy:
        for moves in (batcher.advance_answers(), batcher.advance_prompt()):
            for id_, outcome in moves:
                assert not isinstance(outcome, Error)
                answers.setdefault(id_, []).extend(outcome)
    return answers


def batcher(slots: int = 4, queue: int = 64) -> tuple[Batcher, FakeMemory]:
    memory = FakeMemory(slots)
    made = Batcher(
        memory,
        slots=slots,
        piece_tokens=PIECE,
        lone_piece_tokens=LONE_PIECE,
        queue_jobs_max=queue,
    )
    return made, memory


def alone(job: Generate) -> list[Token]:
    only, _ = batcher()
    only.add(running(1, job))
    return drain(only)[1]


PROMPTS = [[p * 7 % VOCABULARY for p in range(1, n + 1)] for n in (1, 2, 3, 8, 9, 10, 17, 25, 40)]


def test_company_changes_nothing() -> None:
    jobs = {i: generate(prompt) for i, prompt in enumerate(PROMPTS)}
    shared, _ = batcher()
    for id_, job in jobs.items():
        shared.add(running(id_, job))
    assert drain(shared) == {id_: alone(job) for id_, job in jobs.items()}


@pytest.mark.parametrize("cut", [1, 7, 19])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_prefix_is_continued_with_the_tail_and_scored_again(prompt: list[int], cut: int) -> None:
    whole = alone(generate(prompt, top_logprobs=2))
    prefix = [event.token for event in whole[:cut]]
    again = alone(generate(prompt, prefix, top_logprobs=2))
    assert [(e.token, e.position, e.logprob, e.top, e.finish) for e in again] == [
        (e.token, e.position, e.logprob, e.top, e.finish) for e in whole
    ]
    assert [e.replayed for e in again] == [True] * cut + [False] * (20 - cut)
    unscored = alone(generate(prompt, prefix))
    assert [(e.token, e.finish) for e in unscored] == [(e.token, e.finish) for e in whole[cut:]]


def test_a_common_beginning_is_computed_once_and_changes_nothing() -> None:
    shared, memory = batcher()
    first = generate(PROMPTS[-1], sharing=OURS)
    second = generate([*PROMPTS[-1][:30], 5, 6], sharing=OURS)
    shared.add(running(1, first))
    drain(shared)
    memory.batches.clear()
    shared.add(running(2, second))
    assert drain(shared)[2] == alone(second)
    # 30 of 32 tokens were there: one piece for the last two, then single rows with a filler.
    assert memory.batches == [2] * 20


def test_choices_of_one_prompt_compute_it_together() -> None:
    shared, memory = batcher()
    job = generate(PROMPTS[-1], sharing=OURS)
    for id_ in range(4):
        shared.add(running(id_, job))
    answers = drain(shared)
    assert all(answers[id_] == alone(job) for id_ in range(4))
    # All but the last of its 40 tokens, once; then a row for each of the four, twenty times.
    prefill = sum(memory.batches) - 4 * 20
    assert prefill < 2 * len(PROMPTS[-1])
    assert memory.copies >= 3


@pytest.mark.parametrize("sharing", [NOT_SHARED, THEIRS, Sharing(lead=3)])
def test_what_others_asked_is_computed_again(sharing: Sharing) -> None:
    shared, memory = batcher()
    for id_, its in enumerate((OURS, sharing, sharing if not sharing.scope else OURS)):
        memory.batches.clear()
        shared.add(running(id_, generate(PROMPTS[-1], sharing=its)))
        drain(shared)
        fresh = memory.batches[0] >= LONE_PIECE - 2
        assert fresh or (id_ == 2 and its is OURS), "only its own tenant takes it over"


def test_the_lead_serves_anybody_and_no_more_does() -> None:
    shared, memory = batcher()
    prompts = [[*PROMPTS[-1][:20], *range(40, 45)], [*PROMPTS[-1][:20], *range(40, 46)]]
    for id_, prompt in enumerate(prompts):
        memory.batches.clear()
        shared.add(running(id_, generate(prompt, sharing=Sharing(lead=20, scope=str(id_)))))
        drain(shared)
    # 20 of 26: five in a piece, the last as a single row. Ten would have been there.
    assert memory.batches[0] == 6
    assert memory.batches[1:] == [2] * 19


def test_nothing_but_the_lead_is_left_of_what_may_not_be_shared() -> None:
    shared, memory = batcher(slots=2)
    shared.add(running(1, generate(PROMPTS[-1], sharing=Sharing(lead=4))))
    drain(shared)
    shared.add(running(2, generate(PROMPTS[-2])))
    shared.advance_prompt()
    shared.cancel(2)
    assert sorted(map(len, memory.cache)) == [0, 4]


def test_jobs_lie_beside_each_other_and_keep_what_is_cached() -> None:
    shared, memory = batcher(slots=4)
    turns = [generate([*PROMPTS[-2], 50 + at], sharing=Sharing(scope=str(at))) for at in range(4)]
    for id_, job in enumerate(turns):
        shared.add(running(id_, job))
    drain(shared)
    # The conversations of the outer two go on: they change places rather than need fillers.
    for id_ in (0, 3):
        job = turns[id_]
        more = generate([*job.prompt, 7, 8], sharing=job.sharing)
        shared.add(running(10 + id_, more))
    memory.batches.clear()
    memory.outputs.clear()
    answers = drain(shared)
    assert max(memory.batches) == 2, "neighbours, and next to nothing computed again"
    for id_ in (0, 3):
        assert answers[10 + id_] == alone(generate([*turns[id_].prompt, 7, 8]))


def test_what_is_forgotten_anyway_is_not_moved() -> None:
    shared, memory = batcher(slots=3)
    for id_, tokens in enumerate((6, 9, 3)):
        job = generate(PROMPTS[-1], sharing=Sharing(scope=str(id_)))
        shared.add(running(id_, msgspec.structs.replace(job, max_tokens=tokens)))
    drain(shared)
    # The first takes the place of who left first, at the end; the next that of who left after, at
    # the beginning, and lies beside it.
    for id_ in (10, 11):
        shared.add(running(id_, generate(PROMPTS[-2], sharing=Sharing(scope=str(id_)))))
    shared.advance_prompt()
    assert memory.swapped == [(0, len(PROMPTS[-1]) + 8)]


def test_fillers_are_spared_the_output_layer_where_two_rows_are_not() -> None:
    shared, memory = batcher(slots=3)
    for id_, tokens in enumerate((20, 5, 20)):
        job = generate(PROMPTS[2])
        shared.add(running(id_, msgspec.structs.replace(job, max_tokens=tokens)))
    drain(shared)
    # All three at work, the one in the middle gone, and a lone one, whose filler has to have one.
    assert set(zip(memory.batches, memory.outputs, strict=True)) >= {(3, 3), (3, 2), (2, 2)}


def test_pieces_are_equal_and_larger_where_no_answer_waits() -> None:
    lone, memory = batcher()
    lone.add(running(1, generate(PROMPTS[-1])))
    drain(lone)
    # 40 by 15 at most; then single rows with a filler.
    assert memory.batches[:3] == [14, 13, 13]
    shared, memory = batcher()
    shared.add(running(1, generate([1, 2])))
    shared.advance_prompt()
    shared.add(running(2, generate(PROMPTS[-2])))
    memory.batches.clear()
    drain(shared)
    # 25 and one, by 8 at most; and one more with each row of the answer, beside which it lies.
    assert memory.batches[:6] == [2, 8, 2, 8, 2, 6]


def test_cancelling_frees_the_slot_for_the_next() -> None:
    shared, _ = batcher(slots=2)
    for id_ in range(1, 4):
        shared.add(running(id_, generate(PROMPTS[id_])))
    shared.advance_answers()
    shared.advance_prompt()
    shared.cancel(1)
    shared.cancel(1)
    answers = drain(shared)
    assert answers[3] == alone(generate(PROMPTS[3]))
    assert len(answers.get(1, [])) < 20
    assert not shared.busy


def test_a_waiting_job_can_be_cancelled() -> None:
    shared, _ = batcher(slots=2)
    for id_ in range(1, 4):
        shared.add(running(id_, generate(PROMPTS[id_])))
    shared.advance_answers()
    shared.cancel(3)
    assert set(drain(shared)) == {1, 2}


def test_the_queue_is_bounded() -> None:
    full, _ = batcher(queue=2)
    full.add(running(1, generate([1])))
    full.add(running(2, generate([1])))
    with pytest.raises(OverloadedError):
        full.add(running(3, generate([1])))


def test_a_long_prompt_does_not_hold_up_a_short_one() -> None:
    shared, _ = batcher()
    shared.add(running(1, generate(PROMPTS[-1])))
    shared.add(running(2, generate(PROMPTS[1])))
    order = []
    while shared.busy:
        moves = shared.advance_answers() + shared.advance_prompt()
        order += [id_ for id_, _ in moves]
    assert order[0] == 2


def test_an_end_token_stops_and_length_ends() -> None:
    job = generate([3, 4])
    events = alone(job)
    assert events[-1].finish == "length"
    assert not any(event.finish for event in events[:-1])
    biased = Generate(
        prompt=(3, 4), max_tokens=5, sampling=Sampling(temperature=0, logit_bias={END: 100.0})
    )
    assert [(e.token, e.finish) for e in alone(biased)] == [(END, "stop")]
