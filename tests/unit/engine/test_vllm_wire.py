"""What a vLLM server may answer: what is no answer to the question is refused by its name."""

import json
from collections.abc import Callable

import pytest

from trunkline.base.errors import BadResponseError
from trunkline.engine import vllm_wire as wire

VOCABULARY = 100
DEEP = b'{"choices":[],"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


def scored(second: object, *, prompt: object = (1, 2)) -> list[wire.Leading]:
    choice = {"prompt_token_ids": prompt, "prompt_logprobs": [None, second]}
    body = json.dumps({"choices": [choice]}).encode()
    return wire.scored(body, (1, 2), 1, candidates=2, vocabulary=VOCABULARY)


def value(*tokens: object) -> dict[str, dict[str, float]]:
    return {str(token): {"logprob": -1.0} for token in tokens}


def test_the_claimed_token_comes_on_top_of_the_likeliest() -> None:
    for said in (value(2, 7), value(2, 7, 9)):
        (found,) = scored(said)
        assert (found.tokens.size, found.claimed) == (2, -1.0)


@pytest.mark.parametrize(
    "second",
    [None, [], {}, value(3, 7), value(2), value(2, 7, 8, 9), value(2, "x"), {"2": {}, "7": {}},
     value(2, -7), value(2, VOCABULARY), value(2, 10**30)],
)  # fmt: skip
def test_values_that_are_none_of_a_position_are_refused(second: object) -> None:
    with pytest.raises(BadResponseError) as refused:
        scored(second)
    assert refused.value.error_code == wire.NOT_AN_ANSWER


@pytest.mark.parametrize("prompt", [None, [], [1, 3], [1, 2, 2]])
def test_values_of_another_prompt_are_refused(prompt: object) -> None:
    with pytest.raises(BadResponseError, match="another prompt"):
        scored(value(2, 7), prompt=prompt)


@pytest.mark.parametrize(
    "read",
    [wire.event, lambda raw: wire.scored(raw, (1, 2), 1, candidates=2, vocabulary=VOCABULARY)],
)
@pytest.mark.parametrize(
    "raw", [b"", b"[]", DEEP, b'{"choices":[{"finish_reason":"\xff"},{}]}', b'{"choices":[{},{}]}']
)
def test_what_is_no_answer_is_refused(read: Callable[[bytes], object], raw: bytes) -> None:
    with pytest.raises(BadResponseError) as refused:
        read(raw)
    assert refused.value.error_code == wire.NOT_AN_ANSWER


@pytest.mark.parametrize("name", ["token_id:-1", f"token_id:{VOCABULARY}", "token_id:x", " the"])
def test_a_token_that_there_is_not_has_no_log_probability(name: str) -> None:
    said = wire.Logprobs(token_logprobs=[-1.0], top_logprobs=[{name: -1.0}])
    piece = wire.Piece(token_ids=[3], logprobs=said)
    with pytest.raises(BadResponseError, match="token"):
        wire.beside(piece, 0, 1, vocabulary=VOCABULARY)
    assert wire.beside(piece, 0, -1, vocabulary=VOCABULARY) == (0.0, ())
