"""Plants: nothing but what was bound beforehand is one, and nobody's word alone silences a
verifier."""

from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support import planting as make
from tests.support.auditing import NODE, ToyNode, but

from trunkline.base.errors import Error, MalformedError
from trunkline.crypto.signer import Signer
from trunkline.verdicts import Known, Plant, PlantOpening, Said, Tried, hold_against, open_plant

PLANTER = Signer("lambda.example/verifier", b"\x41" * 32)
STRANGER = Signer("omega.example/verifier", b"\x49" * 32)
OTHER_NODE = Signer("beta.example/node", b"\x29" * 32)


def opened(note: bytes) -> str:
    """The leaf of what a note opens."""
    return open_plant(note, (PLANTER.vkey,), (NODE.vkey,)).leaf


@pytest.mark.parametrize("expect", ["fail", "pass"])
def test_what_was_bound_beforehand_is_a_plant(expect: str) -> None:
    note = make.plant(PLANTER, 1, expect=expect)
    made = make.answered(note, 1, wrong=expect == "fail")
    without = {} if expect == "fail" else {"accepted": ""}

    assert opened(make.opening(PLANTER, note, made, make.signed(made), **without)) == (
        made.leaf.hex()
    )


def test_a_user_s_answer_is_none_whoever_says_so_afterwards() -> None:
    """The node and a planter may plot: what its receipt binds is the user's."""
    note = make.plant(PLANTER, 1)
    made = ToyNode(seed=make.WRONG).serve(1)

    with pytest.raises(Error, match="does not bind"):
        opened(make.opening(PLANTER, note, made, make.signed(made)))


def test_one_that_its_node_did_not_agree_to_is_none() -> None:
    note = make.plant(PLANTER, 1)
    made, other = make.answered(note, 1), make.plant(PLANTER, 2)

    for accepted in ("", make.accepted(other).decode(), make.accepted(note, OTHER_NODE).decode()):
        with pytest.raises(Error):
            opened(make.opening(PLANTER, note, made, make.signed(made), accepted=accepted))


def test_one_by_a_stranger_or_at_a_strange_node_is_none() -> None:
    note = make.plant(STRANGER, 1)
    made = make.answered(note, 1)
    with pytest.raises(Error):
        opened(make.opening(STRANGER, note, made, make.signed(made)))
    # Nor does it become one because another planter opens it.
    with pytest.raises(Error):
        opened(make.opening(PLANTER, note, made, make.signed(made)))
    note = make.plant(PLANTER, 1)
    made = make.answered(note, 1)
    shown = make.opening(PLANTER, note, made, make.signed(made))
    with pytest.raises(Error, match="no node that is known"):
        open_plant(shown, (PLANTER.vkey,), (OTHER_NODE.vkey,))


def test_one_is_about_one_attempt_and_one_content() -> None:
    note = make.plant(PLANTER, 1)
    other = make.answered(note, 2)
    with pytest.raises(Error, match="another attempt"):
        opened(make.opening(PLANTER, note, other, make.signed(other)))
    made = make.answered(note, 1)
    for shown in (
        but(made, tokens=((1, 2),)),
        but(made, request=msgspec.Raw(b"{}")),
        but(made, salts={}),
        but(made, salts={"request.client": "zz"}),
        but(made, tokens=((-1,),)),
    ):
        with pytest.raises(Error):
            opened(make.opening(PLANTER, note, shown, make.signed(made)))


@given(st.sampled_from(["accepted", "content", "plant", "signed"]), st.text(max_size=200))
def test_any_part_is_read_or_malformed(part: str, text: str) -> None:
    note = make.plant(PLANTER, 1)
    made = make.answered(note, 1)
    try:
        shown = make.opening(PLANTER, note, made, make.signed(made), **{part: text})
    except MalformedError:
        return
    with pytest.raises(Error):
        opened(shown)


@given(st.binary())
def test_any_bytes_are_a_plant_or_malformed(data: bytes) -> None:
    for kind in (Plant, PlantOpening):
        with pytest.raises(MalformedError):
            kind.parse(kind.TYPE.encode() + b"\n" + data)


VERIFIERS = {f"v{number}": f"op{number}" for number in range(4)}
"""The last one's operator runs no other; nodes ``n0`` to ``n2`` have operators of their own, and
``n3`` is the first verifier's."""
NODES = {"n0": "alpha", "n1": "beta", "n2": "gamma", "n3": "op0"}
OPERATORS = VERIFIERS | NODES

plants = st.lists(
    st.builds(
        Known,
        receipt=st.sampled_from([f"{number:064x}" for number in range(5)]),
        expect=st.sampled_from(["pass", "fail"]),
        planter=st.sampled_from([*VERIFIERS, "stranger"]),
        node=st.sampled_from([*NODES, "elsewhere"]),
    ),
    max_size=8,
)
words = st.builds(
    Said,
    result=st.sampled_from(["pass", "fail", "inconclusive", "not_applicable"]),
    regime=st.sampled_from(["exact", "noisy", "none"]),
)
verdicts = st.dictionaries(
    st.sampled_from([f"{number:064x}" for number in range(5)]),
    st.dictionaries(st.sampled_from([*VERIFIERS, "stranger"]), words),
)


def said_rightly(plant: Known) -> Said:
    return Said(result=plant.expect, regime="exact")


@given(plants, verdicts)
def test_who_says_what_is_so_misses_nothing(
    planted: list[Known], said: Mapping[str, Mapping[str, Said]]
) -> None:
    first = {plant.receipt: plant for plant in reversed(planted) if fair(plant)}
    told = {
        receipt: {**found, "v2": said_rightly(first[receipt])}
        for receipt, found in said.items()
        if receipt in first
    }
    assert hold_against(planted, told, OPERATORS).get("v2", Tried()).missed == ()


def fair(plant: Known) -> bool:
    known = plant.planter in OPERATORS and plant.node in OPERATORS
    return known and OPERATORS[plant.planter] != OPERATORS[plant.node]


@given(plants, verdicts)
def test_nobody_is_silenced_by_one_operator_and_one_node(
    planted: list[Known], said: Mapping[str, Mapping[str, Said]]
) -> None:
    """Whatever one node's operator and any verifiers sign: plants at its nodes alone silence
    nobody. Nor does any plot without another verifier's word."""
    at_one = [plant for plant in planted if plant.node == "n0"]
    assert all(tried.counts for tried in hold_against(at_one, said, OPERATORS).values())
    for tried in hold_against(planted, said, OPERATORS).values():
        for missed in tried.missed:
            assert missed.found_by
            assert missed.operator not in {OPERATORS[vkey] for vkey in missed.found_by}


@given(plants, verdicts)
def test_strangers_neither_plant_nor_count_nor_are_tried(
    planted: list[Known], said: Mapping[str, Mapping[str, Said]]
) -> None:
    tried = hold_against(planted, said, OPERATORS)
    known = [plant for plant in planted if plant.planter != "stranger" and plant.node in NODES]
    without = {
        receipt: {vkey: one for vkey, one in found.items() if vkey != "stranger"}
        for receipt, found in said.items()
    }
    assert "stranger" not in tried
    assert tried == hold_against(known, without, OPERATORS)


@given(plants, verdicts)
def test_who_knew_is_not_tried(
    planted: list[Known], said: Mapping[str, Mapping[str, Said]]
) -> None:
    """A planter, and a verifier of the node's own operator."""
    assert "v1" not in hold_against(
        [one for one in planted if one.planter == "v1"], said, OPERATORS
    )
    assert "v0" not in hold_against([one for one in planted if one.node == "n3"], said, OPERATORS)


def test_who_passes_everything_is_silenced_by_the_second_operator_s_node() -> None:
    planted = [
        Known(receipt=f"{number:064x}", expect="fail", planter="v0", node=node)
        for number, node in enumerate(["n0", "n0", "n1"])
    ]
    lazy, honest = Said(result="pass", regime="exact"), Said(result="fail", regime="exact")
    said = {plant.receipt: {"v0": honest, "v1": lazy} for plant in planted}

    assert hold_against(planted[:2], said, OPERATORS)["v1"].counts
    tried = hold_against(planted, said, OPERATORS)["v1"]
    assert (len(tried.missed), tried.counts) == (3, False)
    # By another engine's noise nobody can tell: that is undecided.
    noisy = {plant.receipt: {"v0": honest, "v1": Said(result="pass", regime="noisy")}
             for plant in planted}  # fmt: skip
    assert hold_against(planted, noisy, OPERATORS)["v1"] == Tried(undecided=3)


def test_who_fails_honest_nodes_is_silenced_by_more_operators_than_say_so() -> None:
    planted = [
        Known(receipt=f"{number:064x}", expect="pass", planter="v0", node=node)
        for number, node in enumerate(["n0", "n1"])
    ]
    right, liar = Said(result="pass", regime="exact"), Said(result="fail", regime="exact")

    two = {plant.receipt: {"v0": right, "v1": liar} for plant in planted}
    three = {plant.receipt: {"v0": right, "v1": liar, "v2": right} for plant in planted}

    # One word against one: whoever has the model can tell, and the log alone can not.
    assert hold_against(planted, two, OPERATORS)["v1"] == Tried(undecided=2)
    tried = hold_against(planted, three, OPERATORS)
    assert (tried["v1"].counts, tried["v2"]) == (False, Tried(found=2))
