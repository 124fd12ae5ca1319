"""Two nodes, one of which fails: what every client format promises of the answer.

A format's tests give the way of asking, and what its client calls a whole answer's end.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from tests.support.fake_answer import text_of
from tests.support.fake_node import FakeNode
from tests.support.fake_script import Fault
from tests.support.gateway import Stack

Nodes = tuple[FakeNode, FakeNode]
Ask = Callable[[Stack], Awaitable[tuple[str, str | None, str]]]
"""Asks for an answer: its text, how it ended, and its id."""


@asynccontextmanager
async def two_nodes() -> AsyncIterator[Nodes]:
    """With one queue of faults: whichever node is asked takes the next."""
    async with FakeNode("alpha") as alpha, FakeNode("beta") as beta:
        beta.scripts = alpha.scripts
        yield alpha, beta


async def seed_of(stack: Stack, answer: str, format_: str) -> str:
    """The seed in the answer's receipt, which is about a request in that format."""
    evidence = (await stack.http.get(f"/trunkline/v1/receipts/{answer}")).json()
    receipt = json.loads(evidence["parts"][0]["signed"]["receipt"])
    assert receipt["request"]["format"] == format_
    seed: str = receipt["sampling"]["seed"]
    return seed


async def check_survives(
    stack: Stack, nodes: Nodes, fault: Fault, after: int, ask: Ask, *, format_: str, end: str
) -> None:
    """The app gets the whole answer although a node fails."""
    nodes[0].will(fault, after)
    text, ended, answer = await ask(stack)
    assert text == text_of(await seed_of(stack, answer, format_))
    assert ended == end
    assert not nodes[0].scripts, "the fault was met"
