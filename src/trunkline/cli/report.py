"""A verification as people and programs read it: the numbered steps, the outcome, the exit code."""

from collections.abc import Sequence
from typing import Final, Literal

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trunkline.cli.exits import DONE, NO, UNABLE
from trunkline.evidence import Outcome, Report, Result, State, Step
from trunkline.evidence.report import plain
from trunkline.evidence.split_view import SplitViewReport

MARKS: Final[dict[Result, tuple[str, str]]] = {
    "pass": ("✓", "green"),
    "fail": ("✗", "bold red"),
    "inconclusive": ("?", "yellow"),
    "not_applicable": ("·", "dim"),
}
EXITS: Final[dict[Outcome, int]] = {"pass": DONE, "fail": NO, "inconclusive": UNABLE}
SUMMARIES: Final[dict[Outcome, str]] = {
    "pass": "verified: every step that had anything to show was shown",
    "fail": "DOES NOT VERIFY: a step failed",
    "inconclusive": "could not be checked completely: see the steps marked ?",
}


class ReportJson(msgspec.Struct, frozen=True, kw_only=True):
    """``trunkline verify --json``."""

    answer: str
    outcome: Outcome
    state: State
    steps: tuple[Step, ...]
    trust: Literal["reader", "file"]
    """Whose keys and policy it was checked under. ``file``: its own, at its word."""


def as_json(report: Report, *, trust: Literal["reader", "file"] = "reader") -> str:
    """The report for programs: one line."""
    record = ReportJson(
        answer=report.answer,
        outcome=report.outcome,
        state=report.state,
        steps=report.steps,
        trust=trust,
    )
    return msgspec.json.encode(record).decode()


def show(console: Console, report: Report) -> None:
    """Every step, then the outcome."""
    console.print(_table(report.steps))
    console.print(summary(report))


def show_steps(console: Console, steps: Sequence[Step]) -> None:
    """Numbered steps alone."""
    console.print(_table(steps))


def show_split_view(console: Console, report: SplitViewReport) -> None:
    """Every step about a log that contradicted itself, then the outcome."""
    mark, style = MARKS[report.outcome]
    summaries: dict[Outcome, str] = {
        "pass": f"proven: {plain(report.origin)} signed two trees that contradict each other",
        "fail": "NOTHING IS SHOWN: a step failed",
        "inconclusive": "the key contradicted itself; whose it is, only your own policy can say",
    }
    console.print(_table(report.steps))
    console.print(Text(f"{mark} {summaries[report.outcome]}", style=style))


def _table(steps: Sequence[Step]) -> Table:
    table = Table(box=None, padding=(0, 1), show_header=False, expand=False)
    table.add_column(justify="right", style="dim")
    table.add_column()
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for step in steps:
        mark, style = MARKS[step.result]
        table.add_row(
            str(step.number), Text(mark, style=style), Text(step.title), Text(step.detail)
        )
    return table


def summary(report: Report) -> Text:
    """The outcome in one line."""
    mark, style = MARKS[report.outcome]
    counts = _counts(report.steps)
    return Text.assemble(
        (f"{mark} {report.state}, {SUMMARIES[report.outcome]}", style), (f" ({counts})", "dim")
    )


def _counts(steps: Sequence[Step]) -> str:
    names: dict[Result, str] = {
        "pass": "passed",
        "fail": "failed",
        "inconclusive": "inconclusive",
        "not_applicable": "not applicable",
    }
    found = [(sum(s.result == result for s in steps), name) for result, name in names.items()]
    return ", ".join(f"{count} {name}" for count, name in found if count)
