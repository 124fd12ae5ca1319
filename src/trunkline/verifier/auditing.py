"""Makes audits: demands, has answers measured and judged. What drives the queue, one at a time.

Each step is durable before the next begins, so that a crash repeats at most one; and what is
repeated has the same outcome, since an opening is kept as it came and a verdict is stored once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec

from trunkline.audit import content as contents
from trunkline.audit import embedding, findings
from trunkline.audit.calibration import Calibration
from trunkline.audit.judge import OPENED, OTHER_RULES, Case
from trunkline.base.errors import (
    ConfigError,
    ConflictError,
    CorruptStateError,
    MalformedError,
    OverloadedError,
    UpstreamError,
    VerificationError,
)
from trunkline.base.ports import Clock
from trunkline.crypto import note as notes
from trunkline.crypto.digest import digest
from trunkline.crypto.keys import VerifierKey
from trunkline.receipts import Receipt, receipt_leaf, verify_signed
from trunkline.receipts import decode as decode_receipt
from trunkline.runtime.crash import CrashHook
from trunkline.runtime.logger import Logger
from trunkline.runtime.store import Connection, Database, DiskError
from trunkline.schema.audit import (
    AskedAudit,
    AskedVerdict,
    OpenedContent,
    Opening,
)
from trunkline.tlog.policy import Policy
from trunkline.verdicts import (
    Check,
    Draw,
    Drawn,
    Result,
    Subject,
    Verdict,
    opinions,
    too_small,
)
from trunkline.verifier import calibrations, crash, ledger, queue, store
from trunkline.verifier.cases import Cases
from trunkline.verifier.core.patience import (
    EXCUSABLE,
    Over,
    Patience,
    after_failure,
    excuse,
    is_owed,
    why_closed,
)
from trunkline.verifier.demanding import Demander, Failed, KnownNode, check, is_there
from trunkline.verifier.judging import (
    CALLED_PRIVATE,
    NOT_OPENED,
    PRIVATE,
    UNREACHED,
    Judge,
    Place,
    Unshown,
    known_subject,
)
from trunkline.verifier.queue import Audit, AuditQueue

BATCHES_MIN: Final = 3
"""Batches that show that a node which does not answer a demand is not away."""
IDLE_S_MAX: Final = 1.0
"""Longest pause before the queue is looked at again: other processes put something in too."""
RETRY_MS: Final = 5_000
"""Until an audit that could not be measured is tried again."""
FAILED_MS: Final = 60_000
"""The same of one that a fault of ours has ended; each time twice as long, 16 minutes at most."""
MEASURE_TRIES_MAX: Final = 60
"""After so many tries (five minutes) an answer that can not be scored is judged without."""
SELF_TEST_TRIES_MAX: Final = 48
"""After so many tries (four minutes), a node that has no self-test ready is judged without. One
that is never idle begins it after two minutes."""
KEPT_BACK: Final = AskedVerdict(result="inconclusive", reason="drawn")
"""What was drawn is told to nobody before it is revealed: a verifier that runs no model could ask
another, and be bound to what it was told before that one's verdict is in the log."""


class Auditor:
    """One process's work on the queue."""

    def __init__(
        self,
        database: Database,
        work: AuditQueue,
        demander: Demander,
        cases: Cases,
        judge: Judge,
        *,
        nodes: Mapping[str, KnownNode],
        verifiers: Mapping[str, str],
        key: VerifierKey,
        policy: Policy,
        opinions_count: int,
        known: tuple[Calibration, ...],
        patience: Patience,
        drawn: Callable[[str, bytes, int, int], Awaitable[bool]],
        keep_s: float,
        clock: Clock,
        logger: Logger,
        reach: CrashHook,
    ) -> None:
        """``nodes`` by vkey; ``verifiers``: the operator of each by its key's name, this one's
        included; ``key``: this one's; ``drawn``: whether the receipt at a place of a
        node's (vkey) batch, signed at a time (Unix ms), is, by what the log has now; ``keep_s``:
        how often an audit in progress is held on to."""
        self._database = database
        self._queue = work
        self._demander = demander
        self._cases = cases
        self._judge = judge
        self._nodes = nodes
        self._verifiers = verifiers
        self._name = key.name
        self._key = str(key)
        self._policy = policy
        self._opinions = opinions_count
        self._known = known
        self._patience = patience
        self._drawn = drawn
        self._keep_s = keep_s
        self._clock = clock
        self._logger = logger
        self._reach = reach
        self.wake = asyncio.Event()
        """Set when there may be something to do."""

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            audit = await self._queue.take()
            if audit is None:
                self.wake.clear()
                try:
                    async with asyncio.timeout(IDLE_S_MAX):
                        await self.wake.wait()
                except TimeoutError:
                    pass
                continue
            await self._make(audit)

    async def _make(self, audit: Audit) -> None:
        line = self._logger.line("audit.made", entry=audit.entry, position=audit.position)
        held = asyncio.create_task(self._hold(audit))
        try:
            outcome = await self._advance(audit)
            line.set(outcome=outcome)
        except ConflictError as error:
            # Another process has it: its outcome counts.
            line.failed(error)
        except (UpstreamError, OverloadedError, ConfigError) as error:
            line.failed(error)
            await self._later(audit, error.error_code)
        except (CorruptStateError, DiskError):
            raise
        except Exception as error:  # noqa: BLE001 - what comes from outside must not end all audits
            line.failed(error)
            self._logger.crashed("audit.failed", error, entry=audit.entry, position=audit.position)
            await self._later(audit, "internal_error", after_ms=FAILED_MS << min(audit.attempts, 4))
        finally:
            held.cancel()
            await asyncio.gather(held, return_exceptions=True)
            line.emit()

    async def _hold(self, audit: Audit) -> None:
        """Keep it while it takes longer than a lease: engines start slowly, and take turns."""
        while True:
            await asyncio.sleep(self._keep_s)
            await self._queue.keep(audit)

    async def _later(self, audit: Audit, code: str, *, after_ms: int = RETRY_MS) -> None:
        try:
            await self._queue.put_off(
                audit,
                due_ms=self._clock.unix_ms() + after_ms,
                asked_ms=audit.asked_ms,
                refused=code,
            )
        except ConflictError:
            return

    async def _advance(self, audit: Audit) -> str:
        """Take an audit as far as it goes now; a word for the diagnostics."""
        draw = Draw.parse(_text(audit.draw))
        terms = await self._database.read(lambda c: store.terms_at(c, audit.node, audit.entry))
        why_not = too_small(terms, (self._key, draw.key))
        if terms is None or why_not:
            return await self._settle(audit, findings.not_applicable(findings.TERMS, why_not))
        opening = _decode(audit.opening) if audit.opening is not None else None
        if opening is None:
            found = await self._demander.ask(audit, terms.demands_per_min)
            if isinstance(found, Failed):
                return await self._not_opened(audit, found)
            opening = found
            await self._queue.opened(audit, msgspec.json.encode(opening))
            self._reach(crash.OPENING_STORED)
        node = self._nodes.get(audit.node)
        if node is None:
            # It was configured when it opened this.
            return await self._settle(audit, UNREACHED)
        place = _place(audit)
        receipt = check(opening, audit, node.key)
        batch = await self._database.read(lambda c: store.batch_at(c, audit.entry))
        owed = batch is not None and is_owed(
            audit.position, batch.audited, counts=terms.counts is True
        )
        if receipt is None:
            if batch is None or not is_there(opening, audit, batch.count):
                return await self._settle(audit, NOT_OPENED)
            return await self._settle(audit, CALLED_PRIVATE if owed else PRIVATE, leaf=opening.leaf)
        if not self._ours(audit, receipt.leaf):
            await self._queue.drop(audit)
            return "others"
        if owed and not receipt.receipt.policy.audit:
            return await self._settle(audit, CALLED_PRIVATE, leaf=receipt.leaf.hex())
        case = await self._cases.make(
            node,
            receipt,
            opening.content,
            why_closed(
                receipt.receipt,
                opening.reason,
                self._clock.unix_ms(),
                keep_s=terms.keep_s,
                whole=terms.opens_whole,
            ),
            place,
            patient=audit.attempts < SELF_TEST_TRIES_MAX,
            measurable=audit.attempts < MEASURE_TRIES_MAX,
        )
        self._reach(crash.ANSWER_SCORED)
        note, _ = await self._judge.settle(case, place, audit)
        return _result(note)

    def _ours(self, audit: Audit, leaf: bytes) -> bool:
        """Whether this verifier is among those that give an opinion on it."""
        draw = Draw.parse(_text(audit.draw))
        chosen = opinions(
            draw.chance(audit.entry),
            leaf,
            self._verifiers,
            VerifierKey.parse(draw.key).name,
            self._opinions + audit.third,
        )
        return self._name in chosen

    async def _not_opened(self, audit: Audit, failed: Failed) -> str:
        now_ms = self._clock.unix_ms()
        asked_ms = audit.asked_ms or now_ms
        excused = await self._excuse(audit, failed.code, asked_ms)
        decided = after_failure(
            failed.reason,
            asked_ms=asked_ms,
            attempts=audit.attempts,
            now_ms=now_ms,
            patience=self._patience,
            excused=bool(excused),
            refused_before=audit.refused,
            signing=await self._is_signing(audit, asked_ms),
        )
        if not isinstance(decided, Over):
            await self._queue.put_off(
                audit, due_ms=decided.due_ms, asked_ms=asked_ms, refused=failed.reason
            )
            return f"again ({failed.code or failed.reason})"
        match decided.reason:
            case "withheld":
                return await self._settle(audit, NOT_OPENED)
            case "unreachable":
                return await self._settle(audit, UNREACHED)
            case "excused":
                await self._tell_refused(audit, excused)
                return await self._settle(audit, findings.inconclusive(OPENED, excused))

    async def _is_signing(self, audit: Audit, asked_ms: int) -> bool:
        """Whether the node went on to work for others after it should have opened."""
        since_ms = asked_ms + self._patience.opening_ms
        signed = await self._database.read(lambda c: store.signed_since(c, audit.node, since_ms))
        return signed >= BATCHES_MIN

    async def _settle(self, audit: Audit, why: Check, *, leaf: str = "") -> str:
        """The verdict on a receipt that is not shown."""
        subject, calibration = await self._guessed(audit)
        what = Unshown(subject=subject, calibration=calibration, check=why, leaf=leaf)
        note, _ = await self._judge.settle(what, _place(audit), audit)
        return _result(note)

    async def _excuse(self, audit: Audit, code: str, asked_ms: int) -> str:
        """Why a refusal may be right; empty: it may not."""
        if code not in EXCUSABLE:
            return ""
        draw = Draw.parse(_text(audit.draw))
        witnesses = self._policy.accepts(draw.checkpoint.encode()).witnesses
        return excuse(
            code,
            asked_ms=asked_ms,
            cosigned_ms=1000 * max((at_s for _, at_s in witnesses), default=0),
            drawn_otherwise=draw.key != self._key
            or await self._database.read(lambda c: _drawn_otherwise(c, audit, draw)),
        )

    async def _tell_refused(self, audit: Audit, why: str) -> None:
        def write(connection: Connection) -> None:
            store.alert(
                connection,
                unix_ms=self._clock.unix_ms(),
                kind="refused",
                about=VerifierKey.parse(audit.node).name,
                receipt=_place(audit).stand_in(),
                detail=why,
            )

        await self._database.write(write)

    async def _guessed(self, audit: Audit) -> tuple[Subject, Calibration]:
        """What a receipt that is not shown may be about: what the node says that it serves, as it
        was judged before, so that what is held against it can be won back there."""
        node = self._nodes.get(audit.node)
        key = VerifierKey.parse(audit.node)
        model, weights, numerics = "unknown", "", ""
        if node is not None:
            try:
                served = (await node.caller.info()).models
            except UpstreamError:
                served = ()
            for one in served:
                if one.kind == "chat":
                    model, weights, numerics = one.name, one.weights or "", one.numerics or ""
                    break
        known = await self._database.read(lambda c: known_subject(c, audit.node, model))
        if known is not None:
            return known
        calibration = calibrations.choose(
            self._known,
            regime="exact",
            weights=weights,
            model=model,
            node=numerics,
            verifier=numerics,
        )
        subject = Subject(
            configuration=calibration.parties.configuration,
            key=audit.node,
            model=model,
            node=key.name,
            numerics=numerics,
            operator=node.operator if node is not None else "unknown",
            weights=weights,
        )
        return subject, calibration

    async def asked(self, asked: AskedAudit, *, own: bool = False) -> AskedVerdict:
        """Audit what a caller brings, now. The node is not asked for it. ``own``: this verifier
        had asked the question, so nobody else picked the answer."""
        try:
            vkey = _claimed_key(asked)
            node = self._nodes.get(vkey)
            if node is None:
                return AskedVerdict(result="inconclusive", reason="unknown_node")
            verified = verify_signed(asked.signed, node.key)
        except (MalformedError, VerificationError):
            return AskedVerdict(result="inconclusive", reason="not_bound")
        if not verified.receipt.policy.audit:
            return AskedVerdict(result="not_applicable")
        place = Place(
            root=verified.batch.root, position=asked.signed.index, drawn=None, picked=not own
        )
        if not _was_sent(verified.receipt, asked.content):
            # Before any work for it: else whoever has one receipt could have anything scored. Also
            # where there is a verdict already, which is about what was really sent: who brings
            # something else would take it for one on that.
            return AskedVerdict(result="inconclusive", reason="not_bound")
        found = await self._database.read(
            lambda c: ledger.at_place(c, place.root, place.position, picked=place.picked)
        )
        if found is None:
            leaf = receipt_leaf(asked.signed.receipt.encode()).hex()
            # First: what is drawn from here on, who asks can not have had opened.
            if not own and await self._is_kept_back(vkey, leaf, place, verified.batch.unix_ms):
                return KEPT_BACK
            content = await self._cases.with_prompt(verified.receipt, asked.content)
            case = await self._cases.make(node, verified, content, "", place)
            if not _is_bound(case):
                return AskedVerdict(result="inconclusive", reason="not_bound")
            if case.measured is None and case.remade is None:
                other = case.unmeasured == OTHER_RULES
                reason = "other_rules" if other else "unknown_model"
                return AskedVerdict(result="inconclusive", reason=reason)
            found = await self._judge.settle(case, place, None)
        note, told = found
        if not told and not own:
            return KEPT_BACK
        return AskedVerdict(result=_result(note), note=note.decode() if told else "")

    async def _is_kept_back(self, node: str, leaf: str, place: Place, signed_ms: int) -> bool:
        """Whether a receipt was drawn, and nobody has revealed what its draw has found, or this
        verifier is to find it yet."""
        drawn = await self._drawn(node, place.root, place.position, signed_ms)
        if await self._database.read(lambda c: queue.is_there(c, place.root, place.position)):
            return True
        if not drawn:
            return False
        said = await self._database.read(lambda c: store.said(c, "verdict", leaf))
        return not any(_concludes(one.note) for one in said)


def _concludes(note: bytes) -> bool:
    """Whether a verdict is one that others were kept from: of a draw, and no mere word about it."""
    verdict = Verdict.parse(notes.parse(note).text)
    drawn = not isinstance(verdict.drawn, msgspec.UnsetType)
    return drawn and verdict.result in ("pass", "fail")


def _was_sent(receipt: Receipt, content: OpenedContent) -> bool:
    """Whether the receipt binds what a caller brought, as far as no model is needed to tell."""
    if embedding.is_embedding(receipt):
        return embedding.is_bound(receipt, content)
    opened = contents.open_(receipt, content, None)
    needed = contents.BINDING - {contents.PROMPT}
    return all(one.result == "pass" for one in contents.check(opened) if one.name in needed)


def _is_bound(case: Case) -> bool:
    """Whether the receipt binds what a caller brought as its content. If not, it says nothing about
    the node: anybody can bring something else."""
    if case.content is None:
        return False
    if embedding.is_embedding(case.receipt):
        return embedding.is_bound(case.receipt, case.content)
    opened = contents.open_(case.receipt, case.content, case.measured, case.context_tokens)
    checks = contents.check(opened)
    return all(one.result == "pass" for one in checks if one.name in contents.BINDING)


def _place(audit: Audit) -> Place:
    draw = Draw.parse(_text(audit.draw))
    return Place(
        root=audit.root,
        position=audit.position,
        drawn=Drawn(by=draw.key, draw=digest(audit.draw), entry=audit.entry, index=audit.position),
    )


def _text(note_bytes: bytes) -> bytes:
    """The text of a note that was verified when it was stored."""
    return notes.parse(note_bytes).text


def _decode(data: bytes) -> Opening:
    return msgspec.json.decode(data, type=Opening)


def _result(note_bytes: bytes) -> Result:
    return Verdict.parse(_text(note_bytes)).result


def _claimed_key(asked: AskedAudit) -> str:
    """The key that a receipt says it is signed by; not verified."""
    try:
        return decode_receipt(asked.signed.receipt.encode()).key
    except UnicodeEncodeError:
        raise MalformedError("a receipt that is not Unicode") from None


def _drawn_otherwise(connection: Connection, audit: Audit, draw: Draw) -> bool:
    """Whether the log has another draw by the same verifier from the same entry. That another
    verifier has not shown the node one that is in no log, nobody but those two knows: it is for the
    drawer to find out whether the node tells the truth, since its own draws excuse nothing."""
    return any(one != audit.draw for one in store.draws_from(connection, draw.key, audit.entry))
