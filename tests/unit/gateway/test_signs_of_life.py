"""Which chunks keep an attempt from being given up once its text has begun."""

import json

import pytest
from tests.unit.gateway.test_prefix import HEAD, Machine, chunk


def flowing() -> tuple[Machine, int, float]:
    """An answer whose text has begun, the number of its attempt, and when that is given up."""
    machine = Machine()
    machine.accept()
    machine.say(chunk("", role="assistant"), chunk("Rivers "))
    number = machine.start.number
    return machine, number, machine.answer.due_s(number)


def hear(machine: Machine, number: int, event: int, data: bytes, **more: tuple[int, int]) -> float:
    """The node sends a chunk five seconds later. When the attempt is given up now."""
    machine.do(machine.answer.on_chunk(number, event, (), data, 5.0, **more))
    return machine.answer.due_s(number)


@pytest.mark.parametrize(
    "data",
    [
        chunk(""),
        chunk(),
        chunk(role="assistant"),
        chunk(None, content=None, tool_calls=[], refusal=None, reasoning=""),
        json.dumps(HEAD | {"choices": []}).encode(),
        json.dumps(HEAD | {"choices": [{"index": 0, "content_filter_results": {"a": 1}}]}).encode(),
    ],
)
def test_chunks_that_say_nothing_are_shown_and_do_not_count(data: bytes) -> None:
    machine, number, due_s = flowing()
    shown = len(machine.shown)
    for event in range(2, 40):
        assert hear(machine, number, event, data) == due_s
    assert len(machine.shown) == shown + 38


@pytest.mark.parametrize(
    "data",
    [
        chunk("carry "),
        chunk(reasoning_content="hm"),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": "{"}}]),
        chunk(audio={"data": "UklGRg=="}),
    ],
)
def test_whatever_an_app_could_use_counts(data: bytes) -> None:
    machine, number, due_s = flowing()
    assert hear(machine, number, 2, data) == due_s + 5.0


def test_a_count_that_grows_is_progress_and_one_that_stands_is_none() -> None:
    machine, number, due_s = flowing()
    assert hear(machine, number, 2, chunk(""), used=(11, 1)) == due_s + 5.0
    again = machine.answer.on_chunk(number, 3, (), chunk(""), 9.0, used=(11, 1))
    machine.do(again)
    assert machine.answer.due_s(number) == due_s + 5.0
