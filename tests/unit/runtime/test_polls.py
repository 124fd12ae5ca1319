"""Long polls: only so many are held, and of one address fewer."""

from contextlib import ExitStack

import pytest

from trunkline.runtime.polls import Polls


def test_one_address_leaves_room_for_others() -> None:
    polls = Polls(most=3, per_address=2)
    with ExitStack() as held:
        took = [held.enter_context(polls.room(address)) for address in ("a", "a", "a", "b", "c")]
        assert took == [True, True, False, True, False]


def test_room_comes_back_however_a_poll_ends() -> None:
    polls = Polls(most=1, per_address=1)
    with pytest.raises(ValueError, match="ended"), polls.room("a") as room:
        assert room
        raise ValueError("ended")
    with polls.room("b") as room:
        assert room
