"""Whatever the policy and the nodes: nobody is asked whom the policy or the answer rules out."""

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from trunkline.crypto.signer import Signer
from trunkline.gateway.core.breaker import Admission
from trunkline.gateway.core.candidates import candidates
from trunkline.gateway.core.policy import Access, ModelPolicy, RoutingPolicy
from trunkline.gateway.core.route import Deployment, Need, order

KEY = Signer.generate("node", sha256(b"node").digest()).vkey
MODELS = ("a", "b", "c")
NODES = ("n1", "n2", "n3")
OPERATORS = ("o1", "o2")

_models = st.sampled_from(MODELS)
_nodes = st.sampled_from(NODES)
_places = st.frozensets(st.tuples(_nodes, _models), max_size=3)
_some_models = st.lists(_models, unique=True, max_size=3).map(tuple)


@st.composite
def _deployments(draw: st.DrawFn) -> list[Deployment]:
    return [
        Deployment(
            node=node,
            operator=draw(st.sampled_from(OPERATORS)),
            url="http://h",
            key=KEY,
            model=model,
            kind="chat",
            ready=draw(st.booleans()),
            load=draw(st.integers(0, 9)),
            first_token_s=draw(st.none() | st.floats(0.01, 9.0)),
            admission=draw(st.sampled_from(Admission)),
        )
        for node, model in sorted(draw(st.frozensets(st.tuples(_nodes, _models))))
    ]


@st.composite
def _policies(draw: st.DrawFn) -> RoutingPolicy:
    used = draw(_some_models)
    strategy = draw(st.sampled_from(["order", "weights", "least-latency", "cheapest"]))
    return RoutingPolicy(
        models={
            "v": ModelPolicy(
                use=used,
                strategy=strategy if used else "order",
                substitutes=draw(_some_models),
                operators_denied=draw(st.sampled_from([(), ("o1",)])),
            ),
            "a": ModelPolicy(nodes_denied=draw(st.sampled_from([(), ("n1",)]))),
        },
        operators=Access(deny=draw(st.sampled_from([(), ("o2",)]))),
    )


@st.composite
def _needs(draw: st.DrawFn, policy: RoutingPolicy) -> Need:
    return Need(
        model="v",
        kind="chat",
        candidates=candidates(policy, "v", answer=draw(st.text(max_size=4))),
        shown=draw(st.none() | _models),
        tried=tuple(draw(_places)),
        banned=draw(st.frozensets(_nodes, max_size=1)),
        unfit=draw(_places),
        refused=draw(st.frozensets(_models, max_size=1)),
        resting=draw(_places),
    )


@given(st.data())
def test_nobody_is_asked_who_is_ruled_out(data: st.DataObject) -> None:
    policy = data.draw(_policies())
    need = data.draw(_needs(policy))
    offered = data.draw(_deployments())
    asked = order(need, offered)
    virtual = policy.models["v"]
    for one in asked:
        assert one.model in (*virtual.use, *virtual.substitutes)
        assert need.shown in (None, one.model)
        assert one.operator not in policy.operators.deny
        assert one.node not in need.banned
        assert one.place not in need.unfit
        assert one.model not in need.refused
        assert one.model != "a" or one.node not in policy.models["a"].nodes_denied
        if one.model not in virtual.substitutes:
            assert one.operator not in virtual.operators_denied
    assert len({one.place for one in asked}) == len(asked)
    assert order(need, reversed(offered)) == asked


@given(st.data())
def test_a_lower_tier_that_is_well_comes_before_a_higher_one(data: st.DataObject) -> None:
    policy = data.draw(_policies())
    need = Need(model="v", kind="chat", candidates=candidates(policy, "v"))
    tier: dict[str, int] = {}
    for one in need.candidates:
        tier.setdefault(one.model, one.tier)
    well = [
        tier[one.model]
        for one in order(need, data.draw(_deployments()))
        if one.ready and one.admission is Admission.FREE
    ]
    # A model may be named twice, and then serve from the later place where the first one bars it.
    if len({one.model for one in need.candidates}) == len(need.candidates):
        assert well == sorted(well)
