"""A verifier's own questions look like those of ordinary apps, as far as their form goes."""

import asyncio
import random
from collections import Counter
from typing import NoReturn

import msgspec
import pytest
from tests.support.auditing import NODE

from trunkline.base.errors import ConnectError, TimedOutError
from trunkline.gateway.core.deadline import Timeouts
from trunkline.inference.plan import check_supported
from trunkline.runtime.clock import SystemClock
from trunkline.schema import openai_chat
from trunkline.schema.attempt import Attempt
from trunkline.verifier import asking, questions
from trunkline.verifier.demanding import KnownNode

MANY = 400


class Dice:
    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - of a test

    def token(self, size_bytes: int) -> bytes:
        return self._random.randbytes(size_bytes)


def made() -> list[dict[str, object]]:
    dice = Dice(7)
    return [questions.body("toy", dice) for _ in range(MANY)]


def test_they_can_be_served_and_cost_little() -> None:
    for body in made():
        request = openai_chat.parse(msgspec.json.encode(body))
        check_supported(request)
        (most,) = {"max_tokens", "max_completion_tokens"} & body.keys()
        assert str(body[most]) in map(str, range(16, 151))
        assert "{" not in str(body["messages"]).replace("{'", "")


def test_no_form_is_most_of_them() -> None:
    bodies = made()
    for member, low, high in (
        ("temperature", 0.5, 0.8), ("top_p", 0.1, 0.4), ("stop", 0.04, 0.3),
        ("stream_options", 0.2, 0.5), ("max_tokens", 0.5, 0.8),
    ):  # fmt: skip
        assert low < sum(member in body for body in bodies) / MANY < high
    shapes = Counter(tuple(sorted(body)) for body in bodies)
    assert max(shapes.values()) < MANY / 4
    sizes = [len(msgspec.json.encode(body["messages"])) for body in bodies]
    assert max(sizes) > 5 * min(sizes)
    texts = Counter(str(body["messages"]) for body in bodies)
    assert max(texts.values()) <= 3


def test_a_plant_says_nothing_that_is_in_a_list() -> None:
    """Other verifiers read it, and could know what is asked so often."""
    dice = Dice(8)
    text = " ".join(f"word{number}" for number in range(60))
    said = [questions.passage(text, dice) for _ in range(MANY)]
    assert len(set(said)) > MANY / 2
    assert all(one in text for one in said)
    assert questions.passage("too few words", dice) == ""
    for words in said:
        body = questions.body("toy", dice, sampled=True, words=words)
        assert body["messages"] == [{"role": "user", "content": words}]
        assert float(str(body["temperature"])) > 0.5


class Listening:
    """A node's caller that keeps what it was sent."""

    def __init__(self) -> None:
        self.heard: list[Attempt] = []

    async def attempt(self, attempt: Attempt, idle_timeout_s: float) -> NoReturn:
        self.heard.append(attempt)
        raise ConnectError("away", code="upstream_refused")


async def test_an_attempt_is_like_a_gateways() -> None:
    caller, dice = Listening(), Dice(8)
    node = KnownNode(key=NODE.vkey, operator="alpha.example", caller=caller)  # type: ignore[arg-type]
    for _ in range(20):
        with pytest.raises(ConnectError):
            await asking.ask(node, "toy", clock=SystemClock(), randomness=dice)
    left_ms = [attempt.deadline_ms for attempt in caller.heard]
    assert len(set(left_ms)) > 5
    # Of what a gateway gives an answer, a few milliseconds are gone before the node is asked.
    most_ms = Timeouts().total_s * 1000
    assert all(most_ms - 40 < one < most_ms for one in left_ms)
    assert {(one.kind, one.mode, one.audit, one.cache) for one in caller.heard} == {
        ("chat", "batched", True, "")
    }


async def test_a_node_that_never_ends_its_answer_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Silent(Listening):
        async def attempt(self, attempt: Attempt, idle_timeout_s: float) -> NoReturn:
            await asyncio.Event().wait()
            raise AssertionError

    monkeypatch.setattr(asking, "ANSWER_S_MAX", 0.01)
    node = KnownNode(key=NODE.vkey, operator="alpha.example", caller=Silent())  # type: ignore[arg-type]
    with pytest.raises(TimedOutError):
        await asking.ask(node, "toy", clock=SystemClock(), randomness=Dice(9))
