"""``trunkline audit``: what verifiers found of answers, the numbers again, what needs a person.

A verdict counts here only with the signature of a verifier whose key is pinned in ``keys.json``.
``recompute`` takes nobody's word for a number: from the bundle it must come out to the last digit.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from re import compile as regex
from typing import Final, TypeVar

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from trunkline.audit import recompute as recomputing
from trunkline.base.errors import (
    ConfigError,
    Error,
    MalformedError,
    UpstreamError,
    VerificationError,
)
from trunkline.cli import api
from trunkline.cli.create import read_keys
from trunkline.cli.exits import DONE, NO, UNABLE
from trunkline.cli.folder import Folder
from trunkline.cli.report import MARKS
from trunkline.cli.terminal import console
from trunkline.cli.verify import trust_of
from trunkline.crypto.keys import VerifierKey
from trunkline.evidence import decode
from trunkline.gateway.alerts import ALERTS_PATH, AlertList
from trunkline.receipts import receipt_leaf
from trunkline.remote.http1 import HttpTransport
from trunkline.remote.status import CONFLICT, NOT_FOUND
from trunkline.remote.verifier import VerifierCaller
from trunkline.schema.audit import AlertStatement, RevealedVerdict
from trunkline.tlog.policy import Policy
from trunkline.verdicts import Verdict, is_withdrawal

PAGES_MAX: Final = 1_000
"""Of a verifier's alerts, and of its later verdicts that are looked through for one that withdraws
another."""
LEAF: Final = regex(r"[0-9a-f]{8,64}")
"""A receipt's leaf hash, or the beginning of it, as ``audit ls`` shows it."""
ALERTS_SHOWN: Final = 50
"""The newest of the gateway's, and of each verifier's."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verifier:
    """One of the network's verifiers, reachable."""

    name: str
    key: VerifierKey
    caller: VerifierCaller


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One verifier's verdict, as a program reads it (``--json``)."""

    verifier: str
    """Its key's name."""
    entry: int | None
    """Where the log has it."""
    verdict: Verdict
    note: str
    withdrawal: Verdict | None = None
    """By which the verifier took it back, since the answer had been planted."""
    recomputed: bool | None = None
    """Of ``recompute``: whether every number came out."""
    problem: str = ""


def ls(folder: Folder, *, limit: int, as_program: bool) -> int:
    """The newest verdicts of each verifier, newest first."""

    async def newest(verifier: _Verifier) -> list[Found]:
        last = (await verifier.caller.info()).verdicts
        page = await verifier.caller.verdicts(max(0, last - limit))
        return [_open(verifier, one.note, one.entry) for one in page.verdicts]

    found = [one for each in _ask_all(folder, newest) for one in each]
    found.sort(key=lambda one: one.verdict.unix_ms, reverse=True)
    if as_program:
        typer.echo(msgspec.json.encode(found[:limit]).decode())
        return DONE
    found = _taken_together(found)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("receipt", "when", "verifier", "node", "model", "regime", "result", "standing"):
        table.add_column(name, header_style="dim", no_wrap=True)
    for one in found[:limit]:
        table.add_row(*_row(one))
    console().print(table if found else Text("no verdicts yet", style="dim"))
    return DONE


def show(folder: Folder, what: str, *, as_program: bool) -> int:
    """Every check of every verdict on an answer, or on one receipt. DONE if all pass, NO if one
    fails that was not withdrawn, else UNABLE."""
    found = _find(folder, what)
    if as_program:
        typer.echo(msgspec.json.encode(found).decode())
    else:
        for one in found:
            _show(one)
        if not found:
            console().print(Text("no verdict: not drawn, or not public yet", "dim"))
    results = {one.verdict.result for one in found if one.withdrawal is None}
    if "fail" in results:
        return NO
    return DONE if "pass" in results and "inconclusive" not in results else UNABLE


def recompute(folder: Folder, what: str, *, as_program: bool) -> int:
    """The numbers of every verdict on an answer, from their bundles. DONE if all come out, NO if
    one does not, UNABLE without a verdict."""
    leaves = _leaves(folder, what)
    trust = _trust_in_draws(folder)

    async def again(verifier: _Verifier) -> list[Found]:
        return [
            await _recompute(verifier, one, trust)
            for leaf in leaves
            for one in await _on(verifier, leaf)
        ]

    found = [one for each in _ask_all(folder, again) for one in each]
    _check_one(what, found)
    if as_program:
        typer.echo(msgspec.json.encode(found).decode())
    else:
        for one in found:
            _show_again(one)
        if not found:
            console().print(Text("no verdict to compute again", style="dim"))
    if not found:
        return UNABLE
    return DONE if all(one.recomputed for one in found) else NO


class AllAlerts(msgspec.Struct, frozen=True, kw_only=True):
    """``trunkline audit alerts --json``."""

    gateway: AlertList | None
    """What verdicts came to here; absent where the gateway does not answer."""
    verifiers: dict[str, tuple[AlertStatement, ...]]
    """What each verifier has written down, by its key's name."""


def alerts(folder: Folder, *, as_program: bool) -> int:
    """What needs a person, of gateway and verifiers. NO if something does, UNABLE if nobody who
    answers says so and not all answer, else DONE."""

    async def theirs(verifier: _Verifier) -> tuple[str, tuple[AlertStatement, ...]]:
        return verifier.name, await _newest_alerts(verifier.caller)

    said = dict(_ask_all(folder, theirs))
    found = AllAlerts(gateway=asyncio.run(_gateway_alerts(folder)), verifiers=said)
    if as_program:
        typer.echo(msgspec.json.encode(found).decode())
    else:
        _show_alerts(found)
    return _alerts_exit(found, verifiers=sum(e.role == "verifier" for e in folder.network().roles))


async def _newest_alerts(caller: VerifierCaller) -> tuple[AlertStatement, ...]:
    """The last ``ALERTS_SHOWN`` of what a verifier has written down, oldest first."""
    newest: deque[AlertStatement] = deque(maxlen=ALERTS_SHOWN)
    for _ in range(PAGES_MAX):
        page = (await caller.alerts(newest[-1].number if newest else 0)).alerts
        if not page:
            break
        newest.extend(page)
    return tuple(newest)


def _alerts_exit(found: AllAlerts, *, verifiers: int) -> int:
    """``verifiers``: how many the network has. Who did not answer may have something to say."""
    if any(found.verifiers.values()) or (found.gateway is not None and found.gateway.standings):
        return NO
    return UNABLE if found.gateway is None or len(found.verifiers) < verifiers else DONE


async def _gateway_alerts(folder: Folder) -> AlertList | None:
    url = f"{folder.network().one('gateway').url}{ALERTS_PATH}?limit={ALERTS_SHOWN}"
    try:
        return msgspec.json.decode(await api.get(url), type=AlertList)
    except (UpstreamError, msgspec.MsgspecError):
        return None


def _find(folder: Folder, what: str) -> list[Found]:
    leaves = _leaves(folder, what)

    async def on(verifier: _Verifier) -> list[Found]:
        return [one for leaf in leaves for one in await _on(verifier, leaf)]

    found = [one for each in _ask_all(folder, on) for one in each]
    _check_one(what, found)
    return found


def _check_one(what: str, found: Sequence[Found]) -> None:
    """The beginning of a leaf means one receipt. Raises ConfigError."""
    if not what.startswith("ans_") and len({one.verdict.receipt for one in found}) > 1:
        raise ConfigError(f"{what}: several receipts begin so")


def _leaves(folder: Folder, what: str) -> list[str]:
    """The receipts of an answer, by their leaf hashes; or the one that is named."""
    leaf = what.removesuffix("…")
    if LEAF.fullmatch(leaf):
        return [leaf]
    if not what.startswith("ans_"):
        raise ConfigError(
            f"{what}: is neither an answer's id (ans_…) nor 8 or more digits of a receipt's leaf"
        )
    base_url = folder.network().one("gateway").url
    evidence = decode(asyncio.run(api.evidence(base_url, what)))
    return [receipt_leaf(part.signed.receipt.encode()).hex() for part in evidence.parts]


async def _on(verifier: _Verifier, leaf: str) -> list[Found]:
    try:
        revealed = await verifier.caller.verdict(leaf)
    except UpstreamError as error:
        if error.error_code == NOT_FOUND:
            return []
        if error.error_code == CONFLICT:
            raise ConfigError(f"{leaf}: several receipts begin so") from None
        raise
    found = _open(verifier, revealed.note, revealed.entry)
    if not found.verdict.receipt.startswith(leaf):
        raise VerificationError("a verdict on another receipt than was asked for")
    if found.verdict.result != "fail":
        return [found]
    # What withdraws a verdict is shown with it.
    return _taken_together([found, *await _later(verifier, revealed)])[:1]


async def _later(verifier: _Verifier, revealed: RevealedVerdict) -> list[Found]:
    """What a verifier said of the same receipt after its verdict, however much of others came in
    between: a plant is opened when its planter can."""
    after = revealed.number
    for _ in range(PAGES_MAX):
        page = (await verifier.caller.verdicts(after)).verdicts
        found = [one for one in page if one.receipt == revealed.receipt]
        if found or not page:
            return [_open(verifier, one.note, one.entry) for one in found]
        after = page[-1].number
    return []


def _taken_together(found: Sequence[Found]) -> list[Found]:
    """Each verdict that was withdrawn with what withdraws it, in place of the two."""
    taken_back = {
        (one.verifier, one.verdict.receipt): one.verdict
        for one in found
        if is_withdrawal(one.verdict)
    }
    drawn = {(one.verifier, one.verdict.receipt) for one in found if not is_withdrawal(one.verdict)}
    together: list[Found] = []
    for one in found:
        by = one.verifier, one.verdict.receipt
        if not is_withdrawal(one.verdict):
            together.append(msgspec.structs.replace(one, withdrawal=taken_back.get(by)))
        elif by not in drawn:
            together.append(one)
    return together


def _open(verifier: _Verifier, note: str, entry: int | None) -> Found:
    """A verdict, once the pinned key is known to have signed it."""
    verdict = Verdict.open_note(note.encode(), verifier.key)
    return Found(verifier=verifier.key.name, entry=entry, verdict=verdict, note=note)


@dataclass(frozen=True, slots=True, kw_only=True)
class _DrawTrust:
    """What a draw is held against."""

    policy: Policy | None
    """None: nothing says which log and witnesses count, and draws are not made again."""
    keys: dict[str, VerifierKey]
    """The pinned verifiers', by vkey."""


def _trust_in_draws(folder: Folder) -> _DrawTrust:
    text = trust_of(folder).policy
    pinned = [key.vkey for key in read_keys(folder) if key.role == "verifier"]
    return _DrawTrust(
        policy=None if text is None else Policy.parse(text),
        keys={vkey: VerifierKey.parse(vkey) for vkey in pinned},
    )


async def _recompute(verifier: _Verifier, found: Found, trust: _DrawTrust) -> Found:
    verdict = found.verdict
    bundle = await verifier.caller.bundle(verdict.receipt)
    calibration = await verifier.caller.calibration(verdict.calibration)
    try:
        recomputing.verdict(verdict, bundle, calibration)
        await _draw_again(verifier, verdict, trust)
    except (MalformedError, VerificationError) as error:
        return msgspec.structs.replace(found, recomputed=False, problem=error.message)
    return msgspec.structs.replace(found, recomputed=True)


async def _draw_again(verifier: _Verifier, verdict: Verdict, trust: _DrawTrust) -> None:
    """Hold the draw against the verdict. Raises MalformedError or VerificationError."""
    drawn = verdict.drawn
    if isinstance(drawn, msgspec.UnsetType) or trust.policy is None:
        return
    key = trust.keys.get(drawn.by)
    if key is None:
        raise VerificationError("a verifier that is not pinned drew the receipt")
    try:
        note = await verifier.caller.draw(drawn.draw)
    except UpstreamError as error:
        if error.error_code != NOT_FOUND:
            raise
        raise VerificationError("the verifier does not show the draw") from None
    recomputing.draw(verdict, note, key, trust.policy)


def _ask_all(folder: Folder, ask: Callable[[_Verifier], Awaitable[T]]) -> Sequence[T]:
    """Every verifier of the network, at once. One that does not answer is named, and left out;
    raises only where none answers."""
    network = folder.network()
    pinned = {key.name: key.vkey for key in read_keys(folder) if key.role == "verifier"}
    entries = [entry for entry in network.roles if entry.role == "verifier"]
    if not entries:
        raise ConfigError(f"{folder.network_file}: this network has no verifiers")

    async def all_of_them() -> list[T | Error]:
        transport = HttpTransport()
        try:
            verifiers = [
                _Verifier(
                    name=entry.name,
                    key=VerifierKey.parse(pinned[entry.key]),
                    caller=VerifierCaller(transport, entry.url),
                )
                for entry in entries
            ]
            return await asyncio.gather(*(_quietly(ask(one)) for one in verifiers))
        finally:
            await transport.aclose()

    answers = asyncio.run(all_of_them())
    heard: list[T] = []
    for entry, answer in zip(entries, answers, strict=True):
        if isinstance(answer, ConfigError):
            raise answer
        if isinstance(answer, Error):
            typer.echo(f"{entry.name}: {answer.message}", err=True)
        else:
            heard.append(answer)
    if not heard:
        raise api.NotRunningError("no verifier answers; `trunkline up` starts them")
    return heard


async def _quietly(work: Awaitable[T]) -> T | Error:
    try:
        return await work
    except Error as error:
        return error


def _row(found: Found) -> tuple[str | Text, ...]:
    verdict, standing = found.verdict, found.verdict.standing
    mark, style = MARKS[verdict.result]
    said = f"{mark} {verdict.result}"
    if found.withdrawal is not None:
        style, said, standing = "dim", "· planted", found.withdrawal.standing
    return (
        verdict.receipt[:16] + "…", _when(verdict.unix_ms), found.verifier, verdict.subject.node,
        verdict.subject.model, verdict.regime, Text(said, style=style), standing,
    )  # fmt: skip


def _show(found: Found) -> None:
    out, verdict = console(), found.verdict
    where = "not in the log yet" if found.entry is None else f"entry {found.entry} of the log"
    out.print(Text(f"{found.verifier}, {_when(verdict.unix_ms)}, {where}", style="bold"))
    out.print(
        f"receipt {verdict.receipt}\n{verdict.subject.model} at {verdict.subject.node}; "
        f"{verdict.kind}, regime {verdict.regime}; "
        + ("asked for" if verdict.drawn is msgspec.UNSET else "drawn")
    )
    table = Table(box=None, padding=(0, 1), show_header=False)
    for number, check in enumerate(verdict.checks, start=1):
        mark, style = MARKS[check.result]
        table.add_row(str(number), Text(mark, style), Text(check.name), Text(check.detail))
    out.print(table)
    if found.withdrawal is not None:
        console().print(
            "· planted: the node answered wrongly because a verifier had asked it to. Withdrawn: "
            f"its standing is {found.withdrawal.standing}\n"
        )
    else:
        _show_outcome(verdict)


def _show_outcome(verdict: Verdict) -> None:
    mark, style = MARKS[verdict.result]
    evidence = verdict.evidence
    console().print(Text(f"{mark} this answer: {verdict.result}", style))
    console().print(
        f"  its node's standing: {verdict.standing}; {evidence.samples} samples of "
        f"{evidence.tokens} tokens, wealth {evidence.wealth} (fails at {1 / float(verdict.alpha):g}"
        f"), detector {evidence.detector}\n"
    )


def _show_again(found: Found) -> None:
    verdict = found.verdict
    if found.recomputed:
        console().print(
            Text(
                f"✓ {found.verifier}: {verdict.result}, standing {verdict.standing}, wealth "
                f"{verdict.evidence.wealth} after {verdict.evidence.samples} samples: the same "
                "from the bundle, to the last digit",
                "green",
            )
        )
    else:
        console().print(Text(f"✗ {found.verifier}: {found.problem}", "bold red"))


def _show_alerts(found: AllAlerts) -> None:
    out = console()
    if found.gateway is None:
        out.print(Text("the gateway does not answer", "yellow"))
    else:
        for standing in found.gateway.standings:
            out.print(
                Text(
                    f"{standing.node}, {standing.model}: {standing.standing}, {standing.why}", "red"
                )
            )
        for one in found.gateway.alerts:
            model = f", {one.model}" if one.model else ""
            out.print(f"{_when(one.unix_ms)} {one.code}: {one.node}{model}: {one.why}")
    for name, said in found.verifiers.items():
        for alert in said:
            out.print(f"{_when(alert.unix_ms)} {name}: {alert.kind}: {alert.about}: {alert.detail}")
    nothing = found.gateway is not None and not (found.gateway.alerts or found.gateway.standings)
    if nothing and not any(found.verifiers.values()):
        out.print(Text("nothing", style="dim"))


def _when(unix_ms: int) -> str:
    return f"{datetime.fromtimestamp(unix_ms / 1000, tz=UTC).astimezone():%Y-%m-%d %H:%M:%S}"
