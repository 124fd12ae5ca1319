"""From what was measured to a stored verdict: judged and signed in one transaction.

Scoring is slow and may be done twice; judging is a function of what was scored and of all evidence
before it, so it happens where that evidence is read and written. The verdict's bytes are stored
with it and never made again: no crash can bring about a second, different one.
"""

from dataclasses import replace
from typing import Final

import msgspec

from trunkline.audit import bundle as bundles
from trunkline.audit import findings, novelty, repeated, standing
from trunkline.audit.calibration import Calibration, decode, encode
from trunkline.audit.judge import OPENED, Case, Judged, about, judge
from trunkline.base.errors import require
from trunkline.base.ports import Clock, Randomness
from trunkline.crypto.digest import digest, sha256
from trunkline.crypto.signer import Signer, sign_note
from trunkline.engine.about import ENGINE, processor
from trunkline.inference.ports import ModelInfo
from trunkline.receipts import Receipt
from trunkline.runtime.crash import CrashHook
from trunkline.runtime.store import Connection, Database
from trunkline.verdicts import Calibration as Used
from trunkline.verdicts import Check, Drawn, SelfTest, Subject, Verdict, commitment_to
from trunkline.verifier import crash, ledger, queue
from trunkline.verifier.ledger import Stored
from trunkline.verifier.publishing import Publisher

SALT_BYTES: Final = 32
_HANDED_ON: Final = "inherited "
"""Before the vkey of a node that took a nonce over."""
PLACE_DOMAIN: Final = b"trunkline.place/v1\n"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a receipt is, and why it is looked at."""

    root: bytes
    """Of its batch."""
    position: int
    drawn: Drawn | None
    """None: a caller asked."""
    picked: bool = False
    """That caller is somebody else than this verifier."""

    def stand_in(self) -> str:
        """What stands for the leaf of a receipt that its node does not show, hex."""
        return sha256(PLACE_DOMAIN + self.root + self.position.to_bytes(4, "big")).hex()


class Unshown(msgspec.Struct, frozen=True, kw_only=True):
    """A receipt that its node did not even show."""

    subject: Subject
    """What it would be evidence about, as far as can be told."""
    calibration: Calibration
    """What the subject is held against otherwise."""
    check: Check
    """Why it is not shown."""
    leaf: str = ""
    """Hex; empty where that is not known either."""


NOT_OPENED: Final = findings.failed(OPENED, "the node did not open what it had signed")
CALLED_PRIVATE: Final = findings.failed(
    OPENED, "the node calls private what it had signed may be audited"
)
PRIVATE: Final = findings.not_applicable(OPENED, "the receipt is private")
UNREACHED: Final = findings.inconclusive(OPENED, "the node could not be reached")


class Judge:
    """Signs one verifier's verdicts."""

    def __init__(
        self,
        database: Database,
        signer: Signer,
        publisher: Publisher,
        *,
        operator: str,
        clock: Clock,
        randomness: Randomness,
        reach: CrashHook,
    ) -> None:
        self._database = database
        self._signer = signer
        self._publisher = publisher
        self._operator = operator
        self._clock = clock
        self._randomness = randomness
        self._reach = reach

    async def settle(
        self, what: Case | Unshown, place: Place, audit: queue.Audit | None
    ) -> tuple[bytes, bool]:
        """The signed verdict on a receipt, durable: this one, or the one that there is already; and
        whether it may be told.

        ``audit``: the drawn audit that it ends, which leaves the queue; ConflictError if it was
        lost. None: a caller asked, and is told at once.
        """
        salt = self._randomness.token(SALT_BYTES).hex()
        settled = await self._database.write(lambda c: self._settle(c, what, place, audit, salt))
        self._reach(crash.VERDICT_STORED)
        return settled

    def withdraw(
        self, connection: Connection, what: Unshown, place: Place, state: bytes, salt: str
    ) -> None:
        """Sign and show one more verdict on a receipt, inside the caller's transaction: the
        subject's evidence goes on from ``state`` (``withdrawing``)."""
        connection.execute(
            "UPDATE subjects SET state = ? WHERE subject = ?", (state, subject_name(what.subject))
        )
        self._make(connection, what, place, salt)

    async def say_self_test(self, info: ModelInfo, bits: str) -> None:
        """Sign and log what this verifier's engine computes, unless that was said already."""
        said = SelfTest(
            bits=bits,
            context_tokens=info.context_tokens,
            cpu=processor(),
            engine=ENGINE,
            key=str(self._signer.vkey),
            model=info.name,
            numerics=info.numerics,
            unix_ms=self._clock.unix_ms(),
            weights=info.weights_digest,
        )

        def say(connection: Connection) -> None:
            note = sign_note(said.text(), self._signer)
            stored = connection.execute(
                "INSERT INTO self_tests VALUES (?, ?) ON CONFLICT DO NOTHING",
                (f"{said.weights} {said.numerics} {bits}", note),
            )
            if stored.rowcount == 1:
                self._publisher.statement(connection, note)

        await self._database.write(say)

    def _settle(
        self,
        connection: Connection,
        what: Case | Unshown,
        place: Place,
        audit: queue.Audit | None,
        salt: str,
    ) -> tuple[bytes, bool]:
        if audit is not None:
            queue.leave(connection, audit)
        found = ledger.at_place(connection, place.root, place.position, picked=place.picked)
        if found is None:
            # A receipt has one verdict, at however many places its node has signed it.
            found = ledger.on_receipt(connection, _leaf(what, place), picked=place.picked)
        if found is not None:
            return found
        return self._make(connection, what, place, salt)

    def _make(
        self, connection: Connection, what: Case | Unshown, place: Place, salt: str
    ) -> tuple[bytes, bool]:
        subject = _subject(what)
        before = ledger.subject(connection, subject_name(subject))
        state = self._state(connection, before)
        if isinstance(what, Case):
            made = what.receipt if what.origin is None else what.origin.receipt
            used_by = nonce_user(connection, made)
            again = _again(what, place, state)
            case = replace(
                what,
                nonce_used_by=used_by,
                picked=place.picked,
                counted=ledger.has_counted(connection, subject_name(subject), again),
            )
            judged = judge(case, state)
            note_nonce(connection, made)
            closed = findings.is_closed(judged.checks)
            if again is not None and judged.trials is not None and not closed:
                ledger.note_counted(connection, subject_name(subject), again, _leaf(what, place))
        else:
            judged = _judge_unshown(what, place, state)
        self._keep(connection, what.calibration)
        note = self._sign(what, place, judged, "" if before is None else before.previous, salt)
        verdict = Verdict.open_note(note, self._signer.vkey)
        kept = isinstance(what, Case) and self._tells(connection, subject, place, verdict)
        ledger.insert(
            connection,
            Stored(
                leaf=verdict.receipt,
                picked=place.picked,
                root=place.root,
                position=place.position,
                subject=subject_name(subject),
                result=verdict.result,
                standing=verdict.standing,
                note=note,
                bundle=judged.bundle,
                judged_ms=verdict.unix_ms,
            ),
            standing.encode_state(judged.state),
        )
        if place.drawn is not None:
            self._commit(connection, verdict, note)
            return note, False
        if kept:
            ledger.keep_back(connection, verdict.receipt, picked=place.picked)
            return note, False
        ledger.reveal(connection, self._publisher, verdict.receipt, picked=place.picked)
        return note, True

    def _tells(
        self, connection: Connection, subject: Subject, place: Place, verdict: Verdict
    ) -> bool:
        """Whether the standing in a verdict that was not drawn tells of others that are kept back.
        Who waits for one is kept waiting only where it would say of a sound answer that its node
        has failed: else hardly anybody were told anything of a node that is audited often."""
        if not place.picked:
            return ledger.keeps_back(
                connection, subject_name(subject), verdict.unix_ms, failed=False
            )
        return verdict.result == "pass" and ledger.keeps_back(
            connection, subject_name(subject), verdict.unix_ms, failed=True
        )

    def _sign(
        self, what: Case | Unshown, place: Place, judged: Judged, previous: str, salt: str
    ) -> bytes:
        verdict = Verdict(
            alpha=what.calibration.alpha,
            bundle=digest(judged.bundle),
            calibration=what.calibration.digest,
            checks=judged.checks,
            drawn=msgspec.UNSET if place.drawn is None else place.drawn,
            evidence=judged.evidence,
            key=str(self._signer.vkey),
            kind=judged.kind,
            operator=self._operator,
            previous=previous,
            receipt=_leaf(what, place),
            regime=judged.regime,
            result=judged.result,
            salt=salt,
            standing=judged.standing,
            subject=judged.subject,
            unix_ms=self._clock.unix_ms(),
        )
        return sign_note(verdict.text(), self._signer)

    def _keep(self, connection: Connection, calibration: Calibration) -> None:
        """Store and log a calibration with the first verdict that uses it."""
        artefact = encode(calibration)
        stored = connection.execute(
            "INSERT INTO calibrations VALUES (?, ?) ON CONFLICT DO NOTHING",
            (calibration.digest, artefact),
        )
        if stored.rowcount == 1:
            said = Used(
                artefact=artefact.decode(),
                digest=calibration.digest,
                key=str(self._signer.vkey),
                operator=self._operator,
                unix_ms=self._clock.unix_ms(),
            )
            self._publisher.statement(connection, sign_note(said.text(), self._signer))

    def _commit(self, connection: Connection, verdict: Verdict, note: bytes) -> None:
        commitment = sign_note(commitment_to(verdict, note).text(), self._signer)
        self._publisher.commitment(connection, verdict.receipt, commitment)

    def _state(
        self, connection: Connection, before: ledger.SubjectRow | None
    ) -> standing.State | None:
        """The evidence so far, under the calibration that it was held against."""
        if before is None:
            return None
        return standing.decode_state(before.state, _held_against(connection, before.state))


class _Named(msgspec.Struct, frozen=True):
    calibration: str


def _held_against(connection: Connection, state: bytes) -> Calibration:
    """The calibration of a stored state."""
    named = msgspec.json.decode(state, type=_Named).calibration
    artefact = ledger.calibration(connection, named)
    require(artefact is not None, "a calibration that was used was stored")
    return decode(artefact or b"")


def known_subject(
    connection: Connection, vkey: str, model: str, *, weights: str = "", numerics: str = ""
) -> tuple[Subject, Calibration] | None:
    """What a node's model was judged as the most often, and against what; where they are given,
    with these weights and numerics, or a class of such."""
    row = connection.execute(
        "SELECT subject, state FROM subjects WHERE json_extract(subject, '$.key') = ?1 "
        "AND json_extract(subject, '$.model') = ?2 "
        "AND ?3 IN ('', json_extract(subject, '$.weights')) "
        "AND (?4 = '' OR instr(?4, json_extract(subject, '$.numerics')) = 1) "
        "ORDER BY json_extract(subject, '$.configuration') = '', receipts DESC LIMIT 1",
        (vkey, model, weights, numerics),
    ).fetchone()
    if row is None:
        return None
    return msgspec.json.decode(row[0], type=Subject), _held_against(connection, row[1])


def _judge_unshown(what: Unshown, place: Place, before: standing.State | None) -> Judged:
    """Judge a receipt that was not shown: nothing but that is known of it."""
    calibration, check = what.calibration, what.check
    if before is None:
        before = standing.State.start(calibration)
    elif before.calibration != calibration.digest:
        before = standing.adopt(before, calibration)
    after = standing.update(
        before,
        calibration,
        None,
        fault=check.result == "fail",
        closed=findings.is_closed((check,)),
    )
    made = bundles.Bundle(
        calibration=calibration.digest,
        checks=(check,),
        evidence=after.evidence,
        kind="opening",
        picked=False,
        previous=standing.encode_state(before).decode(),
        receipt=_leaf(what, place),
        regime=calibration.regime,
        result=check.result,
        standing=after.standing,
        subject=what.subject,
    )
    return Judged(
        checks=(check,),
        result=check.result,
        kind="opening",
        regime=calibration.regime,
        subject=what.subject,
        trials=None,
        state=after,
        bundle=bundles.encode(made),
    )


def _again(case: Case, place: Place, before: standing.State | None) -> bytes | None:
    """How the same scores would be known again, in evidence that begins where this did; None: they
    count nothing, or always."""
    picked = place.picked or repeated.is_repeated(case.receipt)
    if picked or case.calibration.regime != "noisy":
        return None
    found = novelty.fingerprint(case.receipt, case.content, case.measured)
    begun = f"{case.calibration.digest} {0 if before is None else before.failures}"
    return None if found is None else sha256(found + begun.encode())


def _leaf(what: Case | Unshown, place: Place) -> str:
    if isinstance(what, Case):
        return what.leaf.hex()
    return what.leaf or place.stand_in()


def _subject(what: Case | Unshown) -> Subject:
    if isinstance(what, Unshown):
        return what.subject
    return about(what)


def subject_name(subject: Subject) -> str:
    """How a subject's evidence is found again."""
    return msgspec.json.encode(subject).decode()


def nonce_user(connection: Connection, receipt: Receipt) -> str:
    """The answer that this verifier has seen the receipt's nonce used for; empty: none. What was
    handed on to a node says nothing of the nonces that it used itself: whoever calls it can hand on
    one of its own, for another answer."""
    row = connection.execute(
        "SELECT answer FROM nonce_uses WHERE node IN (?, ?) AND nonce = ? ORDER BY answer = ?",
        (receipt.key, _nonce_taker(receipt), receipt.sampling.node_nonce, receipt.answer),
    ).fetchone()
    return "" if row is None else str(row[0])


def note_nonce(connection: Connection, receipt: Receipt) -> None:
    """Write down that the receipt's nonce was used, if it has one."""
    if receipt.sampling.node_nonce:
        connection.execute(
            "INSERT INTO nonce_uses VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            (_nonce_taker(receipt), receipt.sampling.node_nonce, receipt.answer),
        )


def _nonce_taker(receipt: Receipt) -> str:
    """Under what name the use of a nonce is written down."""
    return f"{_HANDED_ON}{receipt.key}" if receipt.sampling.source == "inherited" else receipt.key
