"""``trunkline audit plants``: the answers that verifiers planted, and who found what of them.

By the log alone, like ``audit verifiers``. With ``--replay`` each is run again here, by the
installed model: so nobody need believe the planter, the node or any verifier. It says nothing of
answers by other weights, or where this machine's engine computes other bits than the node's.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final, Literal, TypeAlias

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from trunkline.audit import replay
from trunkline.audit.trials import quantise
from trunkline.base.errors import Error
from trunkline.cli import conduct
from trunkline.cli.exits import DONE, NO
from trunkline.cli.folder import Folder
from trunkline.cli.report import MARKS
from trunkline.cli.terminal import console
from trunkline.crypto.keys import VerifierKey
from trunkline.engine.client import EmbeddedEngine, EngineConfig
from trunkline.inference.ports import Scorer
from trunkline.verdicts import (
    PLANT_OPENING_TYPE,
    VERDICT_TYPE,
    Expected,
    Planted,
    Verdict,
    open_plant,
)

CLIP: Final = 0.25
"""Of margins, which are not looked at here."""
Replayed: TypeAlias = Literal["", "pass", "fail", "inconclusive"]


class PlantJson(msgspec.Struct, frozen=True, kw_only=True):
    """``trunkline audit plants --json``: one of a list."""

    entry: int
    """The log's entry that opens it."""
    receipt: str
    """Leaf, hex."""
    planter: str
    """Key names."""
    node: str
    expect: Expected
    said: dict[str, str]
    """Results of the verdicts on it, by the key names of the verifiers that were drawn."""
    replayed: Replayed = ""
    """What came of it here; empty: not asked for."""


def plants(
    folder: Folder,
    *,
    again: bool,
    as_program: bool,
    engine: Callable[[Folder], EmbeddedEngine] | None = None,
) -> int:
    """Print every plant in the log; ``again``: replay them. NO if one is not what its planter
    said, or a verifier said the contrary of it; else DONE."""
    keys, nodes = conduct.pinned(folder, "verifier"), conduct.pinned(folder, "node")
    _, entries = conduct.read_network(folder, keys, "verifier")
    opened = list(_opened(entries, keys, nodes))
    said = _said(entries, keys)
    results: Sequence[Replayed] = [""] * len(opened)
    if again and opened:
        results = asyncio.run(_replay_all([one for _, one in opened], (engine or _engine)(folder)))
    found = [
        _row(entry, planted, said.get(planted.leaf, {}), result)
        for (entry, planted), result in zip(opened, results, strict=True)
    ]
    if as_program:
        typer.echo(msgspec.json.encode(found).decode())
    else:
        _print(found)
    return NO if any(map(_is_wrong, found)) else DONE


def _opened(
    entries: Sequence[bytes], keys: Sequence[VerifierKey], nodes: Sequence[VerifierKey]
) -> Iterable[tuple[int, Planted]]:
    for index, entry in enumerate(entries):
        if entry.startswith(f"{PLANT_OPENING_TYPE}\n".encode()):
            try:
                yield index, open_plant(entry, keys, nodes)
            except Error:
                # Anybody may log what is none.
                continue


def _said(entries: Sequence[bytes], keys: Sequence[VerifierKey]) -> dict[str, dict[str, str]]:
    """Results by receipt and verifier, of receipts that were drawn; the first counts."""
    said: dict[str, dict[str, str]] = {}
    for entry in entries:
        if not entry.startswith(f"{VERDICT_TYPE}\n".encode()):
            continue
        for key in keys:
            try:
                verdict = Verdict.open_note(entry, key)
            except Error:
                continue
            if not isinstance(verdict.drawn, msgspec.UnsetType):
                said.setdefault(verdict.receipt, {}).setdefault(key.name, verdict.result)
    return said


def _row(entry: int, planted: Planted, said: dict[str, str], replayed: Replayed) -> PlantJson:
    plant = planted.plant
    return PlantJson(
        entry=entry,
        receipt=planted.leaf,
        planter=VerifierKey.parse(plant.key).name,
        node=VerifierKey.parse(plant.node).name,
        expect=plant.expect,
        said=said,
        replayed=replayed,
    )


def _is_wrong(one: PlantJson) -> bool:
    contrary = "pass" if one.expect == "fail" else "fail"
    return contrary in {one.replayed, *one.said.values()}


def _engine(folder: Folder) -> EmbeddedEngine:
    return EmbeddedEngine(EngineConfig(cache_folder=str(folder.cache(folder.network()))))


async def _replay_all(planted: Sequence[Planted], engine: EmbeddedEngine) -> list[Replayed]:
    async with _closing(engine) as scorer:
        return [await _replay(one, scorer) for one in planted]


@asynccontextmanager
async def _closing(engine: EmbeddedEngine) -> AsyncIterator[Scorer]:
    try:
        yield engine
    finally:
        await engine.close()


async def _replay(planted: Planted, scorer: Scorer) -> Replayed:
    receipt, content = planted.verified.receipt, planted.content
    model = await scorer.model()
    if receipt.model.numerics != model.numerics:
        return "inconclusive"
    prompt = await replay.rendered(receipt, content, scorer)
    if prompt is None:
        return "inconclusive"
    content = msgspec.structs.replace(content, prompt=prompt)
    measured = await replay.measure(receipt, content, scorer)
    if measured.unreachable:
        return "inconclusive"
    ends = frozenset(model.eos_token_ids)
    trials = quantise(measured.scores, clip=CLIP, end_tokens=ends, given=receipt.response.resumed)
    return "fail" if trials.mismatches else "pass"


def _print(found: Sequence[PlantJson]) -> None:
    if not found:
        console().print("no plants")
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("", "entry", "receipt", "planter", "node", "planted to", "verdicts", "here"):
        table.add_column(name, header_style="dim")
    for one in found:
        mark, style = MARKS["fail" if _is_wrong(one) else "pass"]
        said = ", ".join(f"{name}: {result}" for name, result in one.said.items())
        table.add_row(
            Text(mark, style), str(one.entry), one.receipt[:8], one.planter, one.node, one.expect,
            said, one.replayed,
        )  # fmt: skip
    console().print(table)
