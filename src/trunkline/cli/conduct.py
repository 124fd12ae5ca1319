"""``trunkline audit verifiers`` and ``nodes``: how they behaved, by the log alone.

Reads every entry of the network's log, believes them once they are the tree of a checkpoint that
the policy accepts, and asks no verifier anything. It refuses a log that is too long to be read at
once.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from trunkline.base.errors import ConfigError, ConsistencyError
from trunkline.cli.create import read_keys
from trunkline.cli.exits import DONE, NO
from trunkline.cli.folder import Folder
from trunkline.cli.report import MARKS
from trunkline.cli.terminal import console
from trunkline.cli.verify import trust_of
from trunkline.crypto import merkle
from trunkline.crypto.keys import VerifierKey
from trunkline.remote.http1 import HttpTransport
from trunkline.remote.log import LogCaller
from trunkline.tlog.policy import Policy
from trunkline.tlog.tile import TILE_WIDTH, decode_bundle, tile_at
from trunkline.verdicts import Conduct, Spending, examine, examine_nodes

ENTRIES_MAX: Final = 1_000_000


def verifiers(folder: Folder, *, as_program: bool) -> int:
    """Print each pinned verifier's conduct. DONE if nothing was found, else NO."""
    keys, nodes = pinned(folder, "verifier"), pinned(folder, "node")
    policy, entries = read_network(folder, keys, "verifier")
    operators = {key.vkey: key.operator for key in read_keys(folder)}
    found = examine(entries, keys, policy, nodes=nodes, operators=operators)
    if as_program:
        typer.echo(msgspec.json.encode(found).decode())
    else:
        _print(found, len(entries))
    return NO if any(one.findings for one in found) else DONE


def nodes(folder: Folder, *, as_program: bool) -> int:
    """Print what each pinned node did with its nonces. DONE if nothing was found, else NO."""
    keys = pinned(folder, "node")
    _, entries = read_network(folder, keys, "node")
    found = examine_nodes(entries, keys)
    if as_program:
        typer.echo(msgspec.json.encode(found).decode())
    else:
        _print_nodes(found, len(entries))
    return NO if any(one.finding for one in found) else DONE


def pinned(folder: Folder, role: str) -> list[VerifierKey]:
    """The keys that the network pins for a role."""
    return [VerifierKey.parse(key.vkey) for key in read_keys(folder) if key.role == role]


def read_network(
    folder: Folder, keys: Sequence[VerifierKey], role: str
) -> tuple[Policy, list[bytes]]:
    """The network's policy, and its log's entries. Raises ConfigError without ``keys``."""
    text = trust_of(folder).policy
    if not keys or text is None:
        raise ConfigError(f"{folder.path}: no {role} is pinned there, or no policy")
    policy = Policy.parse(text)
    return policy, asyncio.run(read_log(folder.network().one("log").url, policy))


async def read_log(url: str, policy: Policy) -> list[bytes]:
    """All entries of the log at ``url``, under its newest checkpoint that ``policy`` accepts."""
    transport = HttpTransport()
    try:
        log = LogCaller(transport, url)
        tree = policy.accepts(await log.checkpoint()).checkpoint
        if tree.size > ENTRIES_MAX:
            raise ConfigError(f"the log has more than {ENTRIES_MAX} entries")
        entries: list[bytes] = []
        while len(entries) < tree.size:
            tile = tile_at(None, len(entries) // TILE_WIDTH, tree.size)
            entries += decode_bundle(await log.tile(tile.path), tile.width)
    finally:
        await transport.aclose()
    if merkle.root([merkle.leaf_hash(entry) for entry in entries]) != tree.root:
        raise ConsistencyError("the log's entries are not those of its cosigned tree")
    return entries


def _print_nodes(found: Sequence[Spending], entries: int) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("", "node", "receipts", "uncounted", "nonces", "self-tests", "terms"):
        table.add_column(name, header_style="dim", no_wrap=True)
    for one in found:
        mark, style = MARKS["fail" if one.finding else "pass"]
        counts = (one.receipts, one.uncounted, one.nonces, one.self_tests, one.terms)
        table.add_row(Text(mark, style), one.node, *(str(count) for count in counts))
    console().print(table)
    for one in found:
        if one.finding:
            console().print(Text(f"{one.node}: {one.finding}", "red"))
    console().print(Text(f"by {entries} entries of the log, and nobody's word", "dim"))


def _print(found: tuple[Conduct, ...], entries: int) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in (
        "",
        "verifier",
        "draws",
        "unchained",
        "verdicts",
        "kept back",
        "late",
        "plants",
        "missed",
    ):
        table.add_column(name, header_style="dim", no_wrap=True)
    for one in found:
        mark, style = MARKS["fail" if one.findings else "pass"]
        counts = (
            one.draws, one.unchained, one.verdicts, one.kept_back, one.late, one.tried, one.missed,
        )  # fmt: skip
        table.add_row(Text(mark, style), one.verifier, *(str(count) for count in counts))
    console().print(table)
    for one in found:
        for finding in one.findings:
            console().print(Text(f"{one.verifier}, entry {finding.entry}: {finding.detail}", "red"))
        if not one.counts:
            console().print(Text(f"{one.verifier}: its verdicts do not count any more", "red"))
    console().print(Text(f"by {entries} entries of the log, and nobody's word", "dim"))
