"""``trunkline route explain``: what would happen to a call for a model now, and why.

Asks the running gateway, which asks the same functions that route its calls. Starts nothing.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from trunkline.cli import api
from trunkline.cli.exits import DONE, NO
from trunkline.cli.folder import Folder
from trunkline.cli.terminal import console
from trunkline.gateway.explain import Considered, Explanation, StandIn

_STYLES: Final = {
    "healthy": "green",
    "returning": "green",
    "probing": "yellow",
    "demoted": "yellow",
    "quarantined": "red",
    "resting": "red",
    "not_ready": "yellow",
    "unreachable": "red",
    "excluded": "dim",
}


def command(folder: Folder, *, model: str, key: str, kind: str, as_program: bool) -> int:
    """Ask and print. DONE if a call would be sent somewhere, else NO."""
    url = folder.network().one("gateway").url
    found = asyncio.run(api.route(url, model, key=key, kind=kind))
    if as_program:
        typer.echo(msgspec.json.encode(found).decode())
    else:
        _show(found)
    served = any(row.place is not None for row in found.deployments)
    return DONE if found.allowed and served else NO


def _show(found: Explanation) -> None:
    out = console()
    name = f"{found.model}, a virtual model ({found.strategy})" if found.virtual else found.model
    out.print(Text.assemble(("model   ", "dim"), name, (f"  {found.kind}", "dim")))
    if found.key:
        allowed = "may ask for it" if found.allowed else "may not ask for it"
        out.print(Text.assemble(("key     ", "dim"), f"{found.key} {allowed}"))
    out.print(Text.assemble(("policy  ", "dim"), found.policy.file or "none: defaults"))
    if found.policy.problem:
        out.print(f"the file as it is now is not in force: {found.policy.problem}", style="red")
    out.print(Text.assemble(("now     ", "dim"), (found.outcome, "bold")))
    if found.candidates:
        out.print(_candidates(found.candidates))
    if found.deployments:
        out.print(_deployments(found.deployments))
    if found.strategy == "weights":
        out.print("by weights each answer draws its own order; this is one of them", style="dim")
    if found.unheard:
        out.print(f"not heard of yet: {', '.join(found.unheard)}", style="yellow")


def _candidates(candidates: Sequence[StandIn]) -> Table:
    table = _table("tier", "candidate", "share", "USD per million in/out", "nodes")
    for one in candidates:
        price = "no price" if one.input_usd is None else f"{one.input_usd} / {one.output_usd}"
        nodes = str(one.deployments) if one.deployments else "none serves it"
        share = "" if one.share is None else f"{one.share:.0%}"
        table.add_row(str(one.tier), one.model, share, price, nodes)
    return table


def _deployments(rows: Sequence[Considered]) -> Table:
    table = _table("", "node", "model", "tier", "state", "waits", "first token", "load", "why")
    for row in rows:
        table.add_row(
            "–" if row.place is None else str(row.place),
            row.node,
            row.model,
            "" if row.tier is None else str(row.tier),
            Text(row.state.replace("_", " "), _STYLES[row.state]),
            _waits(row),
            "" if row.first_token_ms is None else f"{row.first_token_ms} ms",
            str(row.running),
            row.reason,
        )
    return table


def _waits(row: Considered) -> str:
    if row.available_in_ms:
        return f"{row.available_in_ms} ms"
    if row.wait_ms is None:
        return "for a place"
    return f"{row.wait_ms} ms" if row.wait_ms else ""


def _table(*names: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in names:
        table.add_column(name, header_style="dim", no_wrap=name != "why")
    return table
