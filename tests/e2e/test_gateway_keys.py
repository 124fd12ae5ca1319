"""Virtual keys and budgets through the front door, with the official clients and real crashes."""

import asyncio
import json
import signal
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import anthropic
import msgspec
import openai
import pytest
from tests.support.fake_answer import MODEL, TOKENS
from tests.support.fake_node import FakeNode
from tests.support.fake_script import Fault, Script, with_hold
from tests.support.gateway import FakeLog, PlainClient, Reply, process, settings, write_config

from trunkline.gateway.core.deadline import Timeouts
from trunkline.gateway.front import Gateway
from trunkline.gateway.key_store import KeyRow, KeyStore, digest_of
from trunkline.gateway.keys import KeyUse, new_secret, new_tenant_id
from trunkline.gateway.routing import Routing
from trunkline.gateway.store import EvidenceStore, create_store
from trunkline.remote.http1 import HttpTransport
from trunkline.runtime.clock import SystemClock, SystemRandomness
from trunkline.runtime.logger import get_logger
from trunkline.runtime.server import serving

CHAT = "/v1/chat/completions"
PRICES = f'[prices."{MODEL}"]\ninput = "1"\noutput = "2"\n'
COST = (3 + TOKENS * 2) * 1000
"""Nano-USD of every answer of the fake nodes."""
COST_USD = "0.000027"
SEEN_S = 20.0


async def until(true: Callable[[], Awaitable[bool]], timeout_s: float = SEEN_S) -> None:
    """Ask until it is so; fail when that takes too long."""
    async with asyncio.timeout(timeout_s):
        while not await true():
            continue


class Desk:
    """A gateway that asks for keys, and its administrator's store of them."""

    def __init__(self, url: str, keys: KeyStore) -> None:
        self.url = url
        self.keys = keys
        self.http = PlainClient(url)
        self._transport = HttpTransport()

    async def close(self) -> None:
        await self.http.aclose()
        await self._transport.aclose()

    async def make(self, name: str, expires_ms: int | None = None) -> str:
        """A key in force, known to the gateway."""
        secret = new_secret(SystemRandomness())
        row = KeyRow(
            id=new_tenant_id(SystemRandomness()),
            name=name,
            created_ms=SystemClock().unix_ms(),
            expires_ms=expires_ms,
            revoked_ms=None,
        )
        await self.keys.create(row, digest_of(secret))
        await self.until(secret, 200)
        return secret

    async def until(self, secret: str, status: int) -> None:
        """Wait until the gateway answers a key with this status."""

        async def seen() -> bool:
            return (await self.models(secret)).status == status

        await until(seen)

    async def get(self, path: str, secret: str, **more: str) -> Reply:
        sent = [("x-api-key", secret), *((n.replace("_", "-"), v) for n, v in more.items())]
        async with await self._transport.request("GET", self.url + path, headers=sent) as response:
            return Reply(response, await response.read(1 << 20))

    async def models(self, secret: str) -> Reply:
        return await self.get("/v1/models", secret)

    async def money(self, secret: str) -> dict[str, Any]:
        return (await self.get("/trunkline/v1/keys/self", secret)).json()

    def openai(self, secret: str) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=self.url + "/v1", api_key=secret, max_retries=2)

    def anthropic(self, secret: str) -> anthropic.AsyncAnthropic:
        return anthropic.AsyncAnthropic(base_url=self.url, api_key=secret, max_retries=2)


@asynccontextmanager
async def desk(
    nodes: Sequence[FakeNode],
    data: Path,
    routing: str = PRICES,
    *,
    use: KeyUse = "required",
    store: EvidenceStore | None = None,
) -> AsyncIterator[Desk]:
    path = data / "routing.toml"
    path.write_text(routing)
    keys = KeyStore.open(data, create=True)
    if store is None:
        create_store(data)
        store = EvidenceStore.open(data)
    logger = get_logger("gateway")
    app = Gateway(
        msgspec.structs.replace(settings(nodes), keys=use),
        store,
        FakeLog(),
        HttpTransport(),
        policy="",
        routing=Routing(path, clock=SystemClock(), logger=logger),
        key_store=KeyStore.open(data),
        clock=SystemClock(),
        randomness=SystemRandomness(),
        logger=logger,
    )
    try:
        async with serving(app, shutdown_grace_s=0.2) as url:
            made = Desk(url, keys)
            try:
                yield made
            finally:
                await made.close()
    finally:
        await keys.close()


def body(**members: object) -> bytes:
    asked = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 10}
    return json.dumps(asked | members).encode()


def books(data: Path) -> tuple[list[tuple[str, int]], int, list[str]]:
    """What the store says: charges by answer, the sum of all days, and the answers stored."""
    with closing(sqlite3.connect(data / "evidence.db")) as connection:
        charges = connection.execute("SELECT answer, nusd FROM charges ORDER BY answer").fetchall()
        total = connection.execute("SELECT COALESCE(SUM(nusd), 0) FROM spending").fetchone()[0]
        answers = connection.execute("SELECT answer FROM answers ORDER BY answer").fetchall()
    return charges, total, [row[0] for row in answers]


async def test_the_official_clients_call_with_a_key(tmp_path: Path) -> None:
    async with FakeNode("alpha") as node, desk([node], tmp_path) as door:
        secret = await door.make("app")
        async with door.openai(secret) as client:
            said = await client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "hi"}]
            )
            assert said.choices[0].message.content
        async with door.anthropic(secret) as other:
            message = await other.messages.create(
                model=MODEL, max_tokens=10, messages=[{"role": "user", "content": "hi"}]
            )
            assert message.content
        assert (await door.money(secret))["spent_usd"] == "0.000054"


async def test_the_official_clients_are_told_of_a_wrong_key(tmp_path: Path) -> None:
    async with FakeNode("alpha") as node, desk([node], tmp_path) as door:
        for secret in (new_secret(SystemRandomness()), "sk-other"):
            async with door.openai(secret) as client:
                with pytest.raises(openai.AuthenticationError) as refused:
                    await client.models.list()
                assert refused.value.code == "invalid_api_key"
                with pytest.raises(openai.AuthenticationError):
                    await client.chat.completions.create(
                        model=MODEL, messages=[{"role": "user", "content": "hi"}]
                    )
            async with door.anthropic(secret) as other:
                with pytest.raises(anthropic.AuthenticationError, match="invalid_api_key"):
                    await other.messages.create(
                        model=MODEL, max_tokens=10, messages=[{"role": "user", "content": "hi"}]
                    )
        assert books(tmp_path) == ([], 0, [])


async def test_a_key_uses_the_models_it_may(tmp_path: Path) -> None:
    routing = '[keys.app]\nmodels = ["other"]\n'
    async with FakeNode("alpha") as node, desk([node], tmp_path, routing) as door:
        app, free = await door.make("app"), await door.make("free")
        async with door.openai(app) as client:
            with pytest.raises(openai.PermissionDeniedError) as refused:
                await client.chat.completions.create(
                    model=MODEL, messages=[{"role": "user", "content": "hi"}]
                )
            assert (refused.value.code, refused.value.param) == ("model_not_allowed", "model")
        assert (await door.models(app)).json()["data"] == []
        names = [entry["id"] for entry in (await door.models(free)).json()["data"]]
        assert MODEL in names


async def test_keys_come_and_go_while_the_gateway_runs(tmp_path: Path) -> None:
    async with FakeNode("alpha") as node, desk([node], tmp_path) as door:
        first, second = await door.make("app"), new_secret(SystemRandomness())
        now_ms = SystemClock().unix_ms()
        await door.keys.rotate("app", digest_of(second), now_ms, now_ms)
        await door.until(second, 200)
        await door.until(first, 401)
        await door.keys.revoke("app", SystemClock().unix_ms())
        await door.until(second, 401)


async def test_a_keys_mode_is_the_most_that_a_call_may_publish(tmp_path: Path) -> None:
    routing = '[keys.app]\nmode = "batched"\n[keys.quiet]\nmode = "private"\n'
    async with FakeNode("alpha") as node, desk([node], tmp_path, routing) as door:
        app, quiet = await door.make("app"), await door.make("quiet")
        modes = []
        for secret, headers in (
            (app, {}),
            (app, {"trunkline_mode": "private"}),
            (quiet, {}),
        ):
            reply = await door.http.post(CHAT, body(), x_api_key=secret, **headers)
            assert reply.status == 200
            modes.append(node.attempts[-1].mode)
        assert modes == ["batched", "private", "private"]
        for secret, mode in ((app, "full"), (quiet, "batched")):
            reply = await door.http.post(CHAT, body(), x_api_key=secret, trunkline_mode=mode)
            assert (reply.status, reply.json()["error"]["code"]) == (403, "mode_not_allowed")
        assert len(node.attempts) == 3


async def test_kept_words_are_for_this_machine_and_the_key_that_asked(tmp_path: Path) -> None:
    async with FakeNode("alpha") as node, desk([node], tmp_path, use="optional") as door:
        app, other = await door.make("app"), await door.make("other")
        away = {"x_forwarded_for": "10.0.0.7"}
        for keep, secret, seen in (
            ("bodies", app, {app: 200, other: 404, "": 404}),
            ("none", app, {app: 200, other: 200, "": 200}),
            ("bodies", "", {app: 200, other: 200, "": 200}),
        ):
            sent = {"x_api_key": secret} if secret else {}
            reply = await door.http.post(CHAT, body(), trunkline_keep=keep, **sent)
            path = f"/trunkline/v1/receipts/{reply.header('trunkline-receipt')}"
            found = {who: (await door.get(path, who, **away)).status for who in seen}
            assert found == seen
            assert (await door.get(path, "")).status == 200


async def test_optional_keys(tmp_path: Path) -> None:
    async with FakeNode("alpha") as node, desk([node], tmp_path, use="optional") as door:
        assert (await door.http.post(CHAT, body(), authorization="Bearer sk-any")).status == 200
        wrong = new_secret(SystemRandomness())
        assert (await door.http.post(CHAT, body(), x_api_key=wrong)).status == 401


async def test_a_spent_budget_as_each_client_sees_it(tmp_path: Path) -> None:
    routing = PRICES + '[keys.app]\nbudget_usd = "0.00003"\nbudget_period = "day"\n'
    async with FakeNode("alpha") as node, desk([node], tmp_path, routing) as door:
        secret = await door.make("app")
        assert (await door.money(secret))["left_usd"] == "0.00003"
        async with door.openai(secret) as client:
            with pytest.raises(openai.RateLimitError) as refused:
                await client.chat.completions.create(
                    model=MODEL, messages=[{"role": "user", "content": "hi"}]
                )
        assert (refused.value.code, refused.value.type) == (
            "budget_exhausted", "insufficient_quota"
        )  # fmt: skip
        day_ms = 86_400_000
        left_s = (day_ms - SystemClock().unix_ms() % day_ms) / 1000
        told_s = int(refused.value.response.headers["retry-after"])
        assert 0 <= (told_s - left_s) % (day_ms / 1000) < 10
        async with door.anthropic(secret) as other:
            with pytest.raises(anthropic.APIStatusError, match="billing_error") as unpaid:
                await other.messages.create(
                    model=MODEL, max_tokens=10, messages=[{"role": "user", "content": "hi"}]
                )
        assert unpaid.value.status_code == 402
        listed = (await door.http.get("/trunkline/v1/keys")).json()
        # One refusal each: neither client came back for another.
        assert listed["spending"] == {
            "held": 0, "charged": 0, "charged_nusd": 0, "estimated": 0, "refused": 2
        }  # fmt: skip
        assert [key["name"] for key in listed["keys"]] == ["app"]
        assert books(tmp_path)[0] == []


async def test_a_budget_is_used_up_to_its_end(tmp_path: Path) -> None:
    routing = PRICES + '[keys.app]\nbudget_usd = "0.000300"\nbudget_period = "total"\n'
    async with FakeNode("alpha") as node, desk([node], tmp_path, routing) as door:
        secret = await door.make("app")
        statuses = [
            (await door.http.post(CHAT, body(), x_api_key=secret)).status for _ in range(12)
        ]
        served = statuses.count(200)
        assert statuses == [200] * served + [429] * (12 - served)
        charges, total, answers = books(tmp_path)
        assert [answer for answer, _ in charges] == answers
        assert total == sum(nusd for _, nusd in charges) == served * COST <= 300_000
        assert 0 < served < 12
    store = EvidenceStore.open(tmp_path)
    async with FakeNode("alpha") as node, desk([node], tmp_path, routing, store=store) as door:
        left = await door.money(secret)
        assert left["spent_usd"] == f"{total / 1e9:.6f}".rstrip("0")
        assert left["period_ends_ms"] is None


async def test_what_an_answer_in_progress_holds_is_not_spent_twice(tmp_path: Path) -> None:
    gate = asyncio.Event()
    routing = PRICES + '[keys.app]\nbudget_usd = "0.00015"\n'
    async with FakeNode("alpha") as node, desk([node], tmp_path, routing) as door:
        secret = await door.make("app")
        node.scripts.append(with_hold(Script(after=2), gate))
        first = await door.http.open(CHAT, body(stream=True), x_api_key=secret)
        await node.reached.wait()
        held = await door.money(secret)
        assert float(held["held_usd"]) > 0.0001
        refused = await door.http.post(CHAT, body(), x_api_key=secret)
        assert (refused.status, refused.json()["error"]["code"]) == (429, "budget_held")
        assert refused.header("retry-after") == "1"
        gate.set()
        async with first as response:
            assert (await response.read(1 << 20)).endswith(b"data: [DONE]\n\n")
        assert (await door.http.post(CHAT, body(), x_api_key=secret)).status == 200


async def test_an_answer_that_fails_costs_nothing(tmp_path: Path) -> None:
    routing = PRICES + '[keys.app]\nbudget_usd = "1"\n'
    async with FakeNode("alpha") as node, desk([node], tmp_path, routing) as door:
        secret = await door.make("app")
        node.will(Fault.REJECT)
        assert (await door.http.post(CHAT, body(), x_api_key=secret)).status == 400
        money = await door.money(secret)
        assert (money["spent_usd"], money["held_usd"], money["left_usd"]) == ("0", "0", "1")


async def test_an_answer_is_charged_once_whatever_it_took(tmp_path: Path) -> None:
    async with (
        FakeNode("alpha") as alpha,
        FakeNode("beta") as beta,
        desk([alpha, beta], tmp_path) as door,
    ):
        secret = await door.make("app")
        for node in (alpha, beta):
            node.will(Fault.CUT, after=4)
        reply = await door.http.post(CHAT, body(stream=True), x_api_key=secret)
        assert reply.body.endswith(b"data: [DONE]\n\n")
        assert len(alpha.attempts) + len(beta.attempts) > 1
        charges, total, _ = books(tmp_path)
        assert charges == [(reply.header("trunkline-receipt"), COST)]
        assert total == COST


async def test_a_model_without_a_price_under_a_budget(tmp_path: Path) -> None:
    routing = '[keys.app]\nbudget_usd = "1"\n[keys.easy]\nbudget_usd = "1"\nunpriced = "allow"\n'
    async with FakeNode("alpha") as node, desk([node], tmp_path, routing) as door:
        app, easy = await door.make("app"), await door.make("easy")
        refused = await door.http.post(CHAT, body(), x_api_key=app)
        assert (refused.status, refused.json()["error"]["code"]) == (403, "model_unpriced")
        assert (await door.http.post(CHAT, body(), x_api_key=easy)).status == 200
        assert (await door.money(easy))["spent_usd"] == "0"
        assert books(tmp_path)[0] == []


async def test_a_kept_response_is_its_own_tenants(tmp_path: Path) -> None:
    async with FakeNode("alpha") as node, desk([node], tmp_path) as door:
        mine, other = await door.make("app"), await door.make("other")
        async with door.openai(mine) as client:
            kept = await client.responses.create(model=MODEL, input="hi", store=True)
            assert (await client.responses.retrieve(kept.id)).id == kept.id
        async with door.openai(other) as client:
            with pytest.raises(openai.NotFoundError):
                await client.responses.retrieve(kept.id)
            with pytest.raises(openai.BadRequestError):
                await client.responses.create(
                    model=MODEL, input="and?", previous_response_id=kept.id
                )
        reply = await door.http.get(f"/v1/responses/{kept.id}")
        assert reply.status == 401


class SlowStore(EvidenceStore):
    """A disk that takes its time for answers."""

    def __init__(self, database: Any) -> None:
        super().__init__(database)
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()

    async def add(self, *arguments: Any) -> None:
        self.asked.set()
        await self.go_on.wait()
        await super().add(*arguments)


async def test_a_caller_that_leaves_while_its_evidence_is_written_pays(tmp_path: Path) -> None:
    create_store(tmp_path)
    store = SlowStore.open(tmp_path)
    assert isinstance(store, SlowStore)
    async with FakeNode("alpha") as node, desk([node], tmp_path, store=store) as door:
        secret = await door.make("app")
        response = await door.http.open(CHAT, body(stream=True), x_api_key=secret)
        await store.asked.wait()
        await response.aclose()

        async def nobody_waits() -> bool:
            status = (await door.http.get("/trunkline/v1/status")).json()
            return status["answers"]["running"] == 0

        await until(nobody_waits)
        assert float((await door.money(secret))["held_usd"]) > 0
        store.go_on.set()

        async def charged() -> bool:
            return (await door.money(secret))["spent_usd"] == COST_USD

        await until(charged)
        assert (await door.money(secret))["held_usd"] == "0"
    assert books(tmp_path)[1] == COST


async def test_a_caller_that_leaves_before_the_end_pays_nothing(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with FakeNode("alpha") as node, desk([node], tmp_path) as door:
        secret = await door.make("app")
        node.scripts.append(with_hold(Script(after=2), gate))
        response = await door.http.open(CHAT, body(stream=True), x_api_key=secret)
        await node.reached.wait()
        await response.aclose()

        async def given_back() -> bool:
            return (await door.money(secret))["held_usd"] == "0"

        await until(given_back)
        gate.set()
    assert books(tmp_path) == ([], 0, [])


async def test_no_key_reaches_disk_logger_or_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unknown = new_secret(SystemRandomness())
    told = b""
    async with FakeNode("alpha") as node, desk([node], tmp_path) as door:
        secret = await door.make("app")
        for headers in ({"x_api_key": secret}, {"authorization": f"Bearer {secret}"}):
            told += (await door.http.post(CHAT, body(), **headers)).body
            told += (await door.http.post(CHAT, body()[:-5], **headers)).body
        told += (await door.http.post(CHAT, body(), x_api_key=unknown)).body
        told += (await door.http.get("/trunkline/v1/keys")).body
        held = b"".join(path.read_bytes() for path in contents(tmp_path))
        told += held
        told += b"".join(bytes(attempt.request) for attempt in node.attempts)
    told += "".join(capsys.readouterr()).encode()
    assert digest_of(secret) in held
    for hidden in (secret, unknown):
        assert hidden.encode() not in told
        assert hidden.removeprefix("tlk_").encode() not in told
    assert digest_of(unknown) not in told


def contents(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()]


def written(folder: Path, node: FakeNode) -> Path:
    # The node is in another process than the gateway: neither is hurried.
    config = msgspec.structs.replace(settings([node], Timeouts()), keys="required")
    create_store(folder / "data")
    return write_config(folder, config, routing=PRICES + '[keys.app]\nbudget_usd = "1"\n')


async def make_key(data: Path) -> str:
    secret, keys = new_secret(SystemRandomness()), KeyStore.open(data, create=True)
    row = KeyRow(id="ten_app", name="app", created_ms=1, expires_ms=None, revoked_ms=None)
    await keys.create(row, digest_of(secret))
    await keys.close()
    return secret


async def ask_until_cut(url: str, secret: str, whole: list[str]) -> None:
    """Ask again and again until the gateway is gone; remember what was told to be whole."""
    client = PlainClient(url)
    try:
        while True:
            reply = await client.post(CHAT, body(stream=True), x_api_key=secret)
            assert reply.status == 200
            if reply.body.endswith(b"data: [DONE]\n\n"):
                whole.append(reply.header("trunkline-receipt") or "")
    except Exception:  # noqa: BLE001 - whichever way a killed gateway shows
        return
    finally:
        await client.aclose()


@pytest.mark.parametrize("answers", [1, 7, 23])
async def test_killed_at_any_point_every_stored_answer_is_charged_once(
    tmp_path: Path, answers: int
) -> None:
    async with FakeNode("alpha") as node:
        config = written(tmp_path, node)
        secret = await make_key(tmp_path / "data")
        whole: list[str] = []
        for round_ in (1, 2):
            async with process(config) as (child, url), asyncio.TaskGroup() as group:
                for _ in range(4):
                    group.create_task(ask_until_cut(url, secret, whole))

                async def enough(count: int = answers * round_) -> bool:
                    await asyncio.sleep(0)
                    return len(whole) >= count

                await until(enough, 120.0)
                child.send_signal(signal.SIGKILL)
            charges, total, stored = books(tmp_path / "data")
            assert [answer for answer, _ in charges] == stored
            assert set(whole) <= set(stored)
            assert total == COST * len(charges)
        async with process(config) as (_, url):
            client = PlainClient(url)
            (money,) = (await client.get("/trunkline/v1/keys")).json()["keys"]
            await client.aclose()
            assert float(money["spent_usd"]) == pytest.approx(total / 1e9)
            assert money["held_usd"] == "0"
