"""What is shown while a network starts: a live table on a terminal, plain lines elsewhere."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from trunkline.cli.supervise import Role

WHAT: Final = {
    "gateway": "front door for your apps",
    "node": "serves the model, signs receipts",
    "log": "holds the receipts' commitments",
    "witness": "cosigns what the log says",
    "verifier": "checks answers after they were given",
}


class StartDisplay:
    """Shows roles becoming ready. A context manager around the start."""

    def __init__(self, console: Console, roles: Sequence[Role]) -> None:
        self._console = console
        self._roles = roles
        self._begun = time.monotonic()
        self._announced: set[str] = set()
        self._spinner = Spinner("dots", text="starting")
        self._note = ""
        self._live = (
            Live(console=console, refresh_per_second=10, transient=True, get_renderable=self._draw)
            if console.is_terminal
            else None
        )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
        self.update()

    def note(self, text: str) -> None:
        """Say what is being waited for beyond the roles."""
        if self._live is None and text and text != self._note:
            self._console.print(Text(text))
        self._note = text

    def update(self) -> None:
        """Without a live display: one line for each role that became ready since."""
        for role in self._roles:
            if role.ready_s is not None and role.entry.name not in self._announced:
                self._announced.add(role.entry.name)
                self._console.print(_line(role))

    def _draw(self) -> Group:
        table = Table(box=None, show_header=False, padding=(0, 1))
        for role in self._roles:
            table.add_row(*_cells(role))
        elapsed = time.monotonic() - self._begun
        self._spinner.update(text=Text(f"{self._note or 'starting'} ({elapsed:.1f} s)"))
        return Group(table, self._spinner)


def _cells(role: Role) -> tuple[Text, Text, Text]:
    if role.state == "ready":
        state = Text(f"✓ ready in {role.ready_s or 0:.1f} s", style="green")
    else:
        state = Text(f"… {role.state}", style="yellow")
    who = f"{WHAT[role.entry.role]} ({role.entry.operator or 'yours'})"
    return Text(f"  {role.entry.name}"), state, Text(who, style="dim")


def _line(role: Role) -> Text:
    return Text("  ").join(_cells(role))
