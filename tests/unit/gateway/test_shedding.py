"""Calls are shed before their bodies take the memory."""

from typing import Any

import pytest

from trunkline.base.errors import OverloadedError, RequestError
from trunkline.gateway.shedding import Bodies
from trunkline.runtime.http import Call


def call(body: bytes, *, declared: int | None) -> Call:
    headers = [] if declared is None else [(b"content-length", str(declared).encode())]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: dict[str, Any]) -> None:
        raise AssertionError("nothing is answered here")

    return Call({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive, send)


async def test_what_is_held_counts_until_the_call_is_over() -> None:
    bodies = Bodies(100, 60)
    first, second = call(b"x" * 50, declared=50), call(b"y" * 50, declared=50)
    assert await bodies.read(first) == b"x" * 50
    assert await bodies.read(second) == b"y" * 50
    with pytest.raises(OverloadedError) as caught:
        await bodies.read(call(b"z", declared=1))
    assert caught.value.retry_after_s > 0
    bodies.release(first)
    bodies.release(first)
    assert bodies.bytes == 50
    assert await bodies.read(call(b"z", declared=1)) == b"z"


async def test_a_body_of_undeclared_length_is_taken_for_the_largest_until_it_is_read() -> None:
    bodies = Bodies(100, 60)
    await bodies.read(call(b"x" * 50, declared=50))
    with pytest.raises(OverloadedError):
        await bodies.read(call(b"z", declared=None))
    small = Bodies(100, 60)
    await small.read(call(b"z", declared=None))
    assert small.bytes == 1


async def test_a_body_that_fails_to_come_is_released_with_its_call() -> None:
    bodies = Bodies(100, 60)
    large = call(b"x" * 61, declared=None)
    with pytest.raises(RequestError):
        await bodies.read(large)
    bodies.release(large)
    assert bodies.bytes == 0


async def test_a_body_that_is_needed_beyond_its_call_counts_until_it_is_not() -> None:
    bodies = Bodies(100, 60)
    left, stays = call(b"x" * 50, declared=50), call(b"y" * 50, declared=50)
    for one in (left, stays):
        await bodies.read(one)
    done = bodies.lend(left)
    bodies.release(left)
    assert bodies.bytes == 100
    done()
    assert bodies.bytes == 50
    bodies.lend(stays)()
    assert bodies.bytes == 50, "the call itself is not over"
    bodies.release(stays)
    assert bodies.bytes == 0
