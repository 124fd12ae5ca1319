"""One limit over time: never more than it in any window, and all of it used."""

from hypothesis import given
from hypothesis import strategies as st

from trunkline.gateway.core.window import ENTRIES_MAX, Window


def spend_all(window: Window, now_s: float) -> int:
    """Spend one at a time while there is room."""
    count = 0
    while window.opens_s(1, now_s) <= now_s:
        window.spend(1, now_s)
        count += 1
    return count


def test_a_full_window_opens_when_its_oldest_has_left() -> None:
    window = Window(3, 60.0)
    assert spend_all(window, 0.0) == 3
    opens_s = window.opens_s(1, 0.0)
    assert 60.0 < opens_s <= 60.5
    assert window.opens_s(1, opens_s) == opens_s
    assert spend_all(window, opens_s) == 3


@given(
    limit=st.integers(1, 40),
    window_s=st.sampled_from([1.0, 10.0, 60.0]),
    gaps=st.lists(st.tuples(st.floats(0, 20), st.integers(1, 60)), max_size=60),
    late=st.data(),
)
def test_no_window_of_the_provider_holds_more(
    limit: int, window_s: float, gaps: list[tuple[float, int]], late: st.DataObject
) -> None:
    window = Window(limit, window_s)
    now_s, arrived = 0.0, []
    for gap_s, amount in gaps:
        now_s += gap_s
        if window.opens_s(amount, now_s) > now_s:
            continue
        spent = window.spend(amount, now_s).amount
        # What is sent arrives a little later, each by its own delay.
        arrived.append((now_s + late.draw(st.floats(0, window_s * 0.005)), spent))
    for at_s, _ in arrived:
        inside = sum(amount for other_s, amount in arrived if at_s <= other_s < at_s + window_s)
        assert inside <= limit


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 9)), max_size=80))
def test_when_it_says_it_opens_it_opens(steps: list[tuple[float, int]]) -> None:
    window, now_s = Window(10, 7.0), 0.0
    for gap_s, amount in steps:
        now_s += gap_s
        opens_s = window.opens_s(amount, now_s)
        assert opens_s >= now_s
        assert window.opens_s(amount, opens_s) == opens_s
        if opens_s == now_s:
            window.spend(amount, now_s)


def test_settling_frees_what_was_not_used() -> None:
    window = Window(100, 60.0)
    entry = window.spend(80, 0.0)
    assert window.room(1.0) == 20
    window.settle(entry, 30)
    assert window.room(1.0) == 70
    window.settle(entry, 95)
    assert window.room(1.0) == 5


def test_settling_after_the_window_changes_nothing() -> None:
    window = Window(100, 60.0)
    entry = window.spend(80, 0.0)
    assert window.room(61.0) == 100
    assert window.settle(entry, 10) == 0
    assert window.room(61.0) == 100


def test_the_providers_word_binds_where_others_spend_too() -> None:
    window = Window(100, 60.0)
    window.stated(limit=100, remaining=7, reset_s=20.0, now_s=0.0)
    assert window.room(0.0) == 7
    assert window.opens_s(8, 0.0) == 20.0
    window.spend(5, 1.0)
    assert window.room(1.0) == 2
    assert window.room(20.0) == 95


def test_a_stated_reset_ends_a_window_of_unknown_length() -> None:
    window = Window(50)
    assert spend_all(window, 0.0) == 50
    window.stated(limit=50, remaining=0, reset_s=3.0, now_s=1.0)
    assert window.opens_s(1, 2.0) == 4.0
    assert spend_all(window, 4.0) == 50


def test_a_stated_window_is_believed_before_a_reset() -> None:
    window = Window(50, 60.0)
    assert spend_all(window, 0.0) == 50
    window.stated(limit=50, remaining=0, reset_s=3.0, now_s=1.0)
    assert window.opens_s(1, 5.0) > 60.0


def test_a_late_reset_shows_a_longer_window() -> None:
    window = Window(50)
    window.stated(limit=50, remaining=49, reset_s=3000.0, now_s=0.0)
    assert window.window_s == 3600.0


def test_what_is_larger_than_the_limit_goes_when_nothing_was_spent() -> None:
    window = Window(10, 60.0)
    window.spend(1, 0.0)
    opens_s = window.opens_s(50, 0.0)
    assert opens_s > 60.0
    window.spend(50, opens_s)
    assert window.room(opens_s) == 0


def test_a_refusal_that_fitted_widens_the_window_within_bounds() -> None:
    window = Window(1, 10.0)
    window.spend(1, 0.0)
    before_s = window.opens_s(1, 0.0)
    window.widen()
    assert window.opens_s(1, 0.0) > before_s
    for _ in range(20):
        window.widen()
    assert window.opens_s(1, 0.0) == 11.0


def test_memory_is_bounded_and_nothing_is_forgotten_early() -> None:
    window = Window(10 * ENTRIES_MAX, 60.0)
    for number in range(5 * ENTRIES_MAX):
        window.spend(1, number / 1000)
    assert window.used == 5 * ENTRIES_MAX
    assert window.room(60.0) == 5 * ENTRIES_MAX


def test_a_provider_that_gives_nothing_back_is_found_by_what_it_says() -> None:
    """It counts what was asked for; the next answers use half of that, and nothing comes free."""
    window = Window(1000, 60.0)
    for number in range(4):
        entry = window.spend(100, float(number))
        window.stated(limit=1000, remaining=900 - 100 * number, reset_s=60.0, now_s=number + 0.5)
        window.settle(entry, 50)
    assert window.used == 200
    window.stated(limit=1000, remaining=600, reset_s=57.0, now_s=5.0)
    assert window.room(5.0) == 600
    window.settle(window.spend(400, 6.0), 10)
    assert window.room(7.0) == 200
    # It counts what was used after all.
    window.stated(limit=1000, remaining=790, reset_s=50.0, now_s=10.0)
    assert window.room(10.0) == 790


def test_what_was_refused_is_not_in_the_providers_count() -> None:
    window = Window(100, 60.0)
    refused = window.spend(60, 0.0)
    window.stated(limit=100, remaining=50, reset_s=60.0, now_s=0.1)
    assert window.room(0.1) == 40
    window.refund(refused, refused=True)
    assert window.room(0.1) == 50
    assert window.scarce(60, 0.1)
    assert not window.scarce(20, 0.1)
    assert not window.scarce(60, 5.0)
