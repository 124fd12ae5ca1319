"""Makes audits: demands, measures, has them judged. What drives the queue, one audit at a time.

Each step is durable before the next begins, so that a crash repeats at most one; and what is
repeated has the same outcome, since an opening is kept as it came and a verdict is stored once.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from trunkline.audit import content as contents
from trunkline.audit import embedding, findings, replay
from trunkline.audit.calibration import Calibration
from trunkline.audit.embedding import Remade
from trunkline.audit.judge import OPENED, Case
from trunkline.audit.nonces import Origin
from trunkline.base.errors import (
    ConfigError,
    ConflictError,
    MalformedError,
    OverloadedError,
    UpstreamError,
    VerificationError,
)
from trunkline.base.ports import Clock
from trunkline.crypto import note as notes
from trunkline.crypto.digest import digest
from trunkline.crypto.keys import VerifierKey
from trunkline.inference.ports import ModelInfo
from trunkline.receipts import Receipt, VerifiedReceipt, verify_signed
from trunkline.receipts import decode as decode_receipt
from trunkline.remote.status import NOT_FOUND
from trunkline.runtime.crash import CrashHook
from trunkline.runtime.logger import Logger
from trunkline.runtime.store import Connection, Database
from trunkline.schema.audit import (
    AskedAudit,
    AskedVerdict,
    NonceProof,
    OpenedContent,
    Opening,
    ShownNonce,
)
from trunkline.tlog.policy import Policy
from trunkline.verdicts import (
    Check,
    Draw,
    Drawn,
    Result,
    SelfTest,
    Subject,
    Verdict,
    opinions,
    too_small,
)
from trunkline.verifier import calibrations, crash, ledger, store
from trunkline.verifier.core.patience import (
    EXCUSABLE,
    Over,
    Patience,
    after_failure,
    excuse,
    why_closed,
)
from trunkline.verifier.demanding import Demander, Failed, KnownNode, check
from trunkline.verifier.embedders import Embedders
from trunkline.verifier.engines import Engines, Measuring
from trunkline.verifier.judging import (
    NOT_OPENED,
    PRIVATE,
    UNREACHED,
    Judge,
    Place,
    Unshown,
    known_subject,
)
from trunkline.verifier.queue import Audit, AuditQueue

IDLE_S_MAX: Final = 1.0
"""Longest pause before the queue is looked at again: other processes put something in too."""
SELF_TEST_S: Final = 600.0
"""How long a node's statement of what its engine computes is believed to hold."""
ORIGINS_MAX: Final = 4
"""Earlier nodes of an answer that are asked whether its seed's nonce was theirs."""
RETRY_MS: Final = 5_000
"""Until an audit that could not be measured is tried again."""
MEASURE_TRIES_MAX: Final = 60
"""After so many tries (five minutes) an answer that can not be scored is judged without."""
SELF_TEST_TRIES_MAX: Final = 12
"""After so many tries, a node that has no self-test ready is judged by statistics."""
NOT_EXACT: Final = "engine_not_exact"
"""What an engine says whose arithmetic is nobody else's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Looked:
    """What the verifier's model made of an opening."""

    calibration: Calibration
    measured: replay.Measured | None = None
    remade: Remade | None = None
    context_tokens: int = 0


class Auditor:
    """One process's work on the queue."""

    def __init__(
        self,
        database: Database,
        work: AuditQueue,
        demander: Demander,
        engines: Engines,
        embedders: Embedders,
        judge: Judge,
        *,
        nodes: Mapping[str, KnownNode],
        verifiers: Mapping[str, str],
        key: VerifierKey,
        policy: Policy,
        opinions_count: int,
        known: tuple[Calibration, ...],
        patience: Patience,
        keep_s: float,
        clock: Clock,
        logger: Logger,
        reach: CrashHook,
    ) -> None:
        """``nodes`` by vkey; ``verifiers``: the operator of each by its key's name, this one's
        included; ``key``: this one's; ``keep_s``: how often an audit in progress is held on to."""
        self._database = database
        self._queue = work
        self._demander = demander
        self._engines = engines
        self._embedders = embedders
        self._judge = judge
        self._nodes = nodes
        self._verifiers = verifiers
        self._name = key.name
        self._key = str(key)
        self._policy = policy
        self._opinions = opinions_count
        self._known = known
        self._patience = patience
        self._keep_s = keep_s
        self._clock = clock
        self._logger = logger
        self._reach = reach
        self._tests: dict[str, tuple[float, SelfTest | None]] = {}
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
        finally:
            held.cancel()
            await asyncio.gather(held, return_exceptions=True)
            line.emit()

    async def _hold(self, audit: Audit) -> None:
        """Keep it while it takes longer than a lease: engines start slowly, and take turns."""
        while True:
            await asyncio.sleep(self._keep_s)
            await self._queue.keep(audit)

    async def _later(self, audit: Audit, code: str) -> None:
        try:
            await self._queue.put_off(
                audit,
                due_ms=self._clock.unix_ms() + RETRY_MS,
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
        node = self._nodes[audit.node]
        place = _place(audit)
        receipt = check(opening, audit, node.key)
        if receipt is None:
            return await self._settle(audit, PRIVATE, leaf=opening.leaf)
        if not self._ours(audit, receipt.leaf):
            await self._queue.drop(audit)
            return "others"
        case = await self._case(
            node,
            receipt,
            opening.content,
            why_closed(receipt.receipt, opening.reason, self._clock.unix_ms(), keep_s=terms.keep_s),
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
            draw.randomness(),
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
            drawn_otherwise=await self._database.read(lambda c: _drawn_otherwise(c, audit, draw)),
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

    async def _case(
        self,
        node: KnownNode,
        verified: VerifiedReceipt,
        content: OpenedContent | None,
        reason: str,
        place: Place,
        *,
        patient: bool = False,
        measurable: bool = True,
    ) -> Case:
        """``patient``: a node that has no self-test yet is waited for, by an UpstreamError.
        ``measurable``: the model is asked; it has not failed too often."""
        receipt = verified.receipt
        looked = await self._look(node, receipt, content if measurable else None, patient=patient)
        shown: NonceProof | ShownNonce | None = None if content is None else content.nonce
        origin = None
        if content is not None and place.drawn is not None:
            origin = await self._nonce_origin(receipt)
        if origin is not None:
            shown = origin.shown
        nonces_entry = None
        if shown is not None:
            noted = digest(shown.note.encode())
            nonces_entry = await self._database.read(lambda c: _entry_of(c, noted))
        return Case(
            receipt=receipt,
            leaf=verified.leaf,
            key=node.key,
            calibration=looked.calibration,
            content=content,
            reason=reason,
            measured=looked.measured,
            remade=looked.remade,
            context_tokens=looked.context_tokens,
            nonces_entry=nonces_entry,
            nonce_origin=origin,
            entry=None if place.drawn is None else place.drawn.entry,
        )

    async def _nonce_origin(self, receipt: Receipt) -> Origin | None:
        """What the node that began a taken-over answer shows of its nonce, if it can be asked."""
        said = receipt.sampling
        if said.source != "inherited" or not said.nonces:
            return None
        known = {node.key.name: node for node in self._nodes.values()}
        for name in list(dict.fromkeys(before.node for before in receipt.route))[:ORIGINS_MAX]:
            if name not in known:
                continue
            try:
                shown = await known[name].caller.nonce(said.nonces, said.nonce_index)
            except UpstreamError:
                continue
            return Origin(key=known[name].key, shown=shown)
        return None

    async def _look(
        self, node: KnownNode, receipt: Receipt, content: OpenedContent | None, *, patient: bool
    ) -> _Looked:
        """Ask the model that the receipt names, where it is here and there is something to ask."""
        scored = content is not None and bool(receipt.model.weights) and receipt.policy.audit
        if content is None or not scored:
            return _Looked(calibration=self._unmeasured(receipt))
        if embedding.is_embedding(receipt):
            return await self._remake(receipt, content)
        async with self._engines.of(receipt.model.weights) as scorer:
            if scorer is None:
                return _Looked(calibration=self._unmeasured(receipt))
            info = await scorer.model()
            calibration = await self._calibration(node, receipt, scorer, info, patient=patient)
            context = await self._context_tokens(node, receipt)
            measured = await replay.measure(receipt, content, scorer, context_tokens=context)
            return _Looked(measured=measured, calibration=calibration, context_tokens=context)

    async def _remake(self, receipt: Receipt, content: OpenedContent) -> _Looked:
        """Embed what the receipt's node has embedded. Exact where both compute the same bits."""
        remade = await self._embedders.remake(receipt, content)
        if remade is None or remade.model is None:
            return _Looked(calibration=self._unmeasured(receipt))
        theirs, ours = receipt.model.numerics, remade.model.numerics
        calibration = calibrations.choose(
            self._known,
            regime="exact" if theirs == ours else "noisy",
            weights=receipt.model.weights,
            model=receipt.model.served,
            node=theirs,
            verifier=ours,
        )
        return _Looked(calibration=calibration, remade=remade)

    async def _calibration(
        self,
        node: KnownNode,
        receipt: Receipt,
        scorer: Measuring,
        info: ModelInfo,
        *,
        patient: bool,
    ) -> Calibration:
        """What the scores are held against. Exact only where both engines say the same bits."""
        theirs = await self._their_test(node, patient=patient)
        ours = await _bits(scorer)
        if ours:
            await self._judge.say_self_test(info, ours)
        exact = (
            theirs is not None
            and theirs.numerics == receipt.model.numerics == info.numerics
            and (theirs.weights, theirs.bits) == (info.weights_digest, ours)
        )
        return calibrations.choose(
            self._known,
            regime="exact" if exact else "noisy",
            weights=info.weights_digest,
            model=receipt.model.served,
            node=receipt.model.numerics,
            verifier=info.numerics,
        )

    async def _their_test(self, node: KnownNode, *, patient: bool) -> SelfTest | None:
        """What the node says that its engine computes, signed by it; None: it does not say."""
        vkey = str(node.key)
        kept = self._tests.get(vkey)
        now_s = self._clock.monotonic_s()
        if kept is not None and kept[1] is not None and now_s - kept[0] < SELF_TEST_S:
            return kept[1]
        try:
            note = await node.caller.self_test()
            test = SelfTest.open_note(note, node.key)
        except UpstreamError as error:
            if patient and error.error_code != NOT_FOUND:
                raise
            test = None
        except (MalformedError, VerificationError):
            test = None
        self._tests[vkey] = (now_s, test)
        return test

    async def _context_tokens(self, node: KnownNode, receipt: Receipt) -> int:
        """Of the node's engine, as it says; 0 where it does not."""
        try:
            served = (await node.caller.info()).models
        except UpstreamError:
            return 0
        sizes = [one.context_tokens for one in served if one.name == receipt.model.served]
        return (sizes[0] or 0) if sizes else 0

    def _unmeasured(self, receipt: Receipt) -> Calibration:
        return calibrations.choose(
            (),
            regime="noisy",
            weights=receipt.model.weights,
            model=receipt.model.served,
            node=receipt.model.numerics,
            verifier="",
        )

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
        found = await self._database.read(
            lambda c: ledger.at_place(c, place.root, place.position, picked=place.picked)
        )
        if found is None:
            if not _was_sent(verified.receipt, asked.content):
                # Before any work for it: else whoever has one receipt could have anything scored.
                return AskedVerdict(result="inconclusive", reason="not_bound")
            content = await self._with_prompt(verified.receipt, asked.content)
            case = await self._case(node, verified, content, "", place)
            if not _is_bound(case):
                return AskedVerdict(result="inconclusive", reason="not_bound")
            if case.measured is None and case.remade is None:
                return AskedVerdict(result="inconclusive", reason="unknown_model")
            found = await self._judge.settle(case, place, None)
        note, public = found
        # What is kept back from other verifiers is told to its asker alone: the result, unsigned.
        return AskedVerdict(result=_result(note), note=note.decode() if public else "")

    async def _with_prompt(self, receipt: Receipt, content: OpenedContent) -> OpenedContent:
        """A caller has no rendered prompt: the verifier's own, which the receipt binds or not."""
        if content.prompt or embedding.is_embedding(receipt):
            return content
        async with self._engines.of(receipt.model.weights) as scorer:
            if scorer is None:
                return content
            rendered = await replay.rendered(receipt, content, scorer)
        return content if rendered is None else msgspec.structs.replace(content, prompt=rendered)


async def _bits(scorer: Measuring) -> str:
    """What the verifier's own engine computes; empty where it can not say so."""
    try:
        return await scorer.self_test()
    except UpstreamError as error:
        if error.error_code == NOT_EXACT:
            return ""
        raise


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
    """Whether the log has another draw by the same verifier from the same entry."""
    others = store.draws_after(connection, draw.key, audit.entry)
    return any(
        other != audit.draw and Draw.parse(_text(other)).from_ <= audit.entry for other in others
    )


def _entry_of(connection: Connection, noted: str) -> int | None:
    """Where the log has a commitment to nonces, by its digest."""
    row = connection.execute("SELECT entry FROM nonces WHERE digest = ?", (noted,)).fetchone()
    return None if row is None else int(row[0])
