"""``trunkline drill swap-model``: one of two nodes begins to cheat, and is caught by its verifiers.

A network of its own, in a temporary folder: two nodes, two verifiers of different operators, a
gateway, a log, a witness. While users chat, node beta is replaced by one that cheats under its key
(``cheating_node``). The drill ends when the gateway has quarantined it. Exit code DONE only if that
happened, no call failed, and nothing that was asked afterwards went to it.
"""

import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import typer
from rich.console import Console

from trunkline.base.errors import Error
from trunkline.cli import api
from trunkline.cli.ask import AnswerError, Question, ask, chat_model, client
from trunkline.cli.cheating_node import Cheat
from trunkline.cli.create import create
from trunkline.cli.exits import DONE, NO
from trunkline.cli.folder import Folder, NetworkFile
from trunkline.cli.supervise import ANSWERING, Role, Supervisor
from trunkline.cli.terminal import console
from trunkline.evidence import decode
from trunkline.gateway.alerts import ALERTS_PATH, AlertList
from trunkline.gateway.verdict_store import Alert
from trunkline.receipts import decode as decode_receipt

CHEATER: Final = "node-beta"
USERS: Final = 3
HONEST_MIN: Final = 3
"""Answers of the node, while it is honest, before it is replaced."""
AFTERWARDS: Final = 4
"""Answers that are asked once it is quarantined."""
READY_S_MAX: Final = 120.0
PLAY_S_MAX: Final = 600.0
LOOK_S: Final = 0.2
PROBES_A_MINUTE: Final = 4.0
"""Own questions of each verifier to each node. A node that one answer demoted is asked little by
users: what more there is to know comes from these."""
TOKENS: Final = 60
TEMPERATURE: Final = 1.0
TOPICS: Final = ("a lighthouse", "rivers", "bread", "a chess game", "snow", "bridges", "an owl")
WAYS: Final = ("Tell me a short story about", "Explain to a child", "What is worth knowing about")


class SwapJson(msgspec.Struct, frozen=True, kw_only=True):
    """``trunkline drill swap-model --json``."""

    caught: bool
    cheat: str
    node: str
    answers: int
    """Of all users."""
    failed: int
    cheated_answers: int
    """Of the cheating node, begun before it was quarantined."""
    cheated_tokens: int
    seconds: float
    """From the beginning of its first such answer until it was quarantined."""
    afterwards: int
    """Answers begun after that which the node had any part in."""
    rate_percent: float
    """Share of the answers that verifiers check."""
    alerts: tuple[Alert, ...]


@dataclass(slots=True)
class _Asked:
    """One answer of a user."""

    id: str
    node: str
    began_s: float


@dataclass(slots=True)
class _Traffic:
    """What users saw."""

    answers: list[_Asked] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def of(self, node: str, since_s: float = 0.0) -> list[_Asked]:
        return [one for one in self.answers if one.node == node and one.began_s >= since_s]


class _Cast(Supervisor):
    """Runs the network, and the cheater in its node's place once ``cheat`` is set."""

    cheat: Cheat | None = None

    def command(self, role: Role) -> tuple[str, ...]:
        if self.cheat is None or role.entry.name != CHEATER:
            return super().command(role)
        config = str(self._folder.config(role.entry))
        return (sys.executable, "-m", "trunkline.cli.cheating_node", config, self.cheat)

    def replace(self, cheat: Cheat) -> None:
        """The node's process ends, and the cheater takes its place."""
        self.cheat = cheat
        role = self._role()
        if role.process is not None:
            role.process.terminate()
        role.state = "waiting"

    async def cheating(self, timeout_s: float) -> None:
        """Wait until it serves. Raises :class:`TimeoutError`."""
        async with asyncio.timeout(timeout_s):
            await _until(lambda: self._role().state == "ready")

    def _role(self) -> Role:
        return next(role for role in self.roles if role.entry.name == CHEATER)


def swap_model(*, cheat: Cheat, rate_percent: float, port_base: int, as_program: bool) -> int:
    """Run the drill."""
    with tempfile.TemporaryDirectory(prefix="trunkline-drill-") as place:
        folder = Folder(Path(place) / "net")
        create(folder, port_base=port_base)
        network = folder.network()
        _audit_more(folder, network, rate_percent / 100)
        drill = _Drill(folder, network, cheat, rate_percent, quiet=as_program)
        return asyncio.run(drill.run())


def _audit_more(folder: Folder, network: NetworkFile, share: float) -> None:
    """Have so many answers checked, and demoted nodes asked often: what is ordinary would make the
    drill a long one. No questions are planted."""
    changes = {
        "verifier": {
            "rate_ppm": f"{share * 1_000_000:.0f}",
            "probe_per_minute": str(PROBES_A_MINUTE),
            # Nothing but the cheat is to move a standing: on a busy machine a plant's opening may
            # come after the verdict on it, and its node is demoted until then.
            "plant_share": "0.0",
        },
        "node": {"rate_max": "1.0"},
    }
    for entry in network.roles:
        for key, value in changes.get(entry.role, {}).items():
            path = folder.config(entry)
            text = [f"{key} = {value}" if line.startswith(f"{key} = ") else line
                    for line in path.read_text().splitlines()]  # fmt: skip
            path.write_text("\n".join(text) + "\n")


class _Drill:
    def __init__(
        self,
        folder: Folder,
        network: NetworkFile,
        cheat: Cheat,
        rate_percent: float,
        *,
        quiet: bool,
    ) -> None:
        self._folder = folder
        self._network = network
        self._base_url = network.one("gateway").url
        self._cheat = cheat
        self._rate_percent = rate_percent
        self._quiet = quiet
        self._out = Console(quiet=True) if quiet else console()
        self._traffic = _Traffic()
        self._node = next(entry.key for entry in network.roles if entry.name == CHEATER)

    async def run(self) -> int:
        cast = _Cast(self._folder, self._network.roles)
        try:
            self._out.print("[bold]1. Starting[/bold] a network of its own")
            cast.start(ANSWERING)
            await cast.wait_ready(READY_S_MAX)
            cast.start()
            await cast.wait_ready(READY_S_MAX)
            await api.until_seen(self._base_url)
            async with asyncio.timeout(PLAY_S_MAX):
                record = await self._play(cast)
        except TimeoutError:
            raise Error(
                f"not all of it happened within {PLAY_S_MAX:.0f} s",
                code="drill_timeout",
            ) from None
        finally:
            await cast.stop()
            # Its roles' own diagnostics may be wanted where it went wrong; otherwise nothing is.
            shutil.rmtree(self._folder.cache(self._network), ignore_errors=True)
        return self._conclude(record)

    async def _play(self, cast: _Cast) -> SwapJson:
        caller = await client(self._base_url)
        model = await chat_model(caller)
        prompts = _prompts()

        async def user() -> None:
            while True:
                question = Question(
                    prompt=next(prompts), model=model, max_tokens=TOKENS, temperature=TEMPERATURE
                )
                began_s = time.monotonic()
                try:
                    answer = await ask(caller, question, lambda _: None)
                except AnswerError as error:
                    self._traffic.failures.append(error.message)
                else:
                    self._traffic.answers.append(_Asked(answer.id, answer.node, began_s))

        users = [asyncio.create_task(user()) for _ in range(USERS)]
        try:
            return await self._watch(cast)
        finally:
            for task in users:
                task.cancel()
            await asyncio.gather(*users, return_exceptions=True)
            await caller.close()

    async def _watch(self, cast: _Cast) -> SwapJson:
        self._out.print(f"[bold]2. {USERS} users chat[/bold]; both nodes are honest")
        await _until(lambda: len(self._traffic.of(self._node)) >= HONEST_MIN)
        cast.replace(self._cheat)
        await cast.cheating(READY_S_MAX)
        swapped_s = time.monotonic()
        self._out.print(f"[bold]3. {self._node} cheats[/bold] from now on ({self._cheat})")
        await self._until_quarantined()
        caught_s = time.monotonic()
        self._out.print("[bold]4. It is quarantined[/bold]; the users go on")
        enough = len(self._traffic.answers) + USERS + AFTERWARDS
        await _until(lambda: len(self._traffic.answers) >= enough)
        return await self._record(swapped_s, caught_s)

    async def _until_quarantined(self) -> None:
        while True:
            standings = (await self._alerts()).standings
            if any(s.node == self._node and s.standing == "quarantined" for s in standings):
                return
            await asyncio.sleep(LOOK_S)

    async def _alerts(self) -> AlertList:
        return msgspec.json.decode(await api.get(self._base_url + ALERTS_PATH), type=AlertList)

    async def _record(self, swapped_s: float, caught_s: float) -> SwapJson:
        since = self._traffic.of(self._node, swapped_s)
        cheated = [one for one in since if one.began_s < caught_s]
        tokens = [await self._tokens(one.id) for one in cheated]
        first_s = min((one.began_s for one in cheated), default=caught_s)
        return SwapJson(
            caught=True,
            cheat=self._cheat,
            node=self._node,
            answers=len(self._traffic.answers),
            failed=len(self._traffic.failures),
            cheated_answers=len(cheated),
            cheated_tokens=sum(tokens),
            seconds=round(caught_s - first_s, 1),
            afterwards=len(since) - len(cheated),
            rate_percent=self._rate_percent,
            alerts=(await self._alerts()).alerts,
        )

    async def _tokens(self, answer: str) -> int:
        evidence = decode(await api.evidence(self._base_url, answer))
        receipts = [decode_receipt(part.signed.receipt.encode()) for part in evidence.parts]
        return sum(receipt.usage.completion for receipt in receipts)

    def _conclude(self, record: SwapJson) -> int:
        good = record.caught and not record.failed and not record.afterwards
        if self._quiet:
            typer.echo(msgspec.json.encode(record).decode())
            return DONE if good else NO
        mark, style = ("✓", "green") if good else ("✗", "bold red")
        self._out.print(
            f"{mark} caught after {record.cheated_tokens} tokens in {record.cheated_answers} "
            f"answers, {record.seconds:.1f} s ({record.rate_percent:g} % of answers are checked)",
            style=style,
        )
        self._out.print(
            f"  of {record.answers} answers {record.failed} failed; asked afterwards, "
            f"{record.afterwards} went to it"
        )
        for alert in reversed(record.alerts):
            by = f", by {', '.join(alert.by)}" if alert.by else ""
            self._out.print(f"  {alert.code}: {alert.node}: {alert.why}{by}")
        for failure in sorted(set(self._traffic.failures)):
            self._out.print(f"  failed: {failure}", style="red")
        return DONE if good else NO


async def _until(true: Callable[[], bool]) -> None:
    while True:
        if true():
            return
        await asyncio.sleep(LOOK_S)


def _prompts() -> Iterator[str]:
    while True:
        for topic in TOPICS:
            for way in WAYS:
                yield f"{way} {topic}."
