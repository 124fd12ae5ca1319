"""``trunkline up``: the whole network in the foreground, as child processes.

Creates the data folder on the first run and says so. ``--ask`` and ``--once`` put a real question
to it through the ``openai`` client and verify the receipt. Ctrl-C or SIGTERM stops everything in
order; a second one kills. Refuses a folder that another ``up`` holds, except for ``--once``, which
then uses the network that runs.
"""

import asyncio
import signal
import socket
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from rich.markup import escape

from trunkline.base.errors import ConfigError, Error
from trunkline.cli import api, verify
from trunkline.cli.amend import add_providers, move_ports
from trunkline.cli.ask import Answer, Question, ask, chat_model, client
from trunkline.cli.create import PORT_BASE, create
from trunkline.cli.exits import DONE, INTERRUPTED, NO
from trunkline.cli.folder import Folder, NetworkFile, default_data
from trunkline.cli.progress import StartDisplay
from trunkline.cli.providers import Provider
from trunkline.cli.report import show
from trunkline.cli.supervise import ANSWERING, Supervisor
from trunkline.cli.terminal import console, errors, program, stream

READY_S_MAX: Final = 150.0
FINAL_WAIT_S: Final = 30
ANSWER_TOKENS_MAX: Final = 400
TEMPERATURE: Final = 0.0
"""A small model answers a question best where it is surest."""
FREQUENCY_PENALTY: Final = 0.5
"""Without it, that model then repeats one sentence until it is stopped."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was asked of ``up``."""

    folder: Folder
    port_base: int | None = None
    providers: Sequence[Provider] = ()
    ask: str | None = None
    """Ask this once everything runs, then go on serving."""
    once: str | None = None
    """Ask this, then stop."""
    model: str | None = None


class InterruptedStartError(Error):
    """A signal came before the work was done."""

    code = "interrupted"


def command(options: Options) -> int:
    """Run until stopped; the exit code."""
    folder = options.folder
    if options.once is not None and folder.exists and folder.is_locked():
        errors().print(f"using the network that runs in {escape(str(folder.path))}", style="dim")
        return asyncio.run(_ask_running(options, options.once))
    created = not folder.exists
    if created:
        create(folder, port_base=options.port_base or PORT_BASE, providers=options.providers)
        errors().print(f"first run: made a new network in {escape(str(folder.path))}")
    with folder.locked():
        if not created:
            _amend(options)
        network = folder.network()
        _refuse_taken_ports(network)
        return asyncio.run(_Up(options, network).run())


def _amend(options: Options) -> None:
    if options.port_base is not None:
        move_ports(options.folder, options.port_base)
    for name in add_providers(options.folder, options.providers):
        errors().print(f"added a node in front of the provider {escape(name)}")


def _refuse_taken_ports(network: NetworkFile) -> None:
    for entry in network.roles:
        host, _, port = entry.listen.rpartition(":")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, int(port)))
            except OSError:
                raise ConfigError(
                    f"port {port} (for {entry.name}) is taken by another program: stop that one, "
                    "or move this network with --port-base, for example --port-base 9480",
                    code="port_taken",
                ) from None


async def _ask_running(options: Options, prompt: str) -> int:
    base_url = options.folder.network().one("gateway").url
    _, code = await _ask_and_verify(options, base_url, prompt)
    return code


class _Up:
    """One run of the network."""

    def __init__(self, options: Options, network: NetworkFile) -> None:
        self._options = options
        self._folder = options.folder
        self._network = network
        self._base_url = network.one("gateway").url
        self._stop = asyncio.Event()
        self._signals = 0
        self._supervisor: Supervisor | None = None

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Started under nohup, it was told not to mind its terminal's end.
            if signal.getsignal(number) is not signal.SIG_IGN or number != signal.SIGHUP:
                loop.add_signal_handler(number, self._signalled)
        self._supervisor = Supervisor(self._folder, self._network.roles)
        try:
            await self._unless_stopped(self._start(self._supervisor))
            return await self._serve(self._supervisor)
        except InterruptedStartError:
            return INTERRUPTED
        finally:
            await self._end(self._supervisor)

    def _signalled(self) -> None:
        self._signals += 1
        self._stop.set()
        if self._signals > 1 and self._supervisor is not None:
            self._supervisor.kill()

    async def _start(self, supervisor: Supervisor) -> None:
        # The client's import takes as long as a role's start: do both at once.
        warm = asyncio.create_task(client(self._base_url))
        supervisor.start(ANSWERING)
        with StartDisplay(errors(), supervisor.started) as display:
            ready = asyncio.create_task(self._until_ready(supervisor, display))
            try:
                while not ready.done():
                    display.update()
                    await asyncio.wait([ready], timeout=0.1)
                await ready
            finally:
                ready.cancel()
                await (await warm).close()

    async def _until_ready(self, supervisor: Supervisor, display: StartDisplay) -> None:
        cache = self._folder.cache(self._network)
        if any(e.embedded for e in self._network.roles) and not any(cache.glob("*.gguf")):
            display.note("preparing the embedded model (once)")
        late = await supervisor.wait_ready(READY_S_MAX)
        for role in late:
            why = f" ({role.trouble})" if role.trouble else ""
            errors().print(f"going on without {role.entry.name}, which is not ready{why}")
        display.note("waiting for the gateway to see its nodes")
        await api.until_seen(self._base_url, without={role.entry.key for role in late})
        display.note("")

    async def _serve(self, supervisor: Supervisor) -> int:
        options = self._options
        if options.once is not None:
            once = _ask_and_verify(options, self._base_url, options.once)
            _, code = await self._unless_stopped(once)
            return code
        answer, code = None, DONE
        if options.ask is not None:
            asked = _ask_and_verify(options, self._base_url, options.ask)
            try:
                answer, code = await self._unless_stopped(asked)
            except InterruptedStartError:
                raise
            except Error as error:
                # The network runs all the same: say what went wrong, and go on serving.
                errors().print(f"trunkline: {escape(error.message)}", style="red")
                code = NO
        # What checks answers afterwards keeps nobody waiting, not even the first one.
        supervisor.start()
        _where(self._folder, answer, self._base_url)
        await self._stop.wait()
        return code

    async def _unless_stopped(self, work: Awaitable[T]) -> T:
        """The work's result; InterruptedStartError as soon as a signal comes."""
        task = asyncio.ensure_future(work)
        stopped = asyncio.create_task(self._stop.wait())
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if task.done():
            return task.result()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise InterruptedStartError("stopped")

    async def _end(self, supervisor: Supervisor) -> None:
        if self._options.once is None or self._signals:
            errors().print("stopping (again Ctrl-C: at once)", style="dim")
        await supervisor.stop()
        if self._options.once is None or self._signals:
            errors().print("stopped", style="dim")


async def _ask_and_verify(options: Options, base_url: str, prompt: str) -> tuple[Answer, int]:
    """Ask, show the answer as it comes, verify its evidence; DONE only if all of it happened."""
    caller = await client(base_url)
    try:
        model = options.model or await chat_model(caller)
        # A model that was named may be a provider's, which need not take these.
        ours = options.model is None
        question = Question(
            prompt=prompt,
            model=model,
            max_tokens=ANSWER_TOKENS_MAX,
            temperature=TEMPERATURE if ours else None,
            frequency_penalty=FREQUENCY_PENALTY if ours else None,
            keep_bodies=True,
        )
        if options.once is None:
            console().print(f"\n[bold]You[/bold]    {escape(prompt)}")
            console().print(f"[bold]Answer[/bold] from {escape(model)}:")
        answer = await ask(caller, question, stream)
    finally:
        await caller.close()
    stream("\n\n")
    with errors().status("waiting until the log and its witness have the receipt"):
        evidence = await api.evidence(base_url, answer.id, wait_s=FINAL_WAIT_S)
    report = verify.check(evidence, verify.trust_of(options.folder))
    console().print(
        f"Receipt [bold]{escape(answer.id)}[/bold]\n"
        f"  {escape(answer.model)} on {escape(answer.node)}; first text after "
        f"{answer.first_s:.2f} s, whole after {answer.ended_s:.1f} s"
    )
    show(console(), report)
    return answer, DONE if report.outcome == "pass" else NO


def _where(folder: Folder, answer: Answer | None, base_url: str) -> None:
    on = "" if folder.path == default_data() else f" --data {folder.path}"
    receipt = answer.id if answer is not None else "ID"
    rows = (
        ("base URL", f"{base_url}/v1   any api_key; this is the one line to change in an app"),
        ("data folder", str(folder.path)),
        ("check it", f"{program()} verify {receipt}{on}"),
        ("take it away", f"{program()} receipts export {receipt}{on} > answer.json"),
        ("chat", f"{program()} chat{on}"),
        ("kill a node", f"{program()} drill kill-node{on}"),
        ("how it is", f"{program()} status{on}"),
        ("stop", "Ctrl-C here"),
    )
    console().print("\n[bold]Serving.[/bold]")
    for name, value in rows:
        console().print(f"  [dim]{name:<14}[/dim]{escape(value)}")
