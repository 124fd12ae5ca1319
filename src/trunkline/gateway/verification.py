"""Hears the verifiers that the routing policy names, and holds what follows for routing.

Each is asked for its new verdicts all the time, by long polls. A verdict counts once the pinned key
is shown to have signed it, at a time that has come, and its subject is a node of this gateway, and
only after it is durable; it does more than demote once the log is proved to have it. What verdicts
come to is decided in ``core.standing``; here it takes effect at once, is stored, and is told.
Beside the answers, never in their way: with every verifier away, standings stay as they are and
calls go on.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from trunkline.base.errors import BadResponseError, Error, MalformedError, VerificationError
from trunkline.base.ports import Clock
from trunkline.crypto.digest import sha256
from trunkline.crypto.keys import VerifierKey
from trunkline.gateway.core.demands import Verification, VerifierPolicy
from trunkline.gateway.core.plants import PLANTS_MAX, PlantBook
from trunkline.gateway.core.policy import RoutingPolicy
from trunkline.gateway.core.standing import (
    Board,
    Dispute,
    Level,
    NodeStanding,
    Place,
    is_early,
)
from trunkline.gateway.evidence import Prover
from trunkline.gateway.verdict_proofs import VerdictProofs
from trunkline.gateway.verdict_store import Alert, Conclusion, VerdictRow, VerdictStore
from trunkline.gateway.webhook import Webhook
from trunkline.runtime.logger import Logger
from trunkline.schema.audit import AskedAudit, AskedVerdict, RevealedVerdict, VerdictPage
from trunkline.tlog import proof as tlog_proof
from trunkline.verdicts import (
    Commitment,
    Known,
    Logged,
    Plant,
    PlantOpening,
    Tried,
    Verdict,
    check_reveal,
    open_plant,
)

WAIT_S: Final = 20
"""How long a verifier may hold a poll until there is something new."""
SLACK_S: Final = 10.0
PAUSE_S: Final = 0.2
"""Between two polls that brought nothing and did not wait either; doubles while a verifier can not
be reached, up to the longest."""
PAUSE_S_MAX: Final = 5.0
LOOK_S: Final = 0.5
"""Between two looks at the routing policy."""
PRUNE_EVERY: Final = 1000
"""Verdicts heard between two looks for too many."""
NOTHING: Final = Verification()


class VerifierCalls(Protocol):
    """One verifier, as far as it matters here. Nothing that it says is verified yet."""

    async def verdicts(self, after: int, wait_s: float) -> VerdictPage:
        """What it revealed after number ``after``; waits that long where there is nothing."""
        ...

    async def audit(self, asked: AskedAudit, timeout_s: float) -> AskedVerdict:
        """Its verdict on an answer that the caller opens."""
        ...


class VerifierStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a verifier is."""

    name: str
    operator: str
    url: str
    reachable: bool
    error: str
    """Stable code of why the last poll failed; empty: it did not."""
    heard: int
    """Number of its newest verdict that was heard."""
    heard_ms: int
    """Unix milliseconds when it last answered; 0: not since the start."""
    counts: bool = True
    """False: it missed plants, and what it says does not count."""


class _Verifier:
    """One verifier of the policy, and the task that hears it."""

    def __init__(self, policy: VerifierPolicy, calls: VerifierCalls, heard: int) -> None:
        self.policy = policy
        self.key = policy.key
        self.calls = calls
        self.heard = heard
        self.reachable = False
        self.error = ""
        self.heard_ms = 0
        self.task: asyncio.Task[None] | None = None


class Verdicts:
    """What was heard, and what stands. ``start`` it, ``stop`` it."""

    def __init__(
        self,
        store: VerdictStore,
        webhook: Webhook,
        nodes: Mapping[str, str],
        names: Collection[str],
        policy: Callable[[], RoutingPolicy],
        calls: Callable[[str], VerifierCalls],
        prover: Prover,
        *,
        settled: Callable[[], Awaitable[None]],
        clock: Clock,
        logger: Logger,
    ) -> None:
        """``names``: of all nodes there are; ``nodes``: the same by vkey, as far as they have been
        heard of; of several keys of one node the last is the newest. ``calls``: a verifier by its
        URL. ``settled``: waits until the nodes were asked once, though not for long."""
        self._proofs = VerdictProofs(store, prover, self._proved, logger=logger)
        self._store = store
        self._webhook = webhook
        self._nodes = nodes
        self._names = names
        self._settled = settled
        self._policy = policy
        self._calls = calls
        self._clock = clock
        self._logger = logger
        self._board = Board()
        self._plants = PlantBook()
        self._silenced: dict[str, Tried] = {}
        self._verifiers: dict[VerifierPolicy, _Verifier] = {}
        self._heard: dict[str, int] = {}
        self._verification: Verification | None = None
        self._standings: dict[tuple[str, str], NodeStanding] = {}
        """By the node's key name and the model."""
        self._concluded: dict[Place, str] = {}
        self._disputed: set[str] = set()
        self._known = 0
        """Keys of nodes that were known when what stands was last looked at."""
        self._settling = asyncio.Lock()
        self._unpruned = 0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Compute again what stands, and begin to hear the verifiers."""
        self._heard = await self._store.heard()
        self._concluded = await self._store.standings()
        now_ms = self._clock.unix_ms()
        for row in await self._store.all():
            verdict = _stored(row)
            if not is_early(verdict, now_ms):
                self._board.hear(verdict, row.digest, logged=_places(row))
                self._plants.hear(verdict, row.digest)
        for receipt, note in await self._store.plants():
            self._plants.open(_stored_plant(receipt, note))
        await self._configure()
        self._webhook.start()
        self._task = asyncio.create_task(self._watch(), name="verification")

    async def stop(self) -> None:
        """Stop hearing them. What stands is in the store."""
        tasks = [one.task for one in self._verifiers.values() if one.task is not None]
        if self._task is not None:
            tasks.append(self._task)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._proofs.stop()
        await self._webhook.stop()

    def standing(self, node: str, model: str) -> NodeStanding | None:
        """What is held against a model at the node of this key name; None: nothing."""
        return self._standings.get((node, model))

    def standings(self) -> Mapping[tuple[str, str], NodeStanding]:
        """Everything that stands, by key name and model."""
        return self._standings

    def codes(self, models: Iterable[str]) -> str:
        """What a caller of these models is told in a header; empty: nothing stands."""
        names = frozenset(models)
        levels = {found.level for (_, model), found in self._standings.items() if model in names}
        return ", ".join(f"node_{level.word}" for level in sorted(levels, reverse=True))

    def status(self) -> tuple[VerifierStatus, ...]:
        """Every verifier of the policy."""
        return tuple(
            VerifierStatus(
                name=one.key.name,
                operator=one.policy.operator,
                url=one.policy.url,
                reachable=one.reachable,
                error=one.error,
                heard=one.heard,
                heard_ms=one.heard_ms,
                counts=one.policy.vkey not in self._silenced,
            )
            for one in self._verifiers.values()
        )

    def asked(self) -> tuple[tuple[VerifierPolicy, VerifierCalls], ...]:
        """Whom to ask for a verdict before an answer is shown."""
        return tuple(
            (one.policy, one.calls)
            for one in self._verifiers.values()
            if one.policy.vkey not in self._silenced
        )

    async def told(self, verifier: VerifierPolicy, note: str) -> Verdict:
        """A verdict that was asked for: it counts as one that was heard. Raises
        :class:`MalformedError` or a :class:`VerificationError`."""
        verdict, row = self._open(verifier, note)
        await self._keep([(verdict, row)], verifier.vkey, None)
        return verdict

    # Hearing.

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            if self._policy().verification != self._verification or self._known < len(self._nodes):
                try:
                    await self._configure()
                except Exception as error:  # noqa: BLE001 - it must go on for as long as we do
                    self._logger.crashed("verification.failed", error)

    async def _configure(self) -> None:
        """Take over what the routing policy says now."""
        verification, self._known = self._policy().verification, len(self._nodes)
        self._verification = verification
        wanted = (verification or NOTHING).verifiers
        for gone in [policy for policy in self._verifiers if policy not in wanted]:
            verifier = self._verifiers.pop(gone)
            if verifier.task is not None:
                verifier.task.cancel()
        for policy in wanted:
            if policy not in self._verifiers:
                heard = self._heard.get(policy.vkey, 0)
                verifier = _Verifier(policy, self._calls(policy.url), heard)
                self._verifiers[policy] = verifier
                verifier.task = asyncio.create_task(
                    self._follow(verifier), name=f"verdicts.{verifier.key.name}"
                )
        await self._settle()

    async def _follow(self, verifier: _Verifier) -> None:
        # What is about a key that was not heard of yet would be taken for another gateway's.
        await self._settled()
        failures = 0
        while True:
            began_s = self._clock.monotonic_s()
            try:
                heard = await self._poll(verifier)
                failures = 0
            except (Error, TimeoutError) as error:
                heard, failures = 0, failures + 1
                code = error.error_code if isinstance(error, Error) else "upstream_timeout"
                self._lost(verifier, code)
            except Exception as error:  # noqa: BLE001 - one verifier must not end the others
                heard, failures = 0, failures + 1
                self._logger.crashed("verdicts.failed", error, verifier=verifier.key.name)
                self._lost(verifier, "internal_error")
            # Who answers at once with nothing is not asked at once again.
            if failures or (not heard and self._clock.monotonic_s() - began_s < PAUSE_S):
                await asyncio.sleep(min(PAUSE_S * 2.0 ** min(failures, 16), PAUSE_S_MAX))

    async def _poll(self, verifier: _Verifier) -> int:
        """One page. Returns how many verdicts it had. Raises an :class:`Error`."""
        async with asyncio.timeout(WAIT_S + SLACK_S):
            page = await verifier.calls.verdicts(verifier.heard, WAIT_S)
        if page.newest < verifier.heard:
            # It lost what it had said. What was heard of it stays; it is heard from the beginning.
            self._logger.warning("verifier.restarted", verifier=verifier.key.name)
            verifier.heard = 0
        elif page.verdicts:
            numbers = [one.number for one in page.verdicts]
            if numbers != list(range(verifier.heard + 1, verifier.heard + 1 + len(numbers))):
                raise BadResponseError("the verifier's verdicts are not numbered one by one")
            found = [row for one in page.verdicts for row in self._believed(verifier.policy, one)]
            await self._keep_plants([one.plant for one in page.verdicts if one.plant])
            await self._keep(found, verifier.policy.vkey, numbers[-1])
            verifier.heard = self._heard[verifier.policy.vkey] = numbers[-1]
        if not verifier.reachable:
            self._logger.info("verifier.found", verifier=verifier.key.name)
        verifier.reachable, verifier.error = True, ""
        verifier.heard_ms = self._clock.unix_ms()
        return len(page.verdicts)

    def _lost(self, verifier: _Verifier, code: str) -> None:
        if verifier.reachable or not verifier.error:
            self._logger.warning("verifier.lost", verifier=verifier.key.name, error=code)
        verifier.reachable, verifier.error = False, code

    def _believed(
        self, policy: VerifierPolicy, revealed: RevealedVerdict
    ) -> list[tuple[Verdict, VerdictRow]]:
        """The verdict, if it counts. One that does not must not hide those after it."""
        try:
            verdict, row = self._open(policy, revealed.note)
            bound = _commitment(policy, verdict, revealed)
            return [(verdict, msgspec.structs.replace(row, commitment=bound))]
        except (MalformedError, VerificationError) as error:
            self._logger.warning(
                "verdict.refused",
                verifier=policy.key.name,
                number=revealed.number,
                error=error.error_code,
            )
            return []

    def _open(self, policy: VerifierPolicy, note: str) -> tuple[Verdict, VerdictRow]:
        data = note.encode()
        verdict = Verdict.open_note(data, policy.key)
        subject = verdict.subject
        if self._nodes.get(subject.key) != subject.node:
            raise VerificationError(
                "the verdict is about no node of this gateway", code="foreign_verdict"
            )
        if is_early(verdict, self._clock.unix_ms()):
            # Its verifier could not take it back before that time.
            raise VerificationError(
                "the verdict's time is ahead of this gateway's clock", code="verdict_early"
            )
        row = VerdictRow(
            digest=sha256(data).hex(), verifier=policy.vkey, receipt=verdict.receipt, note=note
        )
        return verdict, row

    async def _keep_plants(self, notes: Sequence[str]) -> None:
        plants = {plant.receipt: (plant, note) for note in notes for plant in self._opened(note)}
        if plants:
            notes_by = {receipt: note for receipt, (_, note) in plants.items()}
            await self._store.add_plants(notes_by, PLANTS_MAX)
            for plant, _ in plants.values():
                self._plants.open(plant)

    def _opened(self, note: str) -> list[Known]:
        """What opens a plant, if a verifier of the policy planted it at a node of this gateway."""
        verifiers = (self._policy().verification or NOTHING).verifiers
        try:
            nodes = [VerifierKey.parse(vkey) for vkey in self._nodes]
            return [Known.of(open_plant(note.encode(), [one.key for one in verifiers], nodes))]
        except (MalformedError, VerificationError) as error:
            self._logger.warning("plant.refused", error=error.error_code)
            return []

    # What follows.

    async def _keep(
        self, found: list[tuple[Verdict, VerdictRow]], vkey: str, heard: int | None
    ) -> None:
        await self._store.add([row for _, row in found], vkey, heard)
        # A crash before this: at the next start they are read from the store.
        for verdict, row in found:
            self._board.hear(verdict, row.digest)
            self._plants.hear(verdict, row.digest)
        if found:
            await self._settle()
            self._unpruned += len(found)
        if self._unpruned >= PRUNE_EVERY:
            self._unpruned = 0
            await self._store.prune(self._board.support() | self._plants.support())

    async def _proved(self, row: VerdictRow) -> None:
        """The log has this verdict, by a proof that is stored."""
        self._board.hear(_stored(row), row.digest, logged=_places(row))
        await self._settle()

    async def _settle(self) -> None:
        """Let what stands now take effect, and put on record what is new of it."""
        async with self._settling:
            verification = self._verification or NOTHING
            silenced = self._silence(verification)
            self._proofs.want(self._board.unproved(verification))
            now_ms = self._clock.unix_ms()
            found = self._board.standings(verification)
            self._standings = self._in_force(found)
            changed = [
                _changed(place, found.get(place), self._name(place[0]) or "", now_ms)
                for place in sorted({*found, *self._concluded})
                if _word(found.get(place)) != self._concluded.get(place, "good")
            ]
            disputed = self._board.disputes(verification)
            disputes = self._disputes(disputed, now_ms)
            if not changed and not disputes and not silenced:
                return
            # A crash before this is durable: it is concluded again at the next start.
            enqueue = None if verification.webhook is None else self._webhook.enqueue
            await self._store.conclude([*changed, *disputes, *silenced], enqueue)
            self._concluded = {place: _word(standing) for place, standing in found.items()}
            self._disputed = {each.receipt for each in disputed}
            for conclusion in (*changed, *disputes, *silenced):
                self._said(conclusion.alert)

    def _silence(self, verification: Verification) -> list[Conclusion]:
        """Take no notice of verifiers that missed plants. What is new of that."""
        operators = {one.vkey: one.operator for one in verification.verifiers}
        before = self._silenced
        self._silenced = self._plants.silenced(operators, lambda vkey: self._name(vkey) is not None)
        self._board.silence(frozenset(self._silenced))
        now_ms = self._clock.unix_ms()
        return [
            _silent(vkey, tried, now_ms)
            for vkey, tried in self._silenced.items()
            if vkey not in before
        ]

    def _in_force(self, found: Mapping[Place, NodeStanding]) -> dict[tuple[str, str], NodeStanding]:
        """By the node's name. What stands against a key that the node has no more only demotes,
        until its verifiers find the new one good: it must not be got rid of by another key."""
        newest = {name: key for key, name in self._nodes.items()}
        standings: dict[tuple[str, str], NodeStanding] = {}
        for (key, model), standing in sorted(found.items()):
            name = self._name(key)
            if name is None:
                continue
            if newest.get(name, key) != key:
                level = min(standing.level, Level.DEMOTED)
                standing = msgspec.structs.replace(standing, level=level)
            before = standings.get((name, model))
            if before is None or before.level < standing.level:
                standings[name, model] = standing
        return standings

    def _name(self, vkey: str) -> str | None:
        """The node of a key that it has, or had before this gateway started."""
        name = vkey.partition("+")[0]
        return name if name in self._names else None

    def _disputes(self, disputed: Iterable[Dispute], now_ms: int) -> list[Conclusion]:
        """Those of the disputes that this process has not seen before."""
        return [
            Conclusion(
                alert=Alert(
                    unix_ms=now_ms,
                    code="verdicts_disputed",
                    node=self._nodes.get(each.place[0], ""),
                    model=each.place[1],
                    standing=_word(
                        self._standings.get((self._nodes[each.place[0]], each.place[1]))
                    ),
                    why="verifiers contradict each other about an answer",
                    by=each.by,
                    receipt=each.receipt,
                    verdicts=each.verdicts,
                ),
                place=each.place,
                once=f"dispute {each.receipt}",
            )
            for each in disputed
            if each.receipt not in self._disputed and each.place[0] in self._nodes
        ]

    def _said(self, alert: Alert) -> None:
        tell = self._logger.info if alert.code == "node_restored" else self._logger.warning
        tell(
            f"{alert.code.replace('_', '.', 1)}",
            node=alert.node,
            model=alert.model,
            reason=alert.why,
            verifiers=", ".join(alert.by),
        )


def _stored(row: VerdictRow) -> Verdict:
    """A verdict that was verified before it was stored."""
    return Verdict.parse(_text(row.note))


def _places(row: VerdictRow) -> Logged | None:
    """Where the log has a verdict and what bound its verifier to it, as far as that is proved; the
    verdict itself did, if nothing did before."""
    if row.proof is None or (row.commitment and row.committed is None):
        return None
    revealed = tlog_proof.parse(row.proof.encode()).index
    committed = revealed if row.committed is None else min(row.committed, revealed)
    return Logged(committed=committed, revealed=revealed)


def _commitment(policy: VerifierPolicy, verdict: Verdict, revealed: RevealedVerdict) -> str:
    """What bound a verifier to a verdict; empty: nothing that it shows. It counts without."""
    note = revealed.commitment.encode()
    try:
        check_reveal(Commitment.open_note(note, policy.key), verdict, revealed.note.encode())
    except (MalformedError, VerificationError):
        return ""
    return revealed.commitment


def _stored_plant(receipt: str, note: str) -> Known:
    """A plant that was verified before it was stored: by a key that may not count any more, of a
    node that may not have been heard of yet."""
    plant = Plant.parse(_text(PlantOpening.parse(_text(note)).plant))
    return Known(receipt=receipt, expect=plant.expect, planter=plant.key, node=plant.node)


def _text(note: str) -> bytes:
    text, _, _ = note.encode().rpartition(b"\n\n")
    return text + b"\n"


def _word(standing: NodeStanding | None) -> str:
    return (Level.GOOD if standing is None else standing.level).word


def _silent(vkey: str, tried: Tried, now_ms: int) -> Conclusion:
    found_by = {by for one in tried.missed for by in one.found_by}
    return Conclusion(
        alert=Alert(
            unix_ms=now_ms,
            code="verifier_silenced",
            node=vkey.partition("+")[0],
            model="",
            standing="",
            why=f"its verdicts do not count: it missed {len(tried.missed)} planted answers",
            by=tuple(sorted(by.partition("+")[0] for by in found_by)),
            receipt=tried.missed[-1].receipt,
        ),
        place=(vkey, ""),
        once=f"silenced {vkey}",
    )


def _changed(place: Place, standing: NodeStanding | None, node: str, now_ms: int) -> Conclusion:
    word = _word(standing)
    return Conclusion(
        alert=Alert(
            unix_ms=now_ms,
            code="node_restored" if standing is None else f"node_{word}",
            node=node,
            model=place[1],
            standing=word,
            why="nothing stands against it any more" if standing is None else standing.why,
            by=() if standing is None else standing.by,
            verdicts=() if standing is None else standing.verdicts,
        ),
        place=place,
    )
