"""Outliers: who is ejected, who is spared, and for how long."""

from hypothesis import given
from hypothesis import strategies as st

from trunkline.gateway.core.outlier import OutlierPolicy, Peer, Tally, ejection_s, outliers

POLICY = OutlierPolicy()


def peer(name: str, failures: float = 0.0, **more: float | bool | None) -> Peer:
    return Peer(name=name, attempts=20.0, failures=failures, **more)  # type: ignore[arg-type]


def test_one_of_two_that_fails_often_is_ejected() -> None:
    assert outliers([peer("good"), peer("bad", 8.0)], POLICY) == (("bad", "success_rate"),)


def test_nobody_is_ejected_when_all_fail_alike() -> None:
    assert outliers([peer(name, 10.0) for name in "abc"], POLICY) == ()


def test_a_lone_deployment_is_never_ejected() -> None:
    assert outliers([peer("only", 20.0)], POLICY) == ()


def test_too_few_attempts_say_nothing() -> None:
    few = Peer(name="bad", attempts=9.0, failures=9.0)
    assert outliers([peer("good"), few], POLICY) == ()


def test_a_peer_that_is_benched_takes_the_place_of_an_ejection() -> None:
    benched = peer("benched", available=False)
    assert outliers([benched, peer("good"), peer("bad", 15.0)], POLICY) == ()


def test_slowness_counts_only_against_others_and_its_own_past() -> None:
    quick = peer("quick", first_token_s=0.2, usual_s=0.2)
    slowed = peer("slowed", first_token_s=4.0, usual_s=0.3)
    always_slow = peer("always", first_token_s=4.0, usual_s=3.5)
    assert outliers([quick, slowed], POLICY) == (("slowed", "latency"),)
    assert outliers([quick, always_slow], POLICY) == ()
    both = [peer(name, first_token_s=4.0, usual_s=0.3) for name in "ab"]
    assert outliers(both, POLICY) == (), "a slow network is nobody's fault"


peers = st.lists(
    st.builds(
        Peer,
        name=st.text("abcdefghij", min_size=1, max_size=3),
        attempts=st.floats(0, 100),
        failures=st.floats(0, 100),
        first_token_s=st.none() | st.floats(0, 100),
        usual_s=st.none() | st.floats(0, 100),
        available=st.booleans(),
    ),
    unique_by=lambda each: each.name,
    max_size=8,
)


@given(peers)
def test_never_the_last_one_and_never_more_than_the_share(found: list[Peer]) -> None:
    ejected = {name for name, _ in outliers(found, POLICY)}
    available = {each.name for each in found if each.available}
    assert ejected <= available
    assert not ejected or available - ejected
    gone = len(found) - len(available - ejected)
    assert not ejected or gone <= len(found) * POLICY.ejected_share_max


def test_ejections_grow_up_to_a_bound_and_are_forgiven() -> None:
    assert [ejection_s(times, POLICY) for times in (1, 2, 3, 99)] == [30.0, 60.0, 90.0, 300.0]
    tally = Tally(60.0)
    tally.add(0.0, failed=True)
    assert tally.counts(60.0) == (0.5, 0.5)
    tally.ejected()
    assert (tally.times, tally.counts(60.0)) == (1, (0.0, 0.0))
    tally.well()
    tally.well()
    assert tally.times == 0
