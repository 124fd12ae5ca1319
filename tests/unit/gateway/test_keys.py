"""Virtual keys: made, found by their hash alone, rotated, revoked, expired."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from trunkline.base.errors import ConfigError, OverloadedError, RequestError
from trunkline.gateway import keys as keys_module
from trunkline.gateway.core.policy import RoutingPolicy
from trunkline.gateway.core.tenant import ANONYMOUS, BATCH
from trunkline.gateway.key_store import KeyConflictError, KeyRow, KeyStore, digest_of
from trunkline.gateway.keys import SECRET_CHARS, Keys, KeyUse, new_secret, new_tenant_id
from trunkline.runtime.clock import SystemRandomness
from trunkline.runtime.http import Call
from trunkline.runtime.logger import get_logger

NOW_MS = 1_790_000_000_000
HOUR_MS = 3_600_000
POLICY = RoutingPolicy.parse(
    '[keys.app]\nmodels = ["tiny"]\npriority = "batch"\nweight = 3\n[keys.anonymous]\nmodels = []'
)


class FixedClock:
    def __init__(self) -> None:
        self.now_ms = NOW_MS

    def unix_ms(self) -> int:
        return self.now_ms

    def monotonic_s(self) -> float:
        return self.now_ms / 1000


def row(name: str = "app", *, expires_ms: int | None = None) -> KeyRow:
    return KeyRow(
        id=new_tenant_id(SystemRandomness()),
        name=name,
        created_ms=NOW_MS,
        expires_ms=expires_ms,
        revoked_ms=None,
    )


def call(**headers: str) -> Call:
    raw = [(n.replace("_", "-").encode(), v.encode()) for n, v in headers.items()]

    async def unused(*_: Any) -> Any:
        raise AssertionError("nothing is read or sent")

    scope: Any = {"type": "http", "method": "POST", "path": "/", "headers": raw}
    return Call(scope, unused, unused)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[KeyStore]:
    opened = KeyStore.open(tmp_path, create=True)
    yield opened
    await opened.close()


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


def keys_over(store: KeyStore, clock: FixedClock, use: KeyUse = "required") -> Keys:
    return Keys(use, store, lambda: POLICY, clock=clock, logger=get_logger("gateway"))


def refused(keys: Keys, **headers: str) -> str:
    with pytest.raises(RequestError) as error:
        keys.authenticate(call(**headers))
    assert (error.value.http_status, error.value.error_code) == (401, "invalid_api_key")
    assert not any(value in error.value.message for value in headers.values())
    return error.value.message


def test_a_key_is_256_random_bits() -> None:
    made = {new_secret(SystemRandomness()) for _ in range(20)}
    assert len(made) == 20
    assert all(re.fullmatch(r"tlk_[a-z2-7]{52}", secret) for secret in made)
    assert all(len(secret) == SECRET_CHARS for secret in made)


async def test_a_key_names_its_tenant(store: KeyStore, clock: FixedClock) -> None:
    secret, made = new_secret(SystemRandomness()), row()
    await store.create(made, digest_of(secret))
    keys = keys_over(store, clock)
    await keys.refresh()
    for headers in (
        {"authorization": f"Bearer {secret}"},
        {"authorization": f"bearer  {secret} "},
        {"x_api_key": secret},
        {"authorization": "Bearer placeholder", "x_api_key": secret},
    ):
        tenant = keys.authenticate(call(**headers))
        assert (tenant.id, tenant.name, tenant.weight, tenant.priority) == (
            made.id, "app", 3, BATCH
        )  # fmt: skip


async def test_what_is_no_key_in_force_is_refused(store: KeyStore, clock: FixedClock) -> None:
    secret = new_secret(SystemRandomness())
    await store.create(row(), digest_of(secret))
    keys = keys_over(store, clock)
    await keys.refresh()
    assert "is needed" in refused(keys)
    assert "is needed" in refused(keys, authorization="Bearer sk-something")
    assert "is needed" in refused(keys, authorization=f"Basic {secret}")
    assert "does not know" in refused(keys, x_api_key=new_secret(SystemRandomness()))
    assert "does not know" in refused(keys, x_api_key=secret[:-1])
    assert "does not know" in refused(keys, x_api_key=secret + "a" * 1000)
    assert "does not know" in refused(keys, x_api_key=secret.upper().replace("TLK", "tlk"))


async def test_optional_keys_let_others_in_but_no_wrong_key(
    store: KeyStore, clock: FixedClock
) -> None:
    keys = keys_over(store, clock, "optional")
    assert keys.authenticate(call()).id == ANONYMOUS.id
    assert keys.authenticate(call(authorization="Bearer unused")).name == ANONYMOUS.name
    refused(keys, x_api_key=new_secret(SystemRandomness()))


def test_without_keys_nothing_is_looked_at(clock: FixedClock) -> None:
    keys = Keys("off", None, RoutingPolicy, clock=clock, logger=get_logger("gateway"))
    assert keys.authenticate(call(x_api_key="tlk_whatever")) == ANONYMOUS
    with pytest.raises(ValueError, match="without their store"):
        Keys("required", None, RoutingPolicy, clock=clock, logger=get_logger("gateway"))


async def test_models_are_allowed_by_name(store: KeyStore, clock: FixedClock) -> None:
    keys = keys_over(store, clock, "optional")
    secret = new_secret(SystemRandomness())
    await store.create(row(), digest_of(secret))
    await keys.refresh()
    tenant = keys.authenticate(call(x_api_key=secret))
    keys.authorize(tenant, "tiny")
    for who in (tenant, keys.authenticate(call())):
        with pytest.raises(RequestError) as error:
            keys.authorize(who, "huge")
        assert (error.value.http_status, error.value.error_code, error.value.param) == (
            403, "model_not_allowed", "model"
        )  # fmt: skip


async def test_a_key_expires(store: KeyStore, clock: FixedClock) -> None:
    secret = new_secret(SystemRandomness())
    await store.create(row(expires_ms=NOW_MS + 1), digest_of(secret))
    keys = keys_over(store, clock)
    await keys.refresh()
    assert keys.authenticate(call(x_api_key=secret)).name == "app"
    clock.now_ms += 1
    assert "expired" in refused(keys, x_api_key=secret)


async def test_a_rotated_secret_ends_when_it_was_said_to(
    store: KeyStore, clock: FixedClock
) -> None:
    first, second, third = (new_secret(SystemRandomness()) for _ in range(3))
    made = row()
    await store.create(made, digest_of(first))
    assert await store.rotate("app", digest_of(second), NOW_MS, NOW_MS + HOUR_MS) == made.id
    keys = keys_over(store, clock)
    await keys.refresh()
    assert keys.authenticate(call(x_api_key=first)) == keys.authenticate(call(x_api_key=second))
    # A later rotation never prolongs what was to end earlier.
    await store.rotate("app", digest_of(third), NOW_MS, NOW_MS + 9 * HOUR_MS)
    await keys.refresh()
    clock.now_ms += HOUR_MS
    assert "expired" in refused(keys, x_api_key=first)
    assert keys.authenticate(call(x_api_key=second)).id == made.id
    clock.now_ms += 8 * HOUR_MS
    refused(keys, x_api_key=second)
    assert keys.authenticate(call(x_api_key=third)).id == made.id


async def test_a_revoked_key_is_gone_and_its_name_is_free(
    store: KeyStore, clock: FixedClock
) -> None:
    secret, again = new_secret(SystemRandomness()), new_secret(SystemRandomness())
    made = row()
    await store.create(made, digest_of(secret))
    with pytest.raises(KeyConflictError, match="in force"):
        await store.create(row(), digest_of(again))
    assert await store.revoke("app", NOW_MS + 5) == made.id
    with pytest.raises(KeyConflictError, match="no key named"):
        await store.revoke("app", NOW_MS + 6)
    with pytest.raises(KeyConflictError, match="no key named"):
        await store.rotate("app", digest_of(again), NOW_MS, NOW_MS)
    anew = row()
    await store.create(anew, digest_of(again))
    keys = keys_over(store, clock)
    await keys.refresh()
    refused(keys, x_api_key=secret)
    assert keys.authenticate(call(x_api_key=again)).id == anew.id
    assert {found.id: found.revoked_ms for found in await store.all()} == {
        made.id: NOW_MS + 5,
        anew.id: None,
    }


async def test_a_change_by_another_process_is_seen_once(tmp_path: Path, store: KeyStore) -> None:
    found = await store.changed_since(-1)
    assert found == (0, [])
    assert await store.changed_since(0) is None
    other = KeyStore.open(tmp_path)
    try:
        await other.create(row(), digest_of("tlk_x"))
    finally:
        await other.close()
    found = await store.changed_since(0)
    assert found is not None
    assert [credential.name for credential in found[1]] == ["app"]
    assert await store.changed_since(found[0]) is None


def test_keys_are_made_on_purpose(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no keys yet"):
        KeyStore.open(tmp_path)
    with pytest.raises(ConfigError, match="no such folder"):
        KeyStore.open(tmp_path / "absent", create=True)
    assert not list(tmp_path.iterdir())


def contents(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


async def test_the_store_holds_no_secret(tmp_path: Path, store: KeyStore) -> None:
    secret, second = new_secret(SystemRandomness()), new_secret(SystemRandomness())
    await store.create(row(), digest_of(secret))
    await store.rotate("app", digest_of(second), NOW_MS, NOW_MS + 1)
    held = contents(tmp_path)
    assert digest_of(secret) in held
    assert digest_of(second) in held
    for one in (secret, second):
        assert one.encode() not in held
        assert one.removeprefix("tlk_").encode() not in held
    assert (tmp_path / "keys.db").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "http://127.0.0.1.evil.example", "http://evil.example:8480", "null"],
)
async def test_a_page_of_another_site_needs_a_key(
    store: KeyStore, clock: FixedClock, origin: str
) -> None:
    for use in ("off", "optional"):
        with pytest.raises(RequestError) as error:
            keys_over(store, clock, use).authenticate(call(origin=origin))
        assert (error.value.error_code, error.value.http_status) == ("foreign_origin", 403)


@pytest.mark.parametrize(
    "origin", ["http://localhost:3000", "http://127.0.0.1:8480", "https://[::1]", "app://desktop"]
)
async def test_pages_and_apps_of_this_machine_need_none(
    store: KeyStore, clock: FixedClock, origin: str
) -> None:
    assert keys_over(store, clock, "off").authenticate(call(origin=origin)).id == ""


async def test_a_store_that_stays_unreadable_ends_every_key_after_a_while(
    store: KeyStore, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_module, "REFRESH_S", 0.001)
    secret = new_secret(SystemRandomness())
    await store.create(row(), digest_of(secret))
    keys = keys_over(store, clock, "optional")
    asked = asyncio.Event()
    broken = True

    async def changed_since(revision: int) -> None:
        asked.set()
        if broken:
            raise OSError("gone")

    async def looks() -> None:
        for _ in range(3):
            asked.clear()
            await asked.wait()

    with capture_logs() as lines:
        await keys.start()
        monkeypatch.setattr(store, "changed_since", changed_since)
        await looks()
        assert keys.authenticate(call(x_api_key=secret)).name == "app"
        assert "revoked keys may still work" in keys.problem
        clock.now_ms += 61_000
        await looks()
        with pytest.raises(OverloadedError) as refusal:
            keys.authenticate(call(x_api_key=secret))
        assert refusal.value.error_code == "keys_unreadable"
        assert keys.authenticate(call()).id == ANONYMOUS.id, "who sends no key needs none"
        broken = False
        await looks()
        assert keys.authenticate(call(x_api_key=secret)).name == "app"
        assert keys.problem == ""
    await keys.stop()
    events = [line["event"] for line in lines]
    assert events == ["keys.read", "keys.unreadable", "keys.refused", "keys.readable"]
