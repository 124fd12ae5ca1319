"""A recorded answer under any interleaving: whoever follows it sees the same bytes, and its end
only once its evidence is stored."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.base.errors import OverloadedError, RequestError
from trunkline.gateway.core.replay import REPLAYED, Kept
from trunkline.gateway.recording import Memory, Recording
from trunkline.runtime.http import Call, Received, Scope, Sent

PARTS = st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=12)
END = b"\x00the end"


class Caller:
    """A client that takes what it is sent, and may leave."""

    def __init__(self) -> None:
        self.head: Sent | None = None
        self.body = b""
        self.ended = False
        self.left = asyncio.Event()
        scope: Scope = {
            "type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": [],
        }  # fmt: skip
        self.call = Call(scope, self._receive, self._send)
        self._asked = False

    async def _receive(self) -> Received:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Sent) -> None:
        if message["type"] == "http.response.start":
            self.head = message
            return
        await asyncio.sleep(0)
        self.body += message.get("body", b"")
        self.ended = not message.get("more_body", False)


async def play(parts: Sequence[bytes], joins: Sequence[int], *, room: int, fails: bool) -> None:
    """``joins``: after how many parts each later caller comes. ``fails``: the disk refuses once."""
    memory = Memory(room)
    told = Recording(b"claim", memory, asyncio.Event(), 10.0)
    told.answer = "ans_a"
    first, later = Caller(), [Caller() for _ in joins]
    following = [asyncio.create_task(told.follow(first.call, first=True))]
    late: list[tuple[Caller, asyncio.Task[None]]] = []

    def join(count: int) -> None:
        for caller, when in zip(later, joins, strict=True):
            if when == count:
                late.append((caller, asyncio.create_task(told.follow(caller.call, first=False))))

    await asyncio.sleep(0)
    await told.start(200, [("x-one", "1")])
    for count, part in enumerate(parts):
        join(count)
        await told.send(part)
        await asyncio.sleep(0)
    said = b"".join(parts)
    for stored in (False, True) if fails else (True,):
        told.seal()
        await told.finish(END)
        kept = told.kept()
        for _ in range(8):
            await asyncio.sleep(0)
        assert END not in first.body
        assert not first.ended
        if not stored:
            told.unseal()
    join(len(parts))
    told.reveal()
    await asyncio.gather(*following)
    whole = said + END
    assert first.body == whole
    assert first.ended
    for caller, task in late:
        try:
            await task
        except RequestError as refused:
            # It came when the beginning was held no more.
            assert refused.error_code == "idempotent_answer_not_kept"
            assert room < len(whole)
            continue
        assert caller.body == whole
        assert caller.head is not None
        assert (REPLAYED[0].encode(), b"true") in caller.head["headers"]
    if room >= len(whole):
        assert kept.body == whole
        assert len(late) == len(joins)
    told.close()
    assert memory.held == 0
    for caller in (first, *later):
        caller.call.close()


@settings(deadline=None)
@given(
    parts=PARTS,
    joins=st.lists(st.integers(0, 12), max_size=4),
    room=st.sampled_from([1, 60, 10_000]),
    fails=st.booleans(),
)
def test_all_who_follow_see_the_same(
    parts: list[bytes], joins: list[int], room: int, fails: bool
) -> None:
    joins = [min(join, len(parts)) for join in joins]
    asyncio.run(play(parts, joins, room=room, fails=fails))


async def test_what_is_shown_again_takes_room_until_the_last_follower_has_it() -> None:
    memory = Memory(100)
    kept = Kept(claim=b"claim", status=200, headers=(), body=b"x" * 60)
    shown = Recording(b"claim", memory, asyncio.Event(), 10.0)
    shown.load("ans_a", kept)
    assert memory.held == 60
    slow = Caller()
    following = asyncio.create_task(shown.follow(slow.call, first=True))
    await asyncio.sleep(0)
    shown.close()
    assert memory.held == 60
    with pytest.raises(OverloadedError):
        Recording(b"other", memory, asyncio.Event(), 10.0).load("ans_b", kept)
    await following
    assert slow.body == b"x" * 60
    assert memory.held == 0
    Recording(b"large", Memory(10), asyncio.Event(), 10.0).load("ans_c", kept)
