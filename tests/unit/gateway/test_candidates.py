"""What may serve a model asked for, by the routing policy."""

from collections import Counter

import pytest

from trunkline.base.errors import ConfigError
from trunkline.gateway.core.candidates import candidates, substitutes
from trunkline.gateway.core.policy import RoutingPolicy
from trunkline.gateway.core.price import Tokens


def tiers(text: str, model: str, **more: object) -> list[tuple[str, int, int]]:
    found = candidates(RoutingPolicy.parse(text), model, **more)  # type: ignore[arg-type]
    return [(one.model, one.tier, one.turn) for one in found]


def test_without_a_policy_a_model_is_served_by_itself_anywhere() -> None:
    (only,) = candidates(RoutingPolicy(), "m")
    assert (only.model, only.tier) == ("m", 0)
    assert only.reach.covers("any", "any")


def test_in_order_each_is_a_tier() -> None:
    text = '[models.fast]\nuse = ["a", "b"]\nsubstitutes = ["c"]'
    assert tiers(text, "fast") == [("a", 0, 0), ("b", 1, 0), ("c", 2, 0)]


def test_nested_virtual_models_take_their_place_in_the_order() -> None:
    text = """
    [models.quick]
    use = ["a", "b"]
    strategy = "least-latency"
    [models.all]
    use = ["x", "quick", "y"]
    """
    assert tiers(text, "all") == [("x", 0, 0), ("a", 1, 0), ("b", 1, 0), ("y", 2, 0)]


def test_substitutes_are_those_named_then_those_of_the_same_class() -> None:
    text = """
    [models.a]
    substitutes = ["z"]
    [models.z]
    substitutes = ["not this"]
    [classes]
    one = ["a", "b", "z"]
    two = ["c", "a"]
    """
    assert substitutes(RoutingPolicy.parse(text), "a") == ("z", "b", "c")
    assert [name for name, _, _ in tiers(text, "a")] == ["a", "z", "b", "c"]
    assert [name for name, _, _ in tiers(text, "c")] == ["c", "a"]


def test_a_substitute_may_be_virtual() -> None:
    text = '[models.a]\nsubstitutes = ["v"]\n[models.v]\nuse = ["x", "y"]'
    assert tiers(text, "a") == [("a", 0, 0), ("x", 1, 0), ("y", 2, 0)]


PRICED = """
[models.v]
use = ["free", "dear", "cheap", "even"]
strategy = "cheapest"
[prices.dear]
input = "1"
output = "100"
[prices.cheap]
input = "2"
output = "2"
[prices.even]
input = "2"
output = "2"
"""


def test_the_cheapest_for_this_call_comes_first_and_the_unpriced_last() -> None:
    assert tiers(PRICED, "v") == [("cheap", 0, 0), ("even", 0, 0), ("dear", 0, 1), ("free", 0, 2)]
    # A long prompt with a short answer is another bargain.
    long = tiers(PRICED, "v", tokens=Tokens(prompt=100_000, completion=1))
    assert [name for name, _, _ in long] == ["dear", "cheap", "even", "free"]


def test_by_weights_each_answer_has_its_order_and_all_of_them_the_shares() -> None:
    text = '[models.v]\nuse = ["a", "b", "c"]\nstrategy = "weights"\nweights = { a = 6, b = 3 }'
    policy = RoutingPolicy.parse(text)
    drawn = [candidates(policy, "v", answer=f"ans_{number}") for number in range(4_000)]
    assert drawn[7] == candidates(policy, "v", answer="ans_7")
    assert all([one.turn for one in each] == [0, 1, 2] for each in drawn)
    first = Counter(each[0].model for each in drawn)
    assert first["a"] == pytest.approx(2_400, abs=150)
    assert first["b"] == pytest.approx(1_200, abs=150)
    assert first["c"] == pytest.approx(400, abs=100)


def test_where_a_call_may_go_is_what_every_name_on_the_way_allows() -> None:
    text = """
    [operators]
    deny = ["evil"]
    [models.v]
    use = ["a", "b"]
    operators = ["alpha", "beta", "evil"]
    [models.a]
    nodes_denied = ["alpha/2"]
    operators = ["alpha", "gamma"]
    """
    a, b = candidates(RoutingPolicy.parse(text), "v")
    assert a.reach.covers("alpha/1", "alpha")
    assert not a.reach.covers("alpha/2", "alpha")
    assert not a.reach.covers("beta/1", "beta")
    assert not a.reach.covers("gamma/1", "gamma")
    assert b.reach.covers("beta/1", "beta")
    assert not b.reach.covers("evil/1", "evil")


def test_what_stands_behind_a_name_is_bounded() -> None:
    names = [f'"m{number}"' for number in range(65)]
    with pytest.raises(ConfigError, match="65 models stand behind it"):
        RoutingPolicy.parse(f"[models.v]\nuse = [{', '.join(names)}]")
    # Each doubles the one below it: refused without ever being expanded.
    doubling = "\n".join(f'[models.d{n}]\nuse = ["d{n + 1}", "x{n}"]' for n in range(40))
    with pytest.raises(ConfigError, match="nested deeper"):
        RoutingPolicy.parse(doubling)
    twice = "\n".join(f'[models.d{n}]\nuse = ["l{n}", "r{n}"]\n[models.l{n}]\nuse = ["d{n + 1}"]\n'
                      f'[models.r{n}]\nuse = ["d{n + 1}"]' for n in range(7))  # fmt: skip
    with pytest.raises(ConfigError, match="128 models stand behind it"):
        RoutingPolicy.parse(twice)
