"""What an answer costs, to the billionth of a dollar."""

import pytest

from trunkline.base.money import MicroUsd
from trunkline.gateway.core.policy import Price
from trunkline.gateway.core.price import (
    COMPLETION_TOKENS_UNSAID,
    COST_NUSD_MAX,
    Tokens,
    cost_nusd,
    most_tokens,
)

PRICE = Price(
    input=MicroUsd.parse("1.25"), output=MicroUsd.parse("10"), cached_input=MicroUsd.parse("0.125")
)


@pytest.mark.parametrize(
    ("prompt", "completion", "cached", "nusd"),
    [
        (1_000_000, 0, 0, 1_250_000_000),
        (0, 1_000_000, 0, 10_000_000_000),
        (1_000_000, 0, 1_000_000, 125_000_000),
        (1, 0, 0, 1_250),
        (1, 0, 1, 125),
        (100, 10, 40, 60 * 1_250 + 40 * 125 + 10 * 10_000),
        # More from the cache than there was: a provider's mistake never makes it cheaper.
        (10, 0, 99, 10 * 125),
        (0, 0, 0, 0),
    ],
)
def test_the_cost_is_exact(prompt: int, completion: int, cached: int, nusd: int) -> None:
    assert cost_nusd(PRICE, Tokens(prompt=prompt, completion=completion, cached=cached)) == nusd


def test_cached_tokens_without_a_price_of_their_own_cost_as_others_do() -> None:
    price = Price(input=PRICE.input, output=PRICE.output)
    assert cost_nusd(price, Tokens(prompt=8, completion=0, cached=8)) == 8 * 1_250


def test_less_than_the_unit_is_rounded_up() -> None:
    price = Price(input=MicroUsd(1), output=MicroUsd(0))
    assert cost_nusd(price, Tokens(prompt=1, completion=0)) == 1
    assert cost_nusd(price, Tokens(prompt=1_001, completion=0)) == 2


def test_an_absurd_usage_has_a_bound() -> None:
    assert cost_nusd(PRICE, Tokens(prompt=2**53, completion=2**53)) == COST_NUSD_MAX


@pytest.mark.parametrize(
    ("request_", "choices", "completion"),
    [
        (b'{"max_tokens":5}', 1, 5),
        (b'{"max_completion_tokens":7,"max_tokens":5}', 3, 21),
        (b'{"max_completion_tokens":1,"max_tokens":500}', 2, 1000),
        (b'{"max_tokens":null}', 1, COMPLETION_TOKENS_UNSAID),
        (b"{}", 2, 2 * COMPLETION_TOKENS_UNSAID),
        (b'{"max_tokens":"many"}', 1, COMPLETION_TOKENS_UNSAID),
    ],
)
def test_the_most_tokens_of_a_chat(request_: bytes, choices: int, completion: int) -> None:
    assert most_tokens(request_, "chat", choices) == Tokens(
        prompt=len(request_), completion=completion
    )


def test_embeddings_generate_nothing() -> None:
    assert most_tokens(b'{"input":"abc"}', "embeddings", 1) == Tokens(prompt=15, completion=0)
