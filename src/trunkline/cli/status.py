"""``trunkline status``: roles, health, process ids, counts, the last checkpoint."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trunkline.base.errors import Error
from trunkline.cli import api
from trunkline.cli.exits import DONE, NO
from trunkline.cli.folder import Folder, NetworkFile, RoleEntry, RunFile
from trunkline.cli.terminal import console
from trunkline.cli.verify import trust_of
from trunkline.gateway.core.breaker import Fault, State
from trunkline.gateway.core.load import PlaceLoad, QueueLoad, WindowLoad
from trunkline.gateway.status import ModelStatus, Status
from trunkline.node.core.keyring import KeyState
from trunkline.schema.audit import VERIFIER_INFO_PATH, VerifierInfo
from trunkline.tlog.policy import Policy

CHECKPOINT_BYTES_MAX = 1024 * 1024


class RoleStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One role, as asked just now."""

    name: str
    role: str
    url: str
    operator: str
    key: str
    pid: int | None
    """Known while ``trunkline up`` runs it."""
    state: str
    """Its supervisor's word, or ``unsupervised``."""
    healthy: bool
    restarts: int
    api_keys: tuple[KeyState, ...] = ()
    """Of a provider's node with several: each by its label."""
    verifier: VerifierInfo | None = None
    """What a verifier says of itself."""


class _Health(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a node's health that is shown besides that it answers."""

    api_keys: tuple[KeyState, ...] = ()


class CheckpointStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The log's published checkpoint, verified under this folder's policy."""

    origin: str
    size: int
    root: str
    """Hex."""
    witnesses: tuple[str, ...]
    cosigned_s_ago: int | None
    problem: str
    """Why it is not accepted; empty if it is."""


class NetworkStatus(msgspec.Struct, frozen=True, kw_only=True):
    """``trunkline status --json``."""

    data: str
    base_url: str
    ready: bool
    """Every role is healthy, and the gateway sees every node ready."""
    supervisor: int | None
    """Process id of the ``trunkline up`` that runs this network."""
    roles: tuple[RoleStatus, ...]
    gateway: Status | None
    checkpoint: CheckpointStatus | None


def command(folder: Folder, *, as_program: bool) -> int:
    """Ask, print, and return DONE if all is well, else NO."""
    status = asyncio.run(gather(folder))
    if as_program:
        typer.echo(msgspec.json.encode(status).decode())
    else:
        _show(status)
    return DONE if status.ready else NO


async def gather(folder: Folder) -> NetworkStatus:
    """Ask every role at once. ConfigError if there is no network in the folder."""
    network, running = folder.network(), folder.running()
    gateway_url = network.one("gateway").url
    roles, gateway, checkpoint = await asyncio.gather(
        asyncio.gather(*(_role(entry, running) for entry in network.roles)),
        _gateway(gateway_url),
        _checkpoint(folder, network),
    )
    nodes_ready = gateway is not None and all(node.ready for node in gateway.nodes)
    return NetworkStatus(
        data=str(folder.path),
        base_url=f"{gateway_url}/v1",
        ready=nodes_ready and all(role.healthy for role in roles),
        supervisor=None if running is None else running.pid,
        roles=tuple(roles),
        gateway=gateway,
        checkpoint=checkpoint,
    )


async def _role(entry: RoleEntry, running: RunFile | None) -> RoleStatus:
    known = {role.name: role for role in running.roles} if running is not None else {}
    process = known.get(entry.name)
    keys: tuple[KeyState, ...] = ()
    verifier = None
    try:
        body = await api.get(f"{entry.url}/healthz")
        healthy = True
        if entry.role == "node":
            keys = _keys(body)
        if entry.role == "verifier":
            verifier = _verifier(await api.get(f"{entry.url}{VERIFIER_INFO_PATH}"))
    except Error:
        healthy = False
    return RoleStatus(
        name=entry.name,
        role=entry.role,
        url=entry.url,
        operator=entry.operator,
        key=entry.key,
        pid=None if process is None else process.pid,
        state="unsupervised" if process is None else process.state,
        healthy=healthy,
        restarts=0 if process is None else process.restarts,
        api_keys=keys,
        verifier=verifier,
    )


def _keys(health: bytes) -> tuple[KeyState, ...]:
    try:
        return msgspec.json.decode(health, type=_Health).api_keys
    except msgspec.MsgspecError:
        return ()


def _verifier(body: bytes) -> VerifierInfo | None:
    try:
        return msgspec.json.decode(body, type=VerifierInfo)
    except msgspec.MsgspecError:
        return None


async def _gateway(url: str) -> Status | None:
    try:
        return await api.status(url)
    except Error:
        return None


async def _checkpoint(folder: Folder, network: NetworkFile) -> CheckpointStatus | None:
    try:
        note = await api.get(f"{network.one('log').url}/checkpoint", bytes_max=CHECKPOINT_BYTES_MAX)
    except Error:
        return None
    policy = trust_of(folder).policy
    try:
        accepted = Policy.parse(policy or "").accepts(note)
    except Error as error:
        return CheckpointStatus(
            origin="", size=0, root="", witnesses=(), cosigned_s_ago=None, problem=error.message
        )
    latest = max((timestamp for _, timestamp in accepted.witnesses), default=None)
    return CheckpointStatus(
        origin=accepted.checkpoint.origin,
        size=accepted.checkpoint.size,
        root=accepted.checkpoint.root.hex(),
        witnesses=tuple(name for name, _ in accepted.witnesses),
        cosigned_s_ago=None if latest is None else max(0, int(time.time()) - latest),
        problem="",
    )


def _show(status: NetworkStatus) -> None:
    out = console()
    out.print(Text.assemble(("data folder  ", "dim"), status.data))
    out.print(Text.assemble(("base URL     ", "dim"), status.base_url))
    out.print(_roles(status.roles))
    for role in status.roles:
        if role.api_keys:
            out.print(f"keys of {role.name}: {', '.join(map(_key, role.api_keys))}")
    for role in status.roles:
        if role.verifier is not None:
            out.print(Text(f"{role.name}: {_duty(role.verifier)}", "dim"))
    if status.gateway is not None:
        answers, evidence = status.gateway.answers, status.gateway.evidence
        out.print(
            f"answers since its start: {answers.succeeded} whole, of these {answers.survived} in "
            f"spite of a failed attempt; {answers.failed} failed, {answers.running} running"
        )
        _show_queue(out, status.gateway.queue)
        _show_unwell(out, status.gateway)
        out.print(f"receipts: {evidence.final} final, {evidence.provisional} provisional")
        for doubt in _doubts(status.gateway):
            out.print(doubt)
        if status.gateway.routing.problem:
            out.print(f"routing policy not in force: {status.gateway.routing.problem}", style="red")
    out.print(_checkpoint_line(status.checkpoint))
    if status.supervisor is None:
        out.print("no `trunkline up` runs this network", style="yellow")


def _doubts(gateway: Status) -> Iterator[Text]:
    """What verifiers and checkpoints show to be wrong, and who is not there to tell."""
    for log in gateway.logs:
        if log.split_view is not None:
            text = f"{log.origin} contradicted itself and is not trusted: {log.split_view}"
            yield Text(text, "red")
    for row in gateway.standings:
        style = "red" if row.standing == "quarantined" else "yellow"
        by = ", ".join(row.by)
        yield Text(f"{row.node}, {row.model}: {row.standing}: {row.why}, by {by}", style)
    for verifier in gateway.verifiers:
        if not verifier.reachable and verifier.error:
            yield Text(f"verifier {verifier.name}: not reachable ({verifier.error})", "yellow")
        if not verifier.counts:
            yield Text(
                f"verifier {verifier.name}: does not count: it missed planted answers", "red"
            )
    if gateway.keys_problem:
        yield Text(f"virtual keys: {gateway.keys_problem}", "red")


_FAULTS: Final = {
    Fault.ORDINARY: "failed",
    Fault.REFUSED: "refused the connection",
    Fault.SILENT: "was silent for too long",
    Fault.MODEL: "its provider does not have the model",
    Fault.AUTH: "its provider refuses the credentials",
    Fault.OUTLIER: "does worse than others that serve the model",
}


def _show_queue(out: Console, queue: QueueLoad) -> None:
    """How many wait, and what is left of each deployment's limits."""
    if queue.waiting:
        out.print(f"queue: {queue.waiting} calls wait for a place", style="yellow")
    for place in queue.places:
        out.print(Text(f"{place.node}, {place.model}: {_limits(place)}", "dim"))


def _limits(place: PlaceLoad) -> str:
    taken = f"{place.running + place.elsewhere} of {place.places} places taken"
    parts = [taken + ("" if place.places_stated else " (found by trying)")]
    parts += [_window(window) for window in place.windows]
    if place.rate_found is not None:
        parts.append(f"about {place.rate_found:.3g} calls a second (found by trying)")
    if place.closed_ms:
        parts.append(f"asked to be left alone for {place.closed_ms / 1000:.0f} s")
    return ", ".join(parts)


def _window(window: WindowLoad) -> str:
    length = "" if window.window_ms is None else f" in {window.window_ms / 1000:g} s"
    return f"{window.left} of {window.limit} {window.unit.replace('_', ' ')}{length} left"


def _show_unwell(out: Console, gateway: Status) -> None:
    """One line for each node and model that does not get its full share of calls, and why."""
    for node in gateway.nodes:
        if not node.reachable:
            out.print(Text(f"{node.node}: not reachable ({node.error or 'no answer'})", "yellow"))
        for model in node.models:
            line = _unwell(model)
            if line:
                out.print(Text(f"{node.node}, {model.name}: {line}", "yellow"))


def _unwell(model: ModelStatus) -> str:
    """What is the matter with a deployment; empty if nothing is."""
    why = "" if model.fault is None else f": {_FAULTS[model.fault]} ({model.error})"
    if model.breaker is State.OPEN:
        return f"not asked for {model.resting_ms / 1000:.0f} s{why}"
    if model.breaker is State.HALF_OPEN:
        return f"one call will show whether it is well again{why}"
    if model.share_percent < 100:
        return f"came back, gets {model.share_percent} % of its share of calls for now"
    return ""


def _roles(roles: Sequence[RoleStatus]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("role", "health", "state", "process", "restarts", "address", "operator"):
        table.add_column(name, header_style="dim", no_wrap=True)
    for role in roles:
        health = Text("✓ answers", "green") if role.healthy else Text("✗ silent", "red")
        table.add_row(
            role.name, health, role.state, "" if role.pid is None else str(role.pid),
            str(role.restarts), role.url, role.operator or "you",
        )  # fmt: skip
    return table


def _key(key: KeyState) -> str:
    """One key of a provider's account, as far as it is anybody's business."""
    wait = f" for {key.wait_ms / 1000:.0f} s" if key.wait_ms else ""
    return f"{key.label} {key.state}{wait}"


def _duty(verifier: VerifierInfo) -> str:
    """What a verifier does, in plain words."""
    drawn = f"draws {verifier.rate_ppm / 10_000:g} % of the answers by chance, and runs them again"
    waiting = f", {verifier.waiting} wait" if verifier.waiting else ""
    return f"{drawn if verifier.rate_ppm else 'draws none'}; {verifier.verdicts} verdicts{waiting}"


def _checkpoint_line(checkpoint: CheckpointStatus | None) -> Text:
    if checkpoint is None:
        return Text("checkpoint: the log does not answer", style="yellow")
    if checkpoint.problem:
        return Text(f"checkpoint: {checkpoint.problem}", style="yellow")
    by = ", ".join(checkpoint.witnesses) or "nobody"
    when = "" if checkpoint.cosigned_s_ago is None else f" {checkpoint.cosigned_s_ago} s ago"
    return Text(
        f"checkpoint: {checkpoint.size} entries, root {checkpoint.root[:16]}…, cosigned by {by}"
        f"{when} ({checkpoint.origin})"
    )
