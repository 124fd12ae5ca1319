"""Taking over after any token gives exactly the events that the uninterrupted answer would have."""

import asyncio
from collections.abc import Sequence
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.node.harness import attempt, chat
from tests.unit.node.scripted import EOS, MODEL, PIECES, ScriptedEngine

from trunkline.base.errors import RequestError
from trunkline.inference.answer import Event
from trunkline.inference.ports import Generate
from trunkline.node.chat import EmbeddedChat
from trunkline.node.core.statement import Identity, Outcome
from trunkline.receipts import Nonce, ShownDigest

IDENTITY = Identity(node="a/node", operator="a", key="k")
SEED = "cd" * 32

words = st.sampled_from(
    [
        *(bytes((i,)) for i in (0x20, 0x41, 0x0A, 0x22, 0xC3, 0xA9, 0xF0, 0x9F, 0x98, 0x80, 0xFF)),
        b"<tool_call>",
        b'[{"name": "f", "arguments": {"x": 1}}]',
        b'[{"name": "f", "arguments": {}}, {"name": "f", "arguments": {}}]',
        b"</tool_call>",
        b"<tool",
        b"STOP",
        b"ST",
        b" text ",
    ]
)
answers = st.lists(words, max_size=12).map(b"".join)
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
requests = st.fixed_dictionaries(
    {"n": st.integers(1, 3), "stream": st.booleans()},
    optional={
        "stop": st.sampled_from(["STOP", ["STOP", " t"], ["T"], "\ufffd"]),
        "max_tokens": st.integers(1, 40),
        "logprobs": st.booleans(),
        "tools": st.just([TOOL]),
        "parallel_tool_calls": st.booleans(),
        "usage": st.booleans(),
    },
)


class Collected:
    """An output that keeps the events."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.shown: str | None = None

    async def event(self, event: Event) -> None:
        self.events.append(event)

    async def replayed(self, digest: str) -> None:
        assert self.shown is None, "said once"
        assert not self.events, "said before anything is added"
        self.shown = digest

    async def alive(self) -> None:
        """Nothing to keep."""


def request(options: dict[str, object]) -> dict[str, object]:
    options = dict(options)
    if options.pop("usage", False) and options["stream"]:
        options["stream_options"] = {"include_usage": True}
    if options.get("logprobs"):
        options["top_logprobs"] = 2
    if "tools" not in options:
        options.pop("parallel_tool_calls", None)
    return chat(**options)


def scripted(texts: Sequence[bytes], stray: bool) -> ScriptedEngine:
    def script(job: Generate) -> Sequence[int]:
        # Which choice a job is for shows in its seed alone.
        text = texts[sha256(job.sampling.seed).digest()[0] % len(texts)]
        tail = (258 + 7,) if stray else ()
        return (*text, *tail, EOS)

    return ScriptedEngine(script)


async def run(
    engine: ScriptedEngine,
    options: dict[str, object],
    resume: Sequence[Sequence[int]] | None,
) -> tuple[list[Event], Outcome, str | None]:
    service = EmbeddedChat(engine, IDENTITY, choices_max=4, nonces=_NoNonces())
    await service.load()
    what = attempt(request(options), seed=SEED, numerics=MODEL.numerics, resume=resume)
    work = await service.prepare(what)
    output = Collected()
    outcome = await work.run(output)
    return output.events, outcome, output.shown


class _NoNonces:
    async def take(self) -> Nonce:
        raise AssertionError("an inherited seed needs no nonce")


def taken(events: Sequence[Event], count: int, choices: int) -> list[list[int]]:
    """The first ``count`` tokens, by choice."""
    tokens = [token for event in events for token in event.tokens][:count]
    return [[t for choice, t in tokens if choice == wanted] for wanted in range(choices)]


def shows(events: Sequence[Event], count: int) -> str:
    """The digest of what was shown up to the event that carries token number ``count``."""
    shown, seen = ShownDigest(), 0
    for event in events:
        shown.update(event.data)
        seen += len(event.tokens)
        if seen == count:
            break
    return shown.digest()


def after(events: Sequence[Event], count: int, stream: bool) -> list[Event]:
    """The events after the one that carries token number ``count``; all of them for none."""
    if count == 0:
        return list(events)
    seen = 0
    for index, event in enumerate(events):
        seen += len(event.tokens)
        if seen == count:
            return list(events[index + 1 :])
    raise AssertionError("no such token")


@settings(max_examples=30, deadline=None)
@given(st.lists(answers, min_size=1, max_size=3), requests, st.booleans())
def test_resuming_after_any_token_gives_the_remaining_events(
    texts: list[bytes], options: dict[str, object], stray: bool
) -> None:
    async def everything() -> None:
        choices = int(str(options["n"]))
        whole, outcome, nothing = await run(scripted(texts, stray), options, None)
        assert nothing is None
        total = sum(len(event.tokens) for event in whole)
        for count in range(total + 1):
            resume = taken(whole, count, choices)
            rest, resumed, shown = await run(scripted(texts, stray), options, resume)
            assert shown == (shows(whole, count) if count and options["stream"] else None)
            assert rest == after(whole, count, bool(options["stream"])), count
            assert [e.encode() for e in rest] == [
                e.encode() for e in after(whole, count, bool(options["stream"]))
            ]
            assert resumed.tokens == outcome.tokens
            assert resumed.finish == outcome.finish
            assert resumed.usage == outcome.usage

    asyncio.run(everything())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, len(PIECES) - 1), max_size=6), min_size=1, max_size=3),
    st.integers(1, 3),
)
def test_given_tokens_that_lock_step_can_not_reach_are_refused(
    tokens: list[list[int]], choices: int
) -> None:
    """Whatever is given either replays or is refused; it never runs past its end."""

    async def once() -> None:
        engine = ScriptedEngine(lambda job: (*job.prefix, EOS))
        options: dict[str, object] = {"n": choices, "stream": True, "max_tokens": 8}
        lengths = [len(part) for part in tokens]
        ragged = len(tokens) != choices or any(
            lengths[i] < lengths[j] and EOS not in tokens[i][: lengths[i]]
            for i in range(len(tokens))
            for j in range(i + 1, len(tokens))
        )
        try:
            events, outcome, _ = await run(engine, options, tokens)
        except RequestError as error:
            assert error.error_code == "invalid_resume"
            return
        assert not ragged
        assert all(reason for reason in outcome.finish)
        assert events[-1].data is not None

    asyncio.run(once())


def test_the_tokens_of_another_model_are_refused() -> None:
    engine = ScriptedEngine(lambda job: (65, 66, EOS))
    options: dict[str, object] = {"n": 1, "stream": True, "logprobs": True}

    with pytest.raises(RequestError) as refused:
        asyncio.run(run(engine, options, [[65, 67]]))

    assert refused.value.error_code == "cannot_resume"
