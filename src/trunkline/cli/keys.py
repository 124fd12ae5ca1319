"""``trunkline keys``: make, list, revoke and rotate the virtual keys that apps call with.

Works on the gateway's store of keys, whether the gateway runs or not; a running one sees a change
within a second. A secret is printed once, alone on standard output, and can not be shown again.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from trunkline.base.errors import ConfigError, Error
from trunkline.cli import api
from trunkline.cli.exits import DONE
from trunkline.cli.terminal import console
from trunkline.gateway import config as gateway_config
from trunkline.gateway import routing
from trunkline.gateway.charges import Charges
from trunkline.gateway.config import GatewayConfig
from trunkline.gateway.core.policy import RoutingPolicy
from trunkline.gateway.core.tenant import ANONYMOUS
from trunkline.gateway.key_store import KeyRow, KeyStore, digest_of
from trunkline.gateway.keys import new_secret, new_tenant_id
from trunkline.gateway.keys_api import KEYS_PATH, KeyList, KeyMoney, key_money
from trunkline.gateway.store import EvidenceStore
from trunkline.runtime.clock import SystemClock, SystemRandomness
from trunkline.runtime.config import resolve

T = TypeVar("T")

DAY_MS: Final = 24 * 60 * 60 * 1000
COLUMNS: Final = ("name", "tenant", "created", "expires", "state", "spent", "held", "left", "per")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """One key in the list, for programs."""

    name: str
    tenant: str
    state: str
    created_ms: int
    expires_ms: int | None
    revoked_ms: int | None
    money: KeyMoney | None
    """None: not in force, or the running gateway does not ask for keys."""


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A new secret, for programs."""

    name: str
    tenant: str
    secret: str


def create(config: Path, name: str, *, days: int | None, as_program: bool) -> int:
    """Make a key and print its secret."""
    if _NAME.fullmatch(name) is None or name == ANONYMOUS.name:
        raise ConfigError(
            f"{name}: a key's name is up to 64 letters, digits, dots, dashes and underscores, "
            f"and not {ANONYMOUS.name}"
        )
    now_ms, secret = _now_ms(), new_secret(SystemRandomness())
    row = KeyRow(
        id=new_tenant_id(SystemRandomness()),
        name=name,
        created_ms=now_ms,
        expires_ms=None if days is None else now_ms + days * DAY_MS,
        revoked_ms=None,
    )
    settings = gateway_config.read(config)

    async def work() -> None:
        store = KeyStore.open(_data(config, settings), create=True)
        try:
            await store.create(row, digest_of(secret))
        finally:
            await store.close()

    asyncio.run(work())
    if settings.keys == "off":
        hint = f'{config}: keys = "off", so nobody is asked for one; set it to "required"'
        typer.echo(f"trunkline: {hint}", err=True)
    return _show(Made(name=name, tenant=row.id, secret=secret), as_program=as_program)


def rotate(config: Path, name: str, *, overlap_s: int, as_program: bool) -> int:
    """Give a key a new secret and print it. The old one goes on for ``overlap_s`` seconds."""
    now_ms, secret = _now_ms(), new_secret(SystemRandomness())

    async def work(store: KeyStore) -> str:
        return await store.rotate(name, digest_of(secret), now_ms, now_ms + overlap_s * 1000)

    tenant = _on_store(config, work)
    return _show(Made(name=name, tenant=tenant, secret=secret), as_program=as_program)


def revoke(config: Path, name: str) -> int:
    """End a key for good."""
    _on_store(config, lambda store: store.revoke(name, _now_ms()))
    typer.echo(f"revoked {name}; a running gateway refuses it within a second", err=True)
    return DONE


def ls(config: Path, *, as_program: bool) -> int:
    """Every key there ever was, and what those in force have spent."""
    settings = gateway_config.read(config)
    rows = _on_store(config, lambda store: store.all())
    money = asyncio.run(_money(config, settings, rows))
    listed = [_listed(row, money.get(row.id)) for row in rows]
    if as_program:
        typer.echo(msgspec.json.encode(listed).decode())
        return DONE
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in COLUMNS:
        table.add_column(column, header_style="dim", no_wrap=True)
    for one in listed:
        table.add_row(*_cells(one))
    console().print(table if listed else Text("no keys yet", style="dim"))
    return DONE


def _on_store(config: Path, work: Callable[[KeyStore], Awaitable[T]]) -> T:
    async def run() -> T:
        store = KeyStore.open(_data(config, gateway_config.read(config)))
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())


async def _money(config: Path, settings: GatewayConfig, rows: list[KeyRow]) -> dict[str, KeyMoney]:
    """What keys have spent, by tenant: from the running gateway, who alone knows what is held, or
    else from its store."""
    try:
        body = await api.get(f"http://{settings.listen}{KEYS_PATH}")
        return {one.tenant: one for one in msgspec.json.decode(body, type=KeyList).keys}
    except msgspec.MsgspecError:
        raise Error("the gateway's list of keys was not understood", code="not_running") from None
    except Error:
        return await _stored_money(config, settings, rows)


async def _stored_money(
    config: Path, settings: GatewayConfig, rows: list[KeyRow]
) -> dict[str, KeyMoney]:
    policy = RoutingPolicy()
    if settings.routing_file is not None:
        policy = routing.read(resolve(config, settings.routing_file))
    try:
        store = EvidenceStore.open(_data(config, settings))
    except ConfigError:
        # A gateway has it open, and does not answer us: what is known of the keys is still shown.
        return {}
    try:
        charges = Charges(store, lambda: policy, clock=SystemClock())
        await charges.start()
        return {row.id: key_money(charges, row.id, row.name) for row in rows}
    finally:
        await store.close()


def _listed(row: KeyRow, money: KeyMoney | None) -> Listed:
    state = "in force"
    if row.revoked_ms is not None:
        state = "revoked"
    elif row.expires_ms is not None and row.expires_ms <= _now_ms():
        state = "expired"
    return Listed(
        name=row.name,
        tenant=row.id,
        state=state,
        created_ms=row.created_ms,
        expires_ms=row.expires_ms,
        revoked_ms=row.revoked_ms,
        money=None if row.revoked_ms is not None else money,
    )


def _cells(one: Listed) -> tuple[str | Text, ...]:
    money = one.money
    amounts = ("-", "-", "-", "-") if money is None else (
        money.spent_usd, money.held_usd, money.left_usd or "-", money.budget_period or "-"
    )  # fmt: skip
    state = Text(one.state, style="green" if one.state == "in force" else "dim")
    return (one.name, one.tenant, _day(one.created_ms), _day(one.expires_ms), state, *amounts)


def _day(ms: int | None) -> str:
    return "-" if ms is None else f"{datetime.fromtimestamp(ms / 1000, tz=UTC):%Y-%m-%d}"


def _show(made: Made, *, as_program: bool) -> int:
    if as_program:
        typer.echo(msgspec.json.encode(made).decode())
        return DONE
    typer.echo("Its secret, shown this once; apps send it as their api_key:", err=True)
    typer.echo(made.secret)
    return DONE


def _data(config: Path, settings: GatewayConfig) -> Path:
    return resolve(config, settings.data)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
