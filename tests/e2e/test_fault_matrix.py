"""The fault matrix of design §6, run: the app sees whole answers or explicit errors, nothing else.

``docs/fault-matrix.md`` is what this run found; ``python -m tests.support.fault_matrix`` writes it.
"""

from pathlib import Path

import pytest
from tests.support.fault_matrix import MODEL, PAGE, Cell, render, run, verdict

pytestmark = pytest.mark.timeout(240)


def _may_end_in_error(cell: Cell) -> bool:
    """Only where text is on the app's screen and the provider can not go on from there."""
    shown = cell.phase != "before" or cell.fault.name == "no finish_reason"
    return cell.way == "stream" and cell.content == "text" and shown and not cell.fault.harmless


async def test_every_fault_is_survived_or_said(tmp_path: Path) -> None:
    views, calls = await run(tmp_path)
    wrong = {
        cell.script: view
        for cell, view in views.items()
        if (found := verdict(cell, view)) != "whole"
        and not (found == "error" and _may_end_in_error(cell))
    }
    assert wrong == {}
    for cell, view in views.items():
        # The fault was met; and what was answered well by the first upstream was asked once.
        expected = 1 if cell.fault.harmless or view.error else 2
        if cell.fault.model == MODEL and not cell.fault.severed:
            assert calls[cell.script] == expected, cell.script
        if view.error is not None:
            assert view.error == "answer_interrupted"
            produced = view.body["produced"]
            assert produced["characters"] == len(view.text)
            assert produced["chunks"] > 0
    assert PAGE.read_text() == render(views), "stale: python -m tests.support.fault_matrix"
