"""A job's own state: grammar, prefixes that can not be continued, and how answers end."""

import numpy as np
import pytest

from trunkline.base.errors import RequestError, UpstreamError
from trunkline.engine.sequence import Running
from trunkline.inference.ports import Generate, Sampling

VOCABULARY = 10
END = 9


class FakeGrammar:
    """Admits one token after another, in a fixed list of alternatives; then only the end."""

    def __init__(self, *steps: set[int]) -> None:
        self.steps = [*steps, {END}]
        self.at = 0
        self.closed = False

    def admitted(self, tokens: np.ndarray) -> np.ndarray:
        return np.array([int(token) in self.steps[self.at] for token in tokens], dtype=bool)

    def accept(self, token: int) -> None:
        assert token in self.steps[self.at], "the library would abort the process"
        self.at += 1

    def close(self) -> None:
        self.closed = True


def start(grammar: FakeGrammar | None, prefix: tuple[int, ...] = (), **sampling: object) -> Running:
    job = Generate(
        prompt=(1, 2), prefix=prefix, max_tokens=8, sampling=Sampling(temperature=0, **sampling)
    )
    return Running(
        1, job, end_tokens=frozenset({END}), vocabulary_size=VOCABULARY, constraint=grammar
    )


def falling() -> np.ndarray:
    """Logits that like low ids best."""
    return -np.arange(VOCABULARY, dtype=np.float32)


def test_the_best_admitted_token_is_chosen_and_a_complete_document_ends() -> None:
    run = start(FakeGrammar({4, 5}, {7}))
    (first,) = run.take(1, falling())
    (second,) = run.take(2, falling())
    assert (first.token, first.finish) == (4, "")
    assert (second.token, second.finish) == (7, "grammar")


def test_an_end_token_is_only_chosen_where_the_document_is_complete() -> None:
    likes_end = np.zeros(VOCABULARY, dtype=np.float32)
    likes_end[END] = 50
    run = start(FakeGrammar({4}, {5, END}))
    assert run.take(1, likes_end)[0].token == 4
    event = run.take(2, likes_end)[0]
    assert (event.token, event.finish) == (END, "stop")


def test_a_narrow_nucleus_never_contradicts_the_grammar() -> None:
    job = Generate(prompt=(1,), max_tokens=3, sampling=Sampling(top_p=0.01))
    run = Running(
        1,
        job,
        end_tokens=frozenset({END}),
        vocabulary_size=VOCABULARY,
        constraint=FakeGrammar({8}, {1}),
    )
    assert run.take(0, falling() * 5)[0].token == 8


def test_a_prefix_advances_the_grammar() -> None:
    run = start(FakeGrammar({4, 5}, {6}, {7}), prefix=(5, 6))
    assert run.take(3, falling())[0].token == 7


@pytest.mark.parametrize("prefix", [(4, 3), (END,), (4, 6)])
def test_a_prefix_that_can_not_be_continued_is_refused(prefix: tuple[int, ...]) -> None:
    grammar = FakeGrammar({4}, {6})
    with pytest.raises(RequestError) as caught:
        start(grammar, prefix=prefix)
    assert caught.value.error_code == "prefix_invalid"
    assert grammar.closed


def test_a_prefix_counts_for_penalties() -> None:
    near = np.zeros(VOCABULARY, dtype=np.float32)
    near[3], near[4] = 1.0, 0.9
    assert start(None, frequency_penalty=0.5).take(1, near)[0].token == 3
    assert start(None, prefix=(3,), frequency_penalty=0.5).take(2, near)[0].token == 4


def test_a_grammar_that_admits_nothing_is_an_error_not_a_loop() -> None:
    run = start(FakeGrammar(set()))
    with pytest.raises(UpstreamError) as caught:
        run.take(1, falling())
    assert caught.value.error_code == "grammar_dead_end"
    assert not caught.value.retryable
