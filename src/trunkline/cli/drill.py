"""``trunkline drill kill-node``: kills the node that is answering, and compares what the app got.

The same question with the same seed is asked twice: once undisturbed, once with SIGKILL to the
serving node's process on the way. Exit code DONE only if both texts and endings are identical.
Refuses to kill anything that this folder's ``trunkline up`` did not start.
"""

import asyncio
import itertools
import os
import signal
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from trunkline.base.errors import Error
from trunkline.cli import api, verify
from trunkline.cli.ask import Answer, AnswerError, Question, ask, chat_model, client
from trunkline.cli.exits import DONE, NO
from trunkline.cli.folder import Folder
from trunkline.cli.report import summary
from trunkline.cli.terminal import console, harmless
from trunkline.evidence import Report

if TYPE_CHECKING:
    import openai

PROMPT: Final = "Tell me a long story about a lighthouse keeper and the sea."
TEMPERATURE: Final = 0.8
PIECES_MIN: Final = 12
FINAL_WAIT_S: Final = 30


@dataclass(slots=True)
class Kill:
    """One SIGKILL: whom, and when."""

    node: str
    pid: int
    after_pieces: int
    at_s: float
    """Monotonic seconds."""


class DrillJson(msgspec.Struct, frozen=True, kw_only=True):
    """``trunkline drill kill-node --json``."""

    identical: bool
    killed: str
    pid: int
    after_pieces: int
    pieces: int
    takeover_s: float
    """From the kill to the next piece of text."""
    usual_gap_s: float
    """Median time between two pieces."""
    undisturbed: str
    disturbed: str
    answer: str
    verified: str
    """Outcome of verifying the disturbed answer's evidence."""


def kill_node(folder: Folder, *, seed: int, tokens: int, as_program: bool) -> int:
    """Run the drill; DONE only if the app saw no difference."""
    return asyncio.run(_Drill(folder, seed, tokens, quiet=as_program).run())


class _Drill:
    def __init__(self, folder: Folder, seed: int, tokens: int, *, quiet: bool) -> None:
        self._folder = folder
        self._base_url = folder.network().one("gateway").url
        self._seed = seed
        self._tokens = tokens
        self._quiet = quiet
        self._out = Console(quiet=True) if quiet else console()
        self._kill: Kill | None = None

    async def run(self) -> int:
        if self._folder.running() is None:
            raise api.NotRunningError(
                f"no `trunkline up` runs {self._folder.path}: start it in another terminal first"
            )
        caller = await client(self._base_url)
        try:
            undisturbed, disturbed = await self._both(caller)
        finally:
            await caller.close()
        evidence = await api.evidence(self._base_url, disturbed.id, wait_s=FINAL_WAIT_S)
        report = verify.check(evidence, verify.trust_of(self._folder))
        return self._conclude(undisturbed, disturbed, report)

    async def _both(self, caller: "openai.AsyncOpenAI") -> tuple[Answer, Answer]:
        question = Question(
            prompt=PROMPT,
            model=await chat_model(caller),
            max_tokens=self._tokens,
            seed=self._seed,
            temperature=TEMPERATURE,
            keep_bodies=True,
        )
        self._out.print(f"[bold]1. Undisturbed[/bold], seed {self._seed}")
        undisturbed = await ask(caller, question, self._show)
        self._out.print(f"\n[dim]{undisturbed.pieces} pieces from {undisturbed.node}[/dim]\n")
        if undisturbed.pieces < PIECES_MIN:
            raise AnswerError(
                f"that answer is too short for the drill; try --seed {self._seed + 1}"
            )
        after = undisturbed.pieces // 3

        async def strike(answer: Answer) -> None:
            if answer.pieces == after:
                self._kill = self._strike(answer)

        self._out.print("[bold]2. The same, and the node that answers is killed on the way[/bold]")
        disturbed = await ask(caller, question, self._show, strike)
        self._out.print("\n")
        return undisturbed, disturbed

    def _strike(self, answer: Answer) -> Kill:
        pid = self._pid(answer.node)
        os.kill(pid, signal.SIGKILL)
        at_s = time.monotonic()
        note = f" ✗ SIGKILL to {answer.node}, process {pid} "
        self._out.print(Text(note, style="bold white on red"), end="")
        return Kill(node=answer.node, pid=pid, after_pieces=answer.pieces, at_s=at_s)

    def _pid(self, node: str) -> int:
        running = self._folder.running()
        names = {entry.name for entry in self._folder.network().roles if entry.key == node}
        for role in () if running is None else running.roles:
            if role.name in names and role.pid is not None:
                return role.pid
        raise Error(f"{node} is not a process of this folder's `trunkline up`", code="not_running")

    def _show(self, text: str) -> None:
        self._out.print(Text(harmless(text)), end="")
        if not self._quiet:
            self._out.file.flush()

    def _conclude(self, undisturbed: Answer, disturbed: Answer, report: Report) -> int:
        kill = self._kill
        if kill is None:
            raise AnswerError("the second answer ended before the node could be killed")
        identical = (undisturbed.text, undisturbed.finish) == (disturbed.text, disturbed.finish)
        takeover_s = next((at - kill.at_s for at, _ in disturbed.gaps if at > kill.at_s), 0.0)
        usual_s = statistics.median(gap for _, gap in undisturbed.gaps[1:])
        record = DrillJson(
            identical=identical,
            killed=kill.node,
            pid=kill.pid,
            after_pieces=kill.after_pieces,
            pieces=disturbed.pieces,
            takeover_s=round(takeover_s, 3),
            usual_gap_s=round(usual_s, 3),
            undisturbed=undisturbed.text,
            disturbed=disturbed.text,
            answer=disturbed.id,
            verified=report.outcome,
        )
        if self._quiet:
            typer.echo(msgspec.json.encode(record).decode())
        else:
            self._explain(record, report)
        return DONE if identical else NO

    def _explain(self, record: DrillJson, report: Report) -> None:
        out = self._out
        out.print("[bold]3. Compared[/bold]")
        if record.identical:
            count = len(record.disturbed)
            out.print(f"✓ identical: {count} characters, character for character", style="green")
        else:
            pairs = zip(record.undisturbed, record.disturbed, strict=False)
            same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
            out.print(f"✗ different from character {same} on", style="bold red")
        out.print(
            f"  {record.killed} was killed after {record.after_pieces} of {record.pieces} pieces; "
            f"the next came {record.takeover_s:.2f} s later (usually {record.usual_gap_s:.2f} s)"
        )
        served = ", ".join(receipt.node for receipt in report.receipts)
        earlier = [each.node for receipt in report.receipts for each in receipt.route]
        out.print(f"  receipt {record.answer}: signed by {served}, after {', '.join(earlier)}")
        out.print(summary(report))
