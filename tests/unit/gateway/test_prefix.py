"""Text that broke off is gone on with by another deployment: the answer's machine, step by step."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.property.test_gateway_answer import deployment, plan_of
from tests.support.fake_node import FakeNode

from trunkline.gateway.core.actions import Action, Fail, Failure, Plan, Relay, Seek, Start
from trunkline.gateway.core.attempt import Answer
from trunkline.gateway.core.route import Deployment, Need, order
from trunkline.receipts import prefix_digest
from trunkline.schema.attempt import Accepted, Used

ALPHA, BETA = FakeNode("alpha", numerics=None), FakeNode("beta", numerics=None)
CUT = Failure(code="upstream_truncated", message="cut")
HEAD = {"id": "one", "created": 1_780_000_000, "model": "tiny-1"}


def provider(node: FakeNode, *, prefix: bool = True) -> Deployment:
    return msgspec.structs.replace(deployment(node), weights=None, prefix=prefix)


def chunk(text: str | None = None, **delta: object) -> bytes:
    said = delta if text is None else {"content": text} | delta
    choice = {"index": 0, "delta": said, "finish_reason": None}
    return json.dumps(HEAD | {"choices": [choice]}).encode()


class Machine:
    """An answer over provider nodes that take turns, and what its app was shown."""

    def __init__(self, *nodes: Deployment, plan: Plan | None = None) -> None:
        self.nodes = nodes or (provider(ALPHA), provider(BETA))
        self.answer = Answer(plan or plan_of(stream=True), self._attempt_id)
        self.starts: list[Start] = []
        self.needs: list[Need] = []
        self.shown: list[bytes] = []
        self.failed: Failure | None = None
        self._event = 0
        self.do(self.answer.begin(0.0))

    def _attempt_id(self) -> str:
        return f"att_{len(self.starts)}"

    def do(self, actions: tuple[Action, ...]) -> None:
        for action in actions:
            match action:
                case Seek():
                    self.needs.append(action.need)
                    found = next(iter(order(action.need, self.nodes)), None)
                    if found is None:
                        self.do(self.answer.on_unplaced(action.number, None, 0.0))
                    else:
                        self.do(self.answer.on_placed(action.number, found, 0.0))
                case Start():
                    self.starts.append(action)
                    self._event = action.first_event
                case Relay():
                    self.shown.append(action.data)
                case Fail():
                    self.failed = action.failure
                case _:
                    pass

    @property
    def start(self) -> Start:
        return self.starts[-1]

    def accept(self, **changes: object) -> None:
        """The running attempt's node takes it on."""
        start = self.start
        text = None if start.prefix is None else prefix_digest(start.prefix.text)
        accepted = Accepted(
            attempt=start.attempt,
            node=start.deployment.node,
            operator=start.deployment.operator,
            model="tiny",
            prefix=text,
        )
        accepted = msgspec.structs.replace(accepted, **changes)
        self.do(self.answer.on_accepted(start.number, accepted, 0.0))

    def say(self, *chunks: bytes, used: tuple[int, int] | None = None) -> None:
        """The node sends chunks."""
        for data in chunks:
            event, self._event = self._event, self._event + 1
            self.do(self.answer.on_chunk(self.start.number, event, (), data, 0.0, used=used))

    def fail(self, failure: Failure = CUT) -> None:
        """The running attempt ends."""
        self.do(self.answer.on_failed(self.start.number, failure, 0.0))

    @property
    def text(self) -> str:
        chunks = [json.loads(data) for data in self.shown]
        return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks)


def begun(*nodes: Deployment, plan: Plan | None = None) -> Machine:
    """An answer of which the app has seen a few words."""
    machine = Machine(*nodes, plan=plan)
    machine.accept()
    machine.say(chunk("", role="assistant"), chunk("Once "), chunk("upon"), used=(5, 2))
    assert machine.text == "Once upon"
    return machine


def test_the_next_node_is_given_what_was_shown_and_by_whom() -> None:
    machine = begun()
    machine.fail()
    start = machine.start
    assert start.deployment.node != machine.starts[0].deployment.node
    assert start.prefix is not None
    assert (start.prefix.text, start.prefix.events) == ("Once upon", 3)
    assert (start.prefix.id, start.prefix.created, start.prefix.model) == tuple(HEAD.values())
    assert start.prefix.used == Used(prompt=5, completion=2)
    assert (start.resume, start.seed, start.first_event) == (None, None, 3)
    assert [past.characters for past in start.previous] == [9]

    machine.accept()
    machine.say(chunk(" a time"))
    assert machine.text == "Once upon a time"
    machine.fail()
    assert machine.start.prefix is not None
    # The second part's provider had not said what it took.
    assert machine.start.prefix.used is None
    assert [past.characters for past in machine.start.previous] == [9, 7]


WORDS = st.text(alphabet="abcd ", min_size=1, max_size=12)


@given(st.lists(st.lists(WORDS, max_size=4), min_size=1, max_size=5))
def test_nothing_is_lost_or_said_twice_however_often_it_breaks_off(parts: list[list[str]]) -> None:
    machine = Machine()
    for part in parts:
        machine.accept()
        for words in part:
            if machine.answer.runs(machine.start.number):
                machine.say(chunk("", role="assistant")) if not machine.shown else None
                machine.say(chunk(words))
        if machine.answer.runs(machine.start.number):
            machine.fail()
        if machine.failed is not None:
            break
        prefix = machine.start.prefix
        if machine.text:
            assert prefix is not None
            assert prefix.text == machine.text
            assert prefix.events == len(machine.shown) == machine.start.first_event
            assert sum(past.characters for past in machine.start.previous) == len(prefix.text)
        else:
            assert prefix is None
            assert all(past.characters == 0 for past in machine.start.previous)


def test_a_text_that_begins_again_is_not_shown_and_somebody_else_is_asked() -> None:
    machine = begun()
    machine.fail()
    machine.accept()
    machine.say(chunk("Once "), chunk("upon a"))
    assert machine.text == "Once upon"
    assert len(machine.starts) == 3
    assert machine.starts[-1].previous[-1].error == "upstream_bad_seam"
    assert machine.starts[-1].prefix == machine.starts[1].prefix


@pytest.mark.parametrize(
    "second",
    [chunk("a", role="assistant"), chunk("a").replace(b'"one"', b'"two"')],
)
def test_a_second_beginning_is_not_shown(second: bytes) -> None:
    machine = begun()
    machine.fail()
    machine.accept()
    machine.say(second)
    assert machine.text == "Once upon"
    assert len(machine.starts) == 3


def test_a_node_that_goes_on_after_another_text_is_not_believed() -> None:
    for wrong in (None, prefix_digest("Once")):
        machine = begun()
        machine.fail()
        machine.accept(prefix=wrong)
        assert len(machine.starts) == 3


@pytest.mark.parametrize(
    "shown",
    [
        chunk(reasoning_content="Hm"),
        chunk(reasoning="Hm"),
        chunk(refusal="No"),
        chunk(tool_calls=[{"index": 0, "function": {"name": "f", "arguments": "{"}}]),
    ],
)
def test_only_text_is_gone_on_with(shown: bytes) -> None:
    machine = begun()
    machine.say(shown)
    machine.fail()
    assert machine.failed is not None
    assert machine.failed.code == "answer_interrupted"


def test_text_that_is_wrong_is_not_gone_on_with() -> None:
    machine = begun()
    machine.fail(Failure(code="upstream_repeated_chunk", message="twice", damaging=True))
    assert machine.failed is not None
    machine = begun()
    machine.say(b"no chunk")
    assert machine.failed is not None


def test_several_choices_are_not_gone_on_with() -> None:
    machine = begun(plan=msgspec.structs.replace(plan_of(stream=True), choices=2))
    machine.fail()
    assert machine.failed is not None


@pytest.mark.parametrize(
    "other",
    [
        provider(BETA, prefix=False),
        msgspec.structs.replace(provider(BETA), weights="sha256:" + "3e" * 32),
        msgspec.structs.replace(provider(BETA), model="other"),
    ],
)
def test_who_can_not_go_on_with_the_same_model_is_not_asked(other: Deployment) -> None:
    machine = begun(provider(ALPHA, prefix=False), other)
    machine.fail()
    assert machine.failed is not None
    assert machine.failed.produced is not None
    assert machine.failed.produced.characters == len(machine.text)
