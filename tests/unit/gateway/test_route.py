"""The route: who is asked first, and who may take over."""

from hashlib import sha256

import msgspec

from trunkline.crypto.signer import Signer
from trunkline.gateway.core.breaker import Admission
from trunkline.gateway.core.route import (
    Candidate,
    Deployment,
    Need,
    Reach,
    order,
    smoothed,
)

KEY = Signer.generate("node", sha256(b"node").digest()).vkey


def one(node: str, **more: object) -> Deployment:
    fields: dict[str, object] = {
        "operator": "o", "url": "http://h", "key": KEY, "model": "m", "kind": "chat",
        "weights": "w", "numerics": "n",
    }  # fmt: skip
    return Deployment(node=node, **(fields | more))  # type: ignore[arg-type]


def names(need: Need, *deployments: Deployment) -> list[str]:
    return [found.node for found in order(need, deployments)]


ANY = Need(model="m", kind="chat")
PROBE = Admission.PROBE


def test_another_model_is_never_chosen() -> None:
    assert names(ANY, one("a", model="m2"), one("b", kind="embeddings")) == []


def test_the_least_expected_wait_comes_first() -> None:
    busy, slow, quick = one("a", load=9), one("b", first_token_s=2.0), one("c", first_token_s=0.1)
    assert names(ANY, busy, slow, quick) == ["c", "b", "a"]


def test_unhealthy_is_a_last_resort_and_not_left_out() -> None:
    broken, starting = one("a", admission=Admission.NO), one("b", ready=False, load=3)
    assert names(ANY, broken, starting, one("c", load=50)) == ["c", "a", "b"]


def test_not_the_same_node_twice_unless_it_is_the_only_one() -> None:
    need = Need(model="m", kind="chat", tried=(("a", "m"), ("a", "m"), ("b", "m")))
    assert names(need, one("a"), one("b", load=5), one("c", load=9)) == ["c", "b", "a"]
    assert names(need, one("a")) == ["a"]


def test_banned_nodes_are_never_asked() -> None:
    need = Need(model="m", kind="chat", banned=frozenset({"a"}))
    assert names(need, one("a")) == []


def test_a_takeover_needs_the_same_weights_and_numerics() -> None:
    need = Need(model="m", kind="chat", exact=True, weights="w", numerics="n")
    others = [one("a", weights="w2"), one("b", numerics="n2"), one("c", numerics=None)]
    assert names(need, *others, one("d")) == ["d"]


def test_nobody_takes_over_where_numerics_are_unknown() -> None:
    need = Need(model="m", kind="chat", exact=True, weights=None, numerics=None)
    assert names(need, one("a", numerics=None, weights=None)) == []


def test_tokens_are_kept_where_that_costs_nothing() -> None:
    need = Need(model="m", kind="chat", weights="w", numerics="n")
    assert names(need, one("a", numerics="n2"), one("b", load=3)) == ["b", "a"]


def test_latency_is_smoothed() -> None:
    assert smoothed(None, 2.0) == 2.0
    assert abs(smoothed(1.0, 2.0) - 1.2) < 1e-9


A, B = Candidate(model="a"), Candidate(model="b", tier=1)
FALLBACK = Need(model="fast", kind="chat", candidates=(A, B))


def test_a_higher_tier_is_asked_only_where_the_one_below_fails() -> None:
    first, second = one("n1", model="a", load=9), one("n2", model="b")
    assert names(FALLBACK, first, second) == ["n1", "n2"]
    down = one("n1", model="a", admission=Admission.NO)
    assert names(FALLBACK, down, second) == ["n2", "n1"]
    after_failing = msgspec.structs.replace(FALLBACK, tried=(("n1", "a"),))
    assert names(after_failing, first, second) == ["n2", "n1"]


def test_within_a_tier_the_turn_comes_first_and_then_the_wait() -> None:
    turns = (A, Candidate(model="b", turn=1), Candidate(model="c", turn=1))
    need = Need(model="v", kind="chat", candidates=turns)
    slow, late, quick = one("n1", model="a", load=9), one("n2", model="b", load=2), one("n3")
    assert names(need, quick, late, slow) == ["n1", "n2"]
    assert names(need, late, slow, msgspec.structs.replace(quick, model="c")) == ["n1", "n3", "n2"]


def test_what_a_policy_does_not_name_never_stands_in() -> None:
    assert names(FALLBACK, one("n1", model="fast"), one("n2", model="c")) == []


def test_a_candidate_keeps_to_its_nodes_and_operators() -> None:
    here = Reach(nodes=frozenset({"n1", "n2"}), operators_denied=frozenset({"evil"}))
    need = Need(model="a", kind="chat", candidates=(Candidate(model="a", reach=here),))
    evil = one("n2", model="a", operator="evil")
    assert names(need, one("n1", model="a"), evil, one("n3", model="a")) == ["n1"]


def test_text_that_was_shown_keeps_its_model() -> None:
    shown = msgspec.structs.replace(FALLBACK, shown="b", tried=(("n2", "b"),))
    assert names(shown, one("n1", model="a"), one("n2", model="b")) == ["n2"]


def test_a_probe_is_a_fresh_call_with_somebody_sound_to_turn_to() -> None:
    sound, back = one("a", first_token_s=0.1), one("b", first_token_s=9.0, admission=PROBE)
    third = one("c", admission=Admission.NO)
    assert names(ANY, sound, back, third) == ["b", "a", "c"]
    again = Need(model="m", kind="chat", tried=(("z", "m"),))
    assert names(again, sound, back, third) == ["a", "b", "c"], "never somebody's second chance"
    shown = Need(model="m", kind="chat", shown="m")
    assert names(shown, sound, back, third) == ["a", "b", "c"]
    assert names(again, back, third) == ["b", "c"], "before what is known to fail"


def test_a_probe_waits_for_its_tier() -> None:
    need = Need(
        model="m",
        kind="chat",
        candidates=(Candidate(model="m"), Candidate(model="m2", tier=1)),
    )
    assert names(need, one("a"), one("b", model="m2", admission=PROBE)) == ["a", "b"]


def test_what_comes_back_gets_calls_by_its_share() -> None:
    back = one("back", first_token_s=0.1, share=0.1)
    assert names(ANY, back, one("other", first_token_s=0.1)) == ["other", "back"]
    assert names(ANY, back, one("other", first_token_s=0.1, load=15)) == ["back", "other"]


def test_a_nodes_other_model_is_not_held_against_it() -> None:
    both = one("n1", model="a"), one("n1", model="b")
    found = order(msgspec.structs.replace(FALLBACK, tried=(("n1", "a"),)), both)
    assert [deployment.model for deployment in found] == ["b", "a"]
    found = order(msgspec.structs.replace(FALLBACK, unfit=frozenset({("n1", "a")})), both)
    assert [deployment.model for deployment in found] == ["b"]
    found = order(msgspec.structs.replace(FALLBACK, resting=frozenset({("n1", "a")})), both)
    assert [deployment.model for deployment in found] == ["b", "a"]


def test_a_model_that_refused_the_request_is_asked_nowhere_else() -> None:
    refused = msgspec.structs.replace(FALLBACK, refused=frozenset({"a"}))
    assert names(refused, one("n1", model="a"), one("n2", model="a"), one("n3", model="b")) == [
        "n3"
    ]
