"""The node's cache: what it gives again, what it never does, and what the receipts say of it."""

from pathlib import Path

import msgspec
import pytest
from tests.unit.node.harness import KEY, NAME, Heard, attempt, chat, node
from tests.unit.node.scripted import ScriptedEngine, noise
from tests.unit.node.test_provider import GOOD, WHOLE, Upstream, config

from trunkline.base.errors import ConfigError
from trunkline.node import cache as node_cache
from trunkline.node.cache import AnswerCache
from trunkline.node.config import CacheConfig, NodeConfig, read, render
from trunkline.node.core.cache import Kept, cache_key
from trunkline.node.core.content import Before
from trunkline.node.core.content import Kept as Opening
from trunkline.receipts import (
    Receipt,
    ReceiptCached,
    bound_bytes,
    receipt_leaf,
    request_digest,
    stream_digest,
    verify_signed,
)
from trunkline.remote.node import NodeRefusedError
from trunkline.runtime.server import serving
from trunkline.schema.attempt import Accepted, Attempt, Mode, Prefix, PreviousAttempt

SCOPE = "5c" * 32
ON = CacheConfig()


def asks(number: int, *, scope: str = SCOPE, mode: Mode = "batched", **more: object) -> Attempt:
    """An attempt of an answer of its own at one and the same request."""
    made = attempt(chat(**more), number=number, model="real-1")  # type: ignore[arg-type]
    return msgspec.structs.replace(
        made,
        answer=f"ans_{number}",
        created_s=1_780_000_000 + number,
        caller_nonce=f"{number:02x}" * 32,
        cache=scope,
        mode=mode,
    )


def cached_config(base_url: str, cache: CacheConfig | None = ON) -> NodeConfig:
    return msgspec.structs.replace(config(base_url), cache=cache)


def receipt_of(heard: Heard) -> Receipt:
    assert heard.signed is not None
    return verify_signed(heard.signed, KEY).receipt


async def hear(
    folder: Path, upstream: Upstream, *attempts: Attempt, cache: CacheConfig | None = ON
) -> list[Heard]:
    """What a node in front of ``upstream`` says to each attempt, one after the other."""
    async with (
        serving(upstream) as base_url,
        node(folder, config=cached_config(base_url, cache)) as running,
    ):
        return [await running.hear(each) for each in attempts]


async def test_the_same_again_is_not_asked_for_again(tmp_path: Path) -> None:
    upstream = Upstream(GOOD)
    first, again = await hear(tmp_path, upstream, asks(1), asks(2))

    assert len(upstream.received) == 1
    assert first.data == GOOD
    assert again.text == first.text == "Hello"
    told = [msgspec.json.decode(data) for data in again.data]
    assert {(chunk["id"], chunk["created"]) for chunk in told} == {("chatcmpl-2", 1_780_000_002)}
    own = {"id": "up-1", "created": 7}
    assert [chunk | own for chunk in told] == [msgspec.json.decode(data) for data in GOOD]
    assert [event.id for event in again.chunks] == [0, 1, 2, 3]


async def test_its_receipt_is_its_own_and_names_the_original(tmp_path: Path) -> None:
    second = asks(2)
    first, again = await hear(tmp_path, Upstream(GOOD), asks(1), second)

    original, receipt = receipt_of(first), receipt_of(again)
    assert not original.cached
    assert first.accepted is not None
    assert not first.accepted.cached
    assert first.signed is not None
    leaf = receipt_leaf(first.signed.receipt.encode()).hex()
    assert receipt.cached == ReceiptCached(ended_ms=original.times.ended_ms, receipt=leaf)
    assert (receipt.answer, receipt.attempt, receipt.created_s) == ("ans_2", "att_2", 1_780_000_002)
    assert receipt.sampling.caller_nonce == second.caller_nonce
    assert receipt.previous == leaf
    assert (receipt.model, receipt.usage) == (original.model, original.usage)
    assert receipt.response.finish == original.response.finish
    bound = bound_bytes(request_digest(bytes(second.request)))
    assert receipt.response.digest == stream_digest(bound, "att_2", again.data)
    assert again.accepted is not None
    assert again.accepted.cached


async def test_a_whole_answer_is_given_again_whole(tmp_path: Path) -> None:
    upstream = Upstream(body=msgspec.json.encode(WHOLE))
    first, again = await hear(tmp_path, upstream, asks(1, stream=False), asks(2, stream=False))

    assert len(upstream.received) == 1
    assert msgspec.json.decode(again.data[0]) == WHOLE | {
        "id": "chatcmpl-2",
        "created": 1_780_000_002,
    }
    assert receipt_of(again).cached
    assert not receipt_of(first).cached


async def test_it_is_off_unless_configured(tmp_path: Path) -> None:
    upstream = Upstream(GOOD)
    heard = await hear(tmp_path, upstream, asks(1), asks(2), cache=None)

    assert len(upstream.received) == 2
    assert not any(receipt_of(each).cached for each in heard)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (asks(1, scope=""), asks(2, scope="")),
        (asks(1), asks(2, scope="")),
        (asks(1, scope=""), asks(2)),
        (asks(1), asks(2, scope="5d" * 32)),
        (asks(1), asks(2, temperature=0.5)),
        (asks(1, seed=1), asks(2, seed=2)),
        (asks(1, mode="private"), asks(2)),
        (asks(1), asks(2, mode="private")),
    ],
)
async def test_what_differs_is_made_anew(tmp_path: Path, first: Attempt, second: Attempt) -> None:
    upstream = Upstream(GOOD)
    heard = await hear(tmp_path, upstream, first, second)

    assert len(upstream.received) == 2
    assert not receipt_of(heard[1]).cached


async def test_a_retry_is_made_anew_and_replaces_what_was_kept(tmp_path: Path) -> None:
    upstream = Upstream(GOOD)
    before = PreviousAttempt(attempt="att_1", node=NAME, error="invalid_tool_call")
    retry = msgspec.structs.replace(asks(2), previous=(before,))
    _, made, again = await hear(tmp_path, upstream, asks(1), retry, asks(3))

    assert len(upstream.received) == 2
    assert not receipt_of(made).cached
    cached = receipt_of(again).cached
    assert cached
    assert made.signed is not None
    assert cached.receipt == receipt_leaf(made.signed.receipt.encode()).hex()


async def test_what_goes_on_after_a_text_is_neither_taken_nor_kept(tmp_path: Path) -> None:
    prefix = Prefix(text="Hel", events=2, id="chatcmpl-1", created=1, model="real-1")
    goes_on = msgspec.structs.replace(asks(2), prefix=prefix)
    upstream = Upstream(GOOD)
    async with (
        serving(upstream) as base_url,
        node(tmp_path, config=cached_config(base_url)) as running,
    ):
        await running.hear(asks(1))
        # This upstream does not go on after a text: had the cache answered, nobody had refused.
        with pytest.raises(NodeRefusedError) as refused:
            await running.hear(goes_on)
    assert refused.value.node_error.code == "cannot_continue"


@pytest.mark.parametrize("fault", [{"events": GOOD[:2]}, {"events": GOOD[:3], "done": False}])
async def test_a_broken_answer_is_not_kept(tmp_path: Path, fault: dict[str, object]) -> None:
    upstream = Upstream(**fault)  # type: ignore[arg-type]
    async with (
        serving(upstream) as base_url,
        node(tmp_path, config=cached_config(base_url)) as running,
    ):
        broken = await running.hear(asks(1))
        upstream.events, upstream.done = GOOD, True
        whole = await running.hear(asks(2))
    assert broken.error is not None
    assert whole.text == "Hello"
    assert not receipt_of(whole).cached


async def test_kinds_that_are_not_named_are_not_kept(tmp_path: Path) -> None:
    upstream = Upstream(GOOD)
    only = CacheConfig(kinds=("embeddings",))
    await hear(tmp_path, upstream, asks(1), asks(2), cache=only)
    assert len(upstream.received) == 2


async def test_an_answer_too_large_is_given_and_not_kept(tmp_path: Path) -> None:
    large = GOOD[1].replace(b"Hel", b"x" * 20_000)
    upstream = Upstream([GOOD[0], large, *GOOD[2:]])
    heard = await hear(tmp_path, upstream, asks(1), asks(2), cache=CacheConfig(bytes_max=65_536))
    assert len(upstream.received) == 2
    assert len(heard[1].text) > 20_000


@pytest.mark.parametrize("stream", [True, False])
async def test_the_embedded_models_answers_too(tmp_path: Path, stream: bool) -> None:
    made = NodeConfig(name=NAME, operator="alpha.example", embeddings=False, cache=ON)
    request = attempt(chat(stream=stream), model="scripted")
    async with node(tmp_path, ScriptedEngine(noise), config=made) as running:
        heard = [
            await running.hear(
                msgspec.structs.replace(
                    request, attempt=f"att_{number}", answer=f"ans_{number}", cache=scope
                )
            )
            for number, scope in enumerate((SCOPE, SCOPE, ""))
        ]
    first, again, anew = heard
    original, receipt = receipt_of(first), receipt_of(again)

    def said(one: Heard) -> list[object]:
        return [msgspec.json.decode(data)["choices"] for data in one.data]

    # Each answer has a seed of its own, unless it is one that was given before.
    assert said(first) == said(again) != said(anew)
    assert again.accepted is not None
    assert (again.accepted.numerics, again.accepted.seed) == (None, None)
    assert again.accepted.weights == receipt.model.weights == original.model.weights != ""
    assert not again.tokens
    assert not again.progress
    assert (receipt.sampling.source, receipt.sampling.seed) == ("none", "")
    assert (receipt.response.tokens, receipt.request.prompt) == ("", "")
    assert receipt.usage == original.usage
    assert receipt.cached
    assert not receipt_of(anew).cached


class Slept:
    """The clock of a machine that slept: the seconds that it counts stood still."""

    def __init__(self, unix_ms: int) -> None:
        self._unix_ms = unix_ms

    def monotonic_s(self) -> float:
        return 5.0

    def unix_ms(self) -> int:
        return self._unix_ms


class Logged:
    """A node's store whose log has every receipt."""

    async def read(self, _: object) -> object:
        return msgspec.defstruct("Found", [("log_index", int, 9)])()


class Makes:
    """Makes every answer anew."""

    def models(self) -> tuple[()]:
        return ()

    async def prepare(self, _: Attempt) -> str:
        return "made"


@pytest.mark.parametrize(("later_ms", "again"), [(85_800_000, True), (85_800_001, False)])
async def test_what_may_be_audited_is_given_for_a_day_also_on_a_machine_that_slept(
    later_ms: int, again: bool
) -> None:
    """Its receipts say when it was made, and an older one would be held against its node."""
    asked = msgspec.structs.replace(asks(1), audit=True)
    clock = Slept(1_780_000_000_000 + later_ms)
    cache = AnswerCache(ON, Logged(), clock=clock)  # type: ignore[arg-type]
    accepted = Accepted(attempt="att_1", node=NAME, operator="a", model="real-1")
    kept = Kept(
        accepted=accepted,
        data=(),
        outcome=None,  # type: ignore[arg-type]
        original=ReceiptCached(ended_ms=1_780_000_000_000, receipt="00" * 32),
        before=Before(signed=b"", content=Opening(b"")),
    )
    given = []

    def giving(kept: Kept, _: Attempt) -> str:
        given.append(kept)
        return "again"

    cache.put(cache_key(asked, ""), kept)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(node_cache, "Again", giving)
        await cache.prepare(Makes(), asked)  # type: ignore[arg-type]
    assert given == [kept] * again


async def test_a_scope_is_32_bytes_or_nothing(tmp_path: Path) -> None:
    async with (
        serving(Upstream(GOOD)) as base_url,
        node(tmp_path, config=cached_config(base_url)) as running,
    ):
        with pytest.raises(NodeRefusedError) as refused:
            await running.hear(asks(1, scope="me"))
    assert refused.value.node_error.param == "cache"


def test_its_configuration_is_read_and_bounded(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    for cache in (None, CacheConfig(keep_s=2.5, bytes_max=100_000, kinds=("chat",))):
        made = cached_config("http://127.0.0.1:1", cache)
        file.write_text(render(made))
        assert read(file) == made
    for wrong in ("keep_s = 0", "bytes_max = 1000", 'kinds = ["pictures"]', "share = true"):
        file.write_text(f'name = "{NAME}"\noperator = "alpha.example"\n[cache]\n{wrong}\n')
        with pytest.raises(ConfigError):
            read(file)
