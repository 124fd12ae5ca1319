"""What is published when: the state machine, and what holds for any sequence of events."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.base.errors import CorruptStateError
from trunkline.log.core.cosigning import Cosigning, Signed, at_least

WINDOW_S = 10.0


def signed(size: int) -> Signed:
    return Signed(size=size, note=b"checkpoint %d\n" % size)


def cosigning(quorum: int, published: int = 0, newest: int = 0, now_s: float = 100.0) -> Cosigning:
    return Cosigning(
        quorum=at_least(quorum),
        window_s=WINDOW_S,
        published=signed(published),
        newest=signed(newest),
        now_s=now_s,
    )


def size_of(publish: Signed | None) -> int | None:
    return None if publish is None else publish.size


def test_without_a_quorum_every_checkpoint_is_published_at_once():
    machine = cosigning(0)
    assert size_of(machine.offer(signed(3), 100.0)) == 3
    assert size_of(machine.offer(signed(4), 100.1)) == 4
    assert machine.has_quorum


def test_an_idle_log_publishes_at_once_and_again_with_the_quorum():
    machine = cosigning(2)
    assert size_of(machine.offer(signed(3), 100.0)) == 3
    assert not machine.has_quorum
    assert machine.cosigned("a", 3, b"a\n", 100.1) is None
    publish = machine.cosigned("b", 3, b"b\n", 100.2)
    assert publish is not None
    assert publish.published() == b"checkpoint 3\na\nb\n"
    assert machine.has_quorum


def test_under_load_readers_see_cosigned_checkpoints_alone():
    machine = cosigning(1)
    machine.offer(signed(1), 100.0)
    machine.cosigned("a", 1, b"a\n", 100.1)
    assert machine.offer(signed(2), 100.2) is None
    assert machine.offer(signed(3), 100.4) is None
    assert size_of(machine.wanted("a")) == 2
    assert size_of(machine.cosigned("a", 2, b"a\n", 100.5)) == 2
    assert size_of(machine.wanted("a")) == 3


def test_witnesses_are_asked_for_the_same_checkpoint():
    machine = cosigning(2)
    machine.offer(signed(1), 100.0)
    machine.cosigned("a", 1, b"a\n", 100.1)
    machine.offer(signed(2), 100.2)
    assert machine.wanted("a") is None
    assert size_of(machine.wanted("b")) == 1


def test_a_quorum_of_groups_is_not_a_number():
    """One of each of two groups: two of one group are not enough."""
    groups = ({"a", "b"}, {"c", "d"})
    machine = Cosigning(
        quorum=lambda found: all(group & found for group in groups),
        window_s=WINDOW_S,
        published=signed(0),
        newest=signed(0),
        now_s=100.0,
    )
    machine.offer(signed(1), 100.0)
    machine.cosigned("a", 1, b"a\n", 100.1)
    assert machine.cosigned("b", 1, b"b\n", 100.2) is None
    assert not machine.has_quorum
    assert size_of(machine.cosigned("d", 1, b"d\n", 100.3)) == 1
    assert machine.has_quorum


def test_when_witnesses_stay_away_the_window_ends():
    machine = cosigning(1)
    machine.offer(signed(1), 100.0)
    assert machine.offer(signed(2), 101.0) is None
    assert machine.overdue_at_s() == 110.0
    assert machine.tick(109.9) is None
    assert size_of(machine.tick(110.0)) == 2
    assert machine.overdue_at_s() is None
    assert size_of(machine.wanted("a")) == 2
    # It comes back, and is late with an old one.
    assert machine.cosigned("a", 1, b"a\n", 111.0) is None
    assert size_of(machine.cosigned("a", 2, b"a\n", 111.1)) == 2


def test_a_late_cosignature_is_added_while_nothing_newer_is_there():
    machine = cosigning(1)
    machine.offer(signed(1), 100.0)
    machine.cosigned("a", 1, b"a\n", 100.1)
    publish = machine.cosigned("b", 1, b"b\n", 100.2)
    assert publish is not None
    assert publish.lines == {"a": b"a\n", "b": b"b\n"}


def test_after_a_restart_the_newest_is_published_and_asked_for():
    machine = cosigning(1, published=4, newest=9)
    assert size_of(machine.wanted("a")) == 9
    assert size_of(machine.tick(100.0)) == 9


def test_cosignatures_found_on_disk_count():
    published = Signed(size=4, note=b"n\n", lines={"a": b"a\n"})
    machine = Cosigning(
        quorum=at_least(1), window_s=WINDOW_S, published=published, newest=signed(4), now_s=0.0
    )
    assert machine.wanted("a") is None
    assert size_of(machine.wanted("b")) == 4
    assert machine.tick(1.0) is None


def test_a_witness_that_is_ahead():
    machine = cosigning(1)
    machine.offer(signed(1), 100.0)
    machine.offer(signed(5), 100.1)
    assert machine.witness_is_at(1)
    assert size_of(machine.wanted("a")) == 1
    assert machine.witness_is_at(4)
    assert size_of(machine.wanted("a")) == 5
    assert not machine.witness_is_at(6)


def test_a_log_does_not_shrink():
    machine = cosigning(0, newest=5)
    with pytest.raises(CorruptStateError):
        machine.offer(signed(4), 100.0)
    with pytest.raises(CorruptStateError):
        cosigning(0, published=6, newest=5)


events = st.one_of(
    st.tuples(st.just("grow"), st.integers(1, 3)),
    st.tuples(st.just("cosign"), st.sampled_from("abc")),
    st.tuples(st.just("stale"), st.sampled_from("abc")),
    st.tuples(st.just("wait"), st.floats(0, 30)),
)


@given(st.integers(0, 3), st.lists(events, max_size=60))
def test_whatever_happens(quorum, steps):
    """What is published never shrinks, holds only cosignatures of itself, and is never older than
    the window allows; a quorum once published is given up only for a larger tree."""
    now_s, size = 100.0, 0
    machine = cosigning(quorum, now_s=now_s)
    before = machine.published
    changed_s = now_s - WINDOW_S
    for kind, value in steps:
        publish = None
        if kind == "grow":
            size += value
            publish = machine.offer(signed(size), now_s)
        elif kind in ("cosign", "stale"):
            wanted = machine.wanted(value)
            if wanted is not None:
                at = wanted.size if kind == "cosign" else wanted.size - 1
                publish = machine.cosigned(value, at, b"%d %s\n" % (at, value.encode()), now_s)
        else:
            now_s += value
            publish = machine.tick(now_s)
        if publish is not None:
            assert publish.size > before.size or len(publish.lines) > len(before.lines)
            assert publish.size >= before.size
            changed_s = now_s
            before = publish
        assert machine.published == before
        assert all(line.startswith(b"%d " % before.size) for line in before.lines.values())
        if before.size < size:
            assert now_s < changed_s + WINDOW_S
            assert quorum > 0
