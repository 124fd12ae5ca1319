"""Places at a deployment: found by trying, or as stated."""

from trunkline.gateway.core.concurrency import START, Concurrency


class Server:
    """Takes ``places`` at once and refuses more."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.inside = 0
        self.refused = 0


def rounds(places: Concurrency, server: Server, count: int) -> list[int]:
    """Keep the limit used up for some rounds of one second; places used in each."""
    used = []
    for second in range(count):
        taken = 0
        while places.free:
            places.started()
            taken += 1
        fitting = min(taken, server.places)
        for _ in range(taken - fitting):
            server.refused += 1
            places.refused(second, second + 0.1)
            places.ended()
        for _ in range(fitting):
            places.succeeded(0.1)
            places.ended()
        used.append(fitting)
    return used


def test_it_finds_a_large_server_quickly() -> None:
    places = Concurrency()
    used = rounds(places, Server(1000), 8)
    assert used[0] == START
    assert max(used) >= 900


def test_it_settles_near_what_a_server_takes() -> None:
    places, server = Concurrency(), Server(100)
    used = rounds(places, server, 200)
    late = used[50:]
    assert sum(late) / len(late) >= 80
    assert server.refused < 250


def test_many_refusals_of_one_round_cut_once() -> None:
    places = Concurrency()
    for _ in range(10):
        places.started()
    for _ in range(10):
        places.refused(0.0, 1.0)
        places.ended()
    assert places.limit == 8


def test_a_stated_number_is_taken_as_it_is() -> None:
    places = Concurrency()
    places.stated = 2
    places.started()
    assert places.free
    places.started()
    assert not places.free
    places.refused(0.0, 1.0)
    assert places.limit == 2
    places.ended()
    places.elsewhere = 1
    assert not places.free


def test_it_does_not_grow_while_unused_or_while_first_tokens_are_late() -> None:
    idle = Concurrency()
    idle.started()
    for _ in range(100):
        idle.succeeded(0.1)
    assert idle.limit == START
    slow = Concurrency()
    for _ in range(int(START)):
        slow.started()
    slow.succeeded(0.1)
    grown = slow.limit
    for _ in range(50):
        slow.succeeded(5.0)
    assert slow.limit == grown
