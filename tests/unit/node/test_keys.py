"""Several keys of one account: which takes a call, and what happens when one is refused."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.unit.node.harness import NAME, attempt, chat, node
from tests.unit.node.test_provider import GOOD, WHOLE

from trunkline.node.config import NodeConfig
from trunkline.node.config_providers import KeySource, OpenAIEngine
from trunkline.node.core.keyring import REFUSED_S, REFUSED_S_MAX, RESTED_S, KeyRing
from trunkline.remote.node import NodeRefusedError
from trunkline.runtime.http import Call, Receive, Scope, Send
from trunkline.runtime.server import serving
from trunkline.schema.attempt import Limits, Quota


def requests(remaining: int, limit: int = 100, reset_ms: int | None = None) -> Limits:
    quota = Quota(unit="requests", limit=limit, remaining=remaining, reset_ms=reset_ms)
    return Limits(quotas=(quota,))


def test_calls_go_round() -> None:
    ring = KeyRing(["a", "b", "c"])
    order = []
    for _ in range(6):
        index = ring.pick(0.0)
        assert index is not None
        ring.ended(index)
        order.append(index)
    assert order == [0, 1, 2, 0, 1, 2]


def test_the_key_with_the_most_room_comes_first_until_its_reset_evens_it_out() -> None:
    ring = KeyRing(["a", "b"])
    ring.heard(0, requests(10, reset_ms=5000), 0.0)
    ring.heard(1, requests(80), 0.0)
    assert [ring.pick(1.0), ring.pick(1.0)] == [1, 1]
    assert ring.pick(5.0) == 0


def test_a_refused_key_is_benched_longer_each_time() -> None:
    ring = KeyRing(["a", "b"])
    ring.refused(0, 0.0)
    assert ring.pick(REFUSED_S - 1, {1}) is None
    assert ring.pick(REFUSED_S, {1}) == 0
    ring.refused(0, REFUSED_S)
    assert ring.pick(REFUSED_S * 2, {1}) is None
    for _ in range(20):
        ring.refused(0, 1000.0)
    assert ring.states(1000.0)[0].wait_ms == REFUSED_S_MAX * 1000
    assert [state.state for state in ring.states(1000.0)] == ["refused", "ready"]


def test_where_all_keys_are_refused_one_is_tried_all_the_same() -> None:
    ring = KeyRing(["a", "b"])
    ring.refused(0, 0.0)
    ring.refused(0, 0.0)
    ring.refused(1, 0.0)
    assert ring.pick(1.0) == 1
    assert ring.pick(1.0, {1}) is None
    ring.ended(1)
    ring.limited(1, 30.0, None, 1.0)
    assert ring.pick(2.0) is None


def test_a_limited_key_rests_until_its_reset() -> None:
    ring = KeyRing(["a", "b"])
    ring.limited(0, 30.0, None, 0.0)
    ring.limited(1, None, None, 0.0)
    assert ring.pick(0.0) is None
    assert ring.wait_s(1.0) == RESTED_S - 1
    assert ring.pick(RESTED_S) == 1
    assert ring.pick(30.0, {1}) == 0


def test_limits_are_those_of_all_keys_that_said_something() -> None:
    ring = KeyRing(["a", "b", "c"])
    assert ring.limits(0.0) is None
    ring.heard(0, requests(10, reset_ms=1000), 0.0)
    ring.heard(1, requests(5, 50), 0.0)
    total = Quota(unit="requests", limit=150, remaining=15, reset_ms=500)
    assert ring.limits(0.5) == Limits(quotas=(total,))
    ring.refused(1, 0.5)
    assert ring.limits(0.5) == requests(10, reset_ms=500)


class Keys(RuleBasedStateMachine):
    """A key that may be used is always found, none that rests or is benched ever is."""

    def __init__(self) -> None:
        super().__init__()
        self.ring = KeyRing(["a", "b", "c"])
        self.now_s = 0.0
        self.until_s = [0.0] * 3
        self.running: list[int] = []

    @rule(seconds=st.floats(0, 100))
    def later(self, seconds: float) -> None:
        self.now_s += seconds

    @rule(tried=st.sets(st.integers(0, 2)))
    def call(self, tried: set[int]) -> None:
        usable = {i for i in range(3) if i not in tried and self.now_s >= self.until_s[i]}
        index = self.ring.pick(self.now_s, tried)
        assert (index is None) == (not usable)
        if index is not None:
            assert index in usable
            self.running.append(index)

    @rule(remaining=st.none() | st.integers(0, 9), reset_ms=st.none() | st.integers(0, 10**6))
    def answered(self, remaining: int | None, reset_ms: int | None) -> None:
        if self.running:
            index = self.running.pop()
            self.ring.ended(index)
            quota = Quota(unit="tokens", limit=9, remaining=remaining, reset_ms=reset_ms)
            self.ring.heard(index, Limits(quotas=(quota,)), self.now_s)
            self.until_s[index] = 0.0

    @rule(wait_s=st.floats(0, 50))
    def limited(self, wait_s: float) -> None:
        if self.running:
            index = self.running.pop()
            self.ring.ended(index)
            self.ring.limited(index, wait_s, None, self.now_s)
            self.until_s[index] = self.now_s + wait_s

    @invariant()
    def running_calls_are_counted(self) -> None:
        states = self.ring.states(self.now_s)
        assert [s.running for s in states] == [self.running.count(i) for i in range(3)]


TestKeys = Keys.TestCase


class Account:
    """A scripted provider that answers each key in its own way."""

    def __init__(self, ways: dict[str, str]) -> None:
        self.ways = ways
        self.asked: list[str] = []

    async def startup(self) -> None:
        """Nothing to open."""

    async def shutdown(self) -> None:
        """Nothing to close."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(scope, receive, send)
        if call.path.endswith("/models"):
            await call.reply_json(200, {"data": [{"id": "real-1"}]})
            return
        stream = msgspec.json.decode(await call.body(1 << 20)).get("stream")
        key = (call.header("authorization") or "").removeprefix("Bearer ")
        self.asked.append(key)
        match self.ways[key]:
            case "bad":
                await call.reply_json(401, {"error": {"code": "invalid_api_key"}})
            case "limited":
                error = {"error": {"code": "rate_limit_exceeded"}}
                await call.reply_json(429, error, (("retry-after", "30"),))
            case "limited politely":
                await call.start(200, (("content-type", "text/event-stream"),))
                await call.finish(b'data: {"error":{"code":"rate_limit_exceeded"}}\n\n')
                call.close()
            case "down":
                await call.reply_json(503, {})
            case _ if stream:
                await call.start(200, (("content-type", "text/event-stream"),))
                for data in GOOD:
                    await call.send(b"data: " + data + b"\n\n")
                await call.finish(b"data: [DONE]\n\n")
                call.close()
            case _:
                await call.reply(200, msgspec.json.encode(WHOLE))


def config(base_url: str, folder: Path, keys: list[str]) -> NodeConfig:
    sources = []
    for key in keys:
        (folder / key).write_text(key)
        (folder / key).chmod(0o600)
        sources.append(KeySource(label=f"label-{key}", file=str(folder / key)))
    engine = OpenAIEngine(base_url=base_url, api_keys=tuple(sources), models=("real-1",))
    return NodeConfig(name=NAME, operator="alpha.example", embeddings=False, engine=engine)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_refused_key_gives_way_to_the_next_at_once(tmp_path: Path, stream: bool) -> None:
    account = Account({"k1": "bad", "k2": "limited", "k3": "good"})
    async with (
        serving(account) as base_url,
        node(tmp_path, config=config(base_url, tmp_path, ["k1", "k2", "k3"])) as running,
    ):
        for number in range(1, 4):
            heard = await running.hear(attempt(chat(stream=stream), model="real-1", number=number))
            assert heard.signed is not None
        _, body, _ = await running.get("/healthz")
    assert account.asked == ["k1", "k2", "k3", "k3", "k3"]
    states = {key["label"]: key["state"] for key in msgspec.json.decode(body)["api_keys"]}
    assert states == {"label-k1": "refused", "label-k2": "resting", "label-k3": "ready"}
    assert b'"k1"' not in body


async def test_a_refusal_with_a_polite_status_too(tmp_path: Path) -> None:
    account = Account({"k1": "limited politely", "k2": "good"})
    async with (
        serving(account) as base_url,
        node(tmp_path, config=config(base_url, tmp_path, ["k1", "k2"])) as running,
    ):
        heard = await running.hear(attempt(chat(), model="real-1"))
    assert (heard.text, account.asked) == ("Hello", ["k1", "k2"])


@pytest.mark.parametrize(
    ("ways", "code", "asked"),
    [
        (("limited", "limited"), "upstream_rate_limited", 2),
        (("bad", "bad"), "upstream_auth", 2),
        (("bad", "limited"), "upstream_rate_limited", 2),
        (("down", "good"), "upstream_unavailable", 1),
    ],
)
async def test_a_gateway_hears_when_no_key_is_left_or_none_is_to_blame(
    tmp_path: Path, ways: tuple[str, str], code: str, asked: int
) -> None:
    account = Account(dict(zip(("k1", "k2"), ways, strict=True)))
    async with (
        serving(account) as base_url,
        node(tmp_path, config=config(base_url, tmp_path, ["k1", "k2"])) as running,
    ):
        with pytest.raises(NodeRefusedError) as caught:
            await running.hear(attempt(chat(), model="real-1"))
    assert caught.value.node_error.code == code
    assert caught.value.retryable
    assert len(account.asked) == asked
    if code == "upstream_rate_limited":
        assert 1_000 <= (caught.value.node_error.retry_after_ms or 0) <= 30_000
