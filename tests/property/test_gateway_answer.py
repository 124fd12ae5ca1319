"""The answer's state machine under any sequence of events: its promises hold, whatever happens.

The machine is driven with real signed receipts of a scripted node, and with lies. The reference is
a plain list of what was relayed.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.support.fake_answer import MODEL, NUMERICS, WEIGHTS, Answering, own_seed, text_of
from tests.support.fake_node import FakeNode
from tests.support.fake_script import Fault, Script

from trunkline.base.errors import Error
from trunkline.gateway.core.actions import (
    Action,
    Before,
    Cancel,
    Ended,
    Fail,
    Failure,
    Finish,
    Judge,
    Judgement,
    Plan,
    Relay,
    Seek,
    Start,
    Store,
)
from trunkline.gateway.core.attempt import Answer, State
from trunkline.gateway.core.deadline import Timeouts
from trunkline.gateway.core.route import Deployment, order
from trunkline.gateway.core.values import Values
from trunkline.receipts import request_digest
from trunkline.schema import sse
from trunkline.schema.attempt import (
    Accepted,
    Attempt,
    NodeError,
    Replayed,
    Resume,
    SignedReceipt,
)

REQUEST = {
    True: b'{"model":"tiny","stream":true,"messages":[]}',
    False: b'{"model":"tiny","messages":[]}',
}
NODES = [FakeNode("alpha"), FakeNode("beta"), FakeNode("gamma", numerics="other")]
PROVIDERS = [FakeNode("delta", numerics=None), FakeNode("epsilon", numerics=None)]
"""Nodes whose answers nobody can continue."""
BY_NAME = {node.name: node for node in (*NODES, *PROVIDERS)}
FAULTS = [
    Fault.NONE, Fault.NONE, Fault.NONE, Fault.CUT, Fault.CLEAN_END, Fault.ERROR_RETRYABLE,
    Fault.ERROR_FINAL, Fault.GARBAGE, Fault.DOUBLE, Fault.ALIEN_ERROR, Fault.NO_RECEIPT,
    Fault.NO_FINISH, Fault.BAD_SIGNATURE, Fault.WRONG_STREAM, Fault.WRONG_REQUEST,
    Fault.WRONG_NODE, Fault.WRONG_ATTEMPT, Fault.WRONG_SEED, Fault.WRONG_NUMERICS,
    Fault.UNASKED_CACHE, Fault.HIDDEN_CACHE, Fault.WRONG_AUDIT, Fault.MISCOUNTED,
]  # fmt: skip


def plan_of(*, stream: bool) -> Plan:
    raw = REQUEST[stream]
    return Plan(
        answer="ans_test",
        kind="chat",
        model=MODEL,
        stream=stream,
        choices=1,
        client_format="openai.chat",
        client_digest=request_digest(raw),
        request_digest=request_digest(raw),
        caller_nonce="ab" * 32,
        created_s=1_780_000_000,
        mode="batched",
        deadline_s=1000.0,
        timeouts=Timeouts(),
    )


def deployment(node: FakeNode) -> Deployment:
    return Deployment(
        node=node.name,
        operator=node.operator,
        url="http://127.0.0.1:1",
        key=node.signer.vkey,
        model=MODEL,
        kind="chat",
        weights=WEIGHTS,
        numerics=node.numerics,
    )


@dataclass
class World:
    """Does what the machine asks, and writes down what the app would see."""

    plan: Plan
    now_s: float = 0.0
    shown: list[bytes] = field(default_factory=list)
    stored: list[Store] = field(default_factory=list)
    told: list[Action] = field(default_factory=list)
    live: dict[int, Start] = field(default_factory=dict)
    ends: list[Action] = field(default_factory=list)
    """Every Cancel and Ended, in order."""
    starts: list[Start] = field(default_factory=list)
    disk_fails: bool = False
    judgements: list[Judgement] = field(default_factory=list)
    """What verifiers will say; then they pass everything."""
    failed: set[str] = field(default_factory=set)
    """Nodes whose answers they failed."""
    nodes: list[FakeNode] = field(default_factory=lambda: NODES)

    def __post_init__(self) -> None:
        self.answer = Answer(self.plan, self._attempt_id)

    @property
    def running(self) -> Start | None:
        return next(iter(self.live.values()), None)

    def _attempt_id(self) -> str:
        return f"att_{len(self.starts)}"

    def do(self, actions: tuple[Action, ...]) -> None:
        for action in actions:
            assert not self.told, "nothing follows the end"
            match action:
                case Relay(data=data):
                    assert self.plan.stream or self.stored
                    assert len(self.live) == (not self.stored), "one attempt's text only"
                    self.shown.append(data)
                case Seek():
                    self._place(action)
                case Start():
                    others = [start.deployment.node for start in self.live.values()]
                    assert len(others) < 2
                    assert action.deployment.node not in others
                    self.live[action.number] = action
                    self.starts.append(action)
                    self.now_s += action.delay_s
                case Cancel(number=number):
                    assert number in self.live
                    self.ends.append(action)
                case Ended(number=number):
                    del self.live[number]
                    self.ends.append(action)
                case Judge(part=part):
                    assert not self.shown
                    assert part.deployment.node not in self.failed, "asked only once"
                    said = self.judgements.pop(0) if self.judgements else "pass"
                    if said == "fail":
                        self.failed.add(part.deployment.node)
                    assert self.answer.due_s(part.number) == self.plan.deadline_s
                    self.do(self.answer.on_judged(part.number, said, self.now_s))
                case Store():
                    self._store(action)
                case Finish() | Fail():
                    self.told.append(action)

    def _place(self, seek: Seek) -> None:
        found = next(iter(order(seek.need, map(deployment, self.nodes))), None)
        if found is None:
            self.do(self.answer.on_unplaced(seek.number, None, self.now_s))
        else:
            self.do(self.answer.on_placed(seek.number, found, self.now_s))

    def _store(self, part: Store) -> None:
        if self.disk_fails:
            self.do(self.answer.on_not_stored(Error("full")))
            return
        self.stored.append(part)
        self.do(self.answer.on_stored())


def events(world: World, start: Start, script: Script) -> Iterator[tuple[Action, ...]]:
    """Play one scripted attempt into the machine, frame by frame."""
    node = BY_NAME[start.deployment.node]
    attempt = Attempt(
        kind="chat",
        attempt=start.attempt,
        answer=world.plan.answer,
        created_s=world.plan.created_s,
        model=MODEL,
        client_format="openai.chat",
        client_request_digest=world.plan.client_digest,
        caller_nonce=world.plan.caller_nonce,
        deadline_ms=1000,
        seed=start.seed,
        numerics=None if start.origin is None else start.origin.numerics,
        previous=start.previous,
        resume=None if start.resume is None else Resume(tokens=start.resume),
        request=msgspec.Raw(REQUEST[world.plan.stream]),
    )
    answer, number = world.answer, start.number
    parser = sse.SseParser()
    for frame in Answering(node, attempt, script).frames():
        if not isinstance(frame, bytes):
            break
        for event in parser.feed(frame):
            world.now_s += 0.01
            data = event.data or b""
            match event.event:
                case "accepted":
                    accepted = msgspec.json.decode(data, type=Accepted)
                    yield answer.on_accepted(number, accepted, world.now_s)
                case "replayed":
                    said = msgspec.json.decode(data, type=Replayed)
                    yield answer.on_replayed(number, said.digest, world.now_s)
                case "progress":
                    yield answer.on_progress(number, event.tokens, world.now_s)
                case "receipt":
                    signed = msgspec.json.decode(data, type=SignedReceipt)
                    yield answer.on_receipt(number, signed, world.now_s)
                case "error":
                    error = msgspec.json.decode(data, type=NodeError)
                    failure = Failure(
                        code=error.code, message=error.message, retryable=error.retryable
                    )
                    yield answer.on_failed(number, failure, world.now_s)
                case _:
                    assert event.id is not None
                    yield answer.on_chunk(
                        number, int(event.id), event.tokens, event.data, world.now_s
                    )
    yield answer.on_failed(number, Failure(code="upstream_truncated", message="cut"), world.now_s)


scripts = st.builds(
    lambda fault, after: Script(fault=fault, after=after),
    st.sampled_from(FAULTS),
    st.integers(0, 16),
)


def reference(world: World) -> list[bytes]:
    """What an app would have been shown by one undisturbed node with the answer's seed."""
    part = world.stored[0]
    seed = part.verified.receipt.sampling.seed
    node = BY_NAME[part.deployment.node]
    attempt = Attempt(
        kind="chat",
        attempt="att_reference",
        answer=world.plan.answer,
        created_s=world.plan.created_s,
        model=MODEL,
        client_format="openai.chat",
        client_request_digest=world.plan.client_digest,
        caller_nonce=world.plan.caller_nonce,
        deadline_ms=1000,
        seed=seed,
        request=msgspec.Raw(REQUEST[world.plan.stream]),
    )
    parser, found = sse.SseParser(), []
    for frame in Answering(node, attempt, Script()).frames():
        assert isinstance(frame, bytes)
        found += [e.data for e in parser.feed(frame) if e.event == "" and e.data is not None]
    return found


def run(world: World, fates: list[Script]) -> None:
    """Play attempts until the answer is over; after the scripts run out, nodes are honest."""
    world.do(world.answer.begin(world.now_s))
    left = list(fates)
    for _ in range(200):
        if world.running is None or world.answer.over:
            break
        start = world.running
        for actions in events(world, start, left.pop(0) if left else Script()):
            world.do(actions)
            if world.running is not start:
                break
    assert world.answer.over, "every answer ends"


def shown_text(world: World) -> str:
    """The text that the app was shown."""
    chunks = [json.loads(data) for data in world.shown]
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)


def fresh_seeds(world: World) -> list[str]:
    """Seeds of the attempts that began afresh: what is shown comes from one of them alone."""
    return [
        own_seed(BY_NAME[start.deployment.node], world.plan.caller_nonce, start.attempt)
        for start in world.starts
        if start.resume is None
    ]


@example(
    stream=True,
    fates=[Script(fault=Fault.CUT, after=6), *[Script(fault=Fault.WRONG_SEED, after=99)] * 9],
)
@given(stream=st.booleans(), fates=st.lists(scripts, max_size=8))
@settings(deadline=None, max_examples=150)
def test_what_the_app_sees_is_whole_or_explicitly_ended(stream: bool, fates: list[Script]) -> None:
    world = World(plan_of(stream=stream))
    run(world, fates)
    assert len(world.told) == 1
    if isinstance(world.told[0], Finish):
        assert world.answer.state is State.DONE
        assert len(world.stored) == 1
        assert world.shown == reference(world)
    else:
        assert world.answer.state is State.FAILED
        assert not world.stored
        text = shown_text(world)
        assert any(text_of(seed).startswith(text) for seed in fresh_seeds(world))
        assert not any(b'"stop"' in data for data in world.shown), "no forged finish"
    for start in world.starts:
        if start.resume is not None:
            assert start.seed is not None
            assert start.origin is not None
            assert start.deployment.numerics == start.origin.numerics
            assert start.origin.numerics in (NUMERICS, "other")


@given(
    stream=st.booleans(),
    fates=st.lists(scripts, max_size=4),
    stop_after=st.integers(0, 40),
    how=st.sampled_from(["gone", "stage", "total"]),
)
@settings(deadline=None, max_examples=100)
def test_it_ends_at_any_moment(
    stream: bool, fates: list[Script], stop_after: int, how: str
) -> None:
    world = World(plan_of(stream=stream))
    world.do(world.answer.begin(0.0))
    left, count = list(fates), 0
    while world.running is not None and not world.answer.over and count < 500:
        start = world.running
        for actions in events(world, start, left.pop(0) if left else Script()):
            count += 1
            world.do(actions)
            if count == stop_after and not world.answer.over:
                if how == "gone":
                    gone = Failure(code="client_gone", message="left")
                    world.do(world.answer.stop(gone))
                elif how == "total":
                    world.now_s = world.plan.deadline_s
                    world.do(world.answer.timed_out(start.number, world.now_s))
                    assert world.answer.over
                else:
                    world.now_s = world.answer.due_s(start.number)
                    world.do(world.answer.timed_out(start.number, world.now_s))
            if world.running is not start:
                break
    assert world.answer.over
    assert len(world.told) == 1
    assert world.answer.stop(Failure(code="x", message="x")) == ()


held_fates = st.lists(scripts.filter(lambda s: s.fault is not Fault.WRONG_NUMERICS), max_size=8)


@given(fates=held_fates)
@settings(deadline=None, max_examples=100)
def test_what_is_held_back_is_shown_whole_or_not_at_all(fates: list[Script]) -> None:
    world = World(msgspec.structs.replace(plan_of(stream=True), hold=True), nodes=PROVIDERS)
    run(world, fates)
    (end,) = world.told
    if isinstance(end, Finish):
        (part,) = world.stored
        node = BY_NAME[part.deployment.node]
        assert shown_text(world) == text_of(own_seed(node, world.plan.caller_nonce, part.attempt))
        assert b'"stop"' in world.shown[-1]
    else:
        assert not world.stored
        assert world.shown == []


judgement_lists: st.SearchStrategy[list[Judgement]] = st.lists(
    st.sampled_from(["pass", "fail", "inconclusive"]), max_size=4
)


@given(
    stream=st.booleans(),
    fates=st.lists(scripts, max_size=5),
    judgements=judgement_lists,
    release=st.booleans(),
)
@settings(deadline=None, max_examples=100)
def test_what_is_verified_before_is_shown_only_after_a_verdict(
    stream: bool, fates: list[Script], judgements: list[Judgement], release: bool
) -> None:
    before = Before(deadline_s=5.0, release=release)
    plan = msgspec.structs.replace(plan_of(stream=stream), before=before)
    world = World(plan, judgements=list(judgements))
    run(world, fates)
    (end,) = world.told
    if isinstance(end, Finish):
        assert world.answer.judged in (("pass", "inconclusive") if release else ("pass",))
        assert world.stored[0].deployment.node not in world.failed
        assert world.shown == reference(world)
    else:
        assert isinstance(end, Fail)
        assert world.shown == []
        assert not world.stored
        if not fates and judgements[:1] == ["inconclusive"]:
            assert end.failure.code == "verification_inconclusive"
            assert not release
    past = [one for start in world.starts for one in start.previous]
    assert world.failed >= {one.node for one in past if one.error == "verification_failed"}


@given(fates=held_fates)
@settings(deadline=None, max_examples=50)
def test_a_document_that_is_none_is_never_shown(fates: list[Script]) -> None:
    plan = msgspec.structs.replace(plan_of(stream=True), values=Values(document=True))
    world = World(plan, nodes=PROVIDERS)
    run(world, fates)
    (end,) = world.told
    assert isinstance(end, Fail)
    assert end.failure.produced is None
    assert world.shown == []
    # The scripted nodes never write JSON, so honest ones are asked as often as allowed.
    assert fates or "upstream_invalid_json" in end.failure.message


@given(fates=st.lists(scripts, max_size=8))
@settings(deadline=None, max_examples=50)
def test_an_explicit_end_says_how_much_was_shown(fates: list[Script]) -> None:
    world = World(plan_of(stream=True), nodes=PROVIDERS)
    run(world, fates)
    (end,) = world.told
    if isinstance(end, Fail) and world.shown:
        assert end.failure.produced is not None
        assert end.failure.produced.chunks == len(world.shown)
        assert end.failure.produced.characters == len(shown_text(world))
    elif isinstance(end, Fail):
        assert end.failure.produced is None


@given(stream=st.booleans())
@settings(deadline=None, max_examples=4)
def test_a_full_disk_is_never_a_finish(stream: bool) -> None:
    world = World(plan_of(stream=stream), disk_fails=True)
    run(world, [])
    (end,) = world.told
    assert isinstance(end, Fail)
    assert end.failure.code == "evidence_not_stored"
    assert not any(b'"stop"' in data for data in world.shown)


@given(data=st.binary(max_size=40), number=st.integers(-2, 3))
@settings(deadline=None)
def test_any_bytes_for_a_chunk_never_crash(data: bytes, number: int) -> None:
    world = World(plan_of(stream=True))
    world.do(world.answer.begin(0.0))
    start = world.running
    assert start is not None
    node = BY_NAME[start.deployment.node]
    accepted = Accepted(
        attempt=start.attempt,
        node=node.name,
        operator=node.operator,
        model=MODEL,
        weights=WEIGHTS,
        numerics=node.numerics,
        seed=sha256(b"s").hexdigest(),
    )
    world.do(world.answer.on_accepted(start.number, accepted, 0.1))
    world.do(world.answer.on_chunk(start.number, number, ((0, 1),), data, 0.2))
    assert world.running is not start or world.shown == [data]


def test_a_role_chunk_does_not_end_the_wait_for_the_first_token() -> None:
    world = World(plan_of(stream=True))
    world.do(world.answer.begin(0.0))
    start = world.running
    assert start is not None
    played = events(world, start, Script())
    world.do(next(played))
    world.do(next(played))
    assert world.answer.due_s(start.number) == 0.01 + world.plan.timeouts.first_token_s
    world.do(next(played))
    assert world.answer.due_s(start.number) == world.now_s + world.plan.timeouts.idle_s
