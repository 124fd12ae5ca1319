"""What becomes of verdicts on plants: this verifier's are withdrawn, others' are held against them.

``docs/spec/verdict.md``, "Plants". A node that answered wrongly because it was asked to has done
nothing wrong. So the verdict on a known-bad plant is followed by one that says so, and the
subject's evidence goes on as if that answer had never been audited. Both are shown at once. It
withdraws nothing for planters that are not configured, none for the node's own operator, and only
so many in a day: a plot of a planter and a node is no licence.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from trunkline.audit import bundle as bundles
from trunkline.audit import findings, standing
from trunkline.audit.bundle import Bundle
from trunkline.audit.calibration import Calibration, decode
from trunkline.audit.judge import moved
from trunkline.base.errors import CorruptStateError, VerificationError, require
from trunkline.base.ports import Clock, Randomness
from trunkline.crypto import note as notes
from trunkline.crypto.keys import VerifierKey
from trunkline.runtime.store import Connection, Database
from trunkline.verdicts import PLANT_CHECK, Planted, Subject, Verdict, is_withdrawal, open_plant
from trunkline.verifier import ledger, plant_store, showing, store
from trunkline.verifier.judging import SALT_BYTES, Judge, Place, Unshown, subject_name
from trunkline.verifier.publishing import Publisher

PER_DAY_MAX: Final = 100
"""Verdicts withdrawn for one planter's plants at one node in 24 hours; later ones stand."""
DAY_MS: Final = 86_400_000
ROUND: Final = 100
WITHDRAWN: Final = findings.not_applicable(
    PLANT_CHECK, "planted: the node answered wrongly because a verifier had asked it to"
)


class Withdrawer:
    """One verifier's."""

    def __init__(
        self,
        database: Database,
        judge: Judge,
        publisher: Publisher,
        *,
        nodes: Mapping[str, tuple[VerifierKey, str]],
        verifiers: Mapping[str, tuple[VerifierKey, str]],
        clock: Clock,
        randomness: Randomness,
    ) -> None:
        """``nodes`` and ``verifiers``: key and operator by vkey; this verifier's included."""
        self._database = database
        self._judge = judge
        self._publisher = publisher
        self._nodes = nodes
        self._verifiers = verifiers
        self._clock = clock
        self._randomness = randomness

    async def step(self, bounds: ledger.Bounds) -> bool:
        """Conclude what follows from the plants that the log has. Whether there was anything."""
        salts = [self._randomness.token(SALT_BYTES).hex() for _ in range(ROUND)]
        return await self._database.write(lambda c: self._step(c, bounds, salts))

    def _step(self, connection: Connection, bounds: ledger.Bounds, salts: list[str]) -> bool:
        found = store.unseen(connection, "plant", ROUND)
        for one in found:
            self.compare(connection, one.about)
        store.mark_seen(connection, [one.index for one in found])
        return self._settle(connection, bounds, salts) or bool(found)

    def compare(self, connection: Connection, leaf: str) -> None:
        """Hold others' verdicts on a receipt against the plant that it is, if it is one."""
        planted = self._planted(connection, leaf)
        if planted is None:
            return
        plant = planted.plant
        own = ledger.find(connection, leaf)
        found = None if own is None else _verdict(own).result
        for one in store.said(connection, "verdict", leaf):
            if one.key not in self._verifiers:
                continue
            said = _verdict(one.note)
            knew = self._verifiers[one.key][1] == self._verifiers[plant.key][1]
            if knew or found != plant.expect:
                continue
            if plant.expect == "fail" and (said.result, said.regime) == ("pass", "exact"):
                self._alert(connection, "lazy", one.key, leaf, "passes what was planted as wrong")
            elif plant.expect == "pass" and said.result == "fail":
                self._alert(connection, "lying", one.key, leaf, "fails what was planted as right")

    def _planted(self, connection: Connection, leaf: str) -> Planted | None:
        """The plant that a receipt is, if the log has it opened. It was verified when it was
        followed; None, too, where its planter or node is not configured any more."""
        note = plant_store.opening(connection, leaf)
        planters = (key for key, _ in self._verifiers.values())
        try:
            nodes = (key for key, _ in self._nodes.values())
            return None if note is None else open_plant(note, planters, nodes)
        except VerificationError:
            return None

    def _settle(self, connection: Connection, bounds: ledger.Bounds, salts: list[str]) -> bool:
        """Decide what becomes of verdicts on plants that were opened. Whether of any."""
        opened = {
            leaf: self._planted(connection, leaf)
            for leaf in plant_store.unsettled(connection)[:ROUND]
        }
        late = self._late(connection, opened, bounds)
        together = dict[str, list[Planted]]()
        for leaf, planted in opened.items():
            if leaf in late:
                continue
            withdrawn = self._decide(connection, leaf, planted, bounds.now_ms)
            if planted is not None and withdrawn:
                together.setdefault(_subject_on(connection, leaf), []).append(planted)
        unused = iter(salts)
        for plants in together.values():
            leaves = frozenset(planted.leaf for planted in plants)
            for planted in plants:
                self._withdraw(connection, planted, leaves, next(unused))
        return len(late) < len(opened)

    def _late(
        self, connection: Connection, opened: Mapping[str, Planted | None], bounds: ledger.Bounds
    ) -> set[str]:
        """Those whose verdicts wait to be withdrawn together with others': what withdraws one says
        what all others on its subject come to, and one that failed before may be about a plant that
        is opened in a moment. None waits longer than verdicts wait for each other, nor where its
        own is shown already."""
        subjects = dict[str, list[str]]()
        for leaf, planted in opened.items():
            if planted is not None and self._may_withdraw(connection, planted, bounds.now_ms):
                subjects.setdefault(_subject_on(connection, leaf), []).append(leaf)
        late = set[str]()
        for subject, leaves in subjects.items():
            seen_ms = [plant_store.opened_ms(connection, leaf) for leaf in leaves]
            failed = ledger.may_be_plants(connection, subject, bounds, until_ms=max(seen_ms))
            in_time = 0 <= bounds.now_ms - min(seen_ms) < bounds.reveal_after_ms
            if in_time and not failed <= set(leaves) and not ledger.any_given(connection, leaves):
                late.update(leaves)
        return late

    def _decide(
        self, connection: Connection, leaf: str, planted: Planted | None, now_ms: int
    ) -> bool:
        """Write down what becomes of the verdict on a plant; whether it is withdrawn."""
        withdrawn = planted is not None and self._may_withdraw(connection, planted, now_ms)
        plant_store.settle(
            connection,
            leaf,
            planter="" if planted is None else planted.plant.key,
            node="" if planted is None else planted.plant.node,
            withdrawn=withdrawn,
            now_ms=now_ms,
        )
        if planted is not None and planted.plant.expect == "pass":
            # Who failed it is known by the opening alone: nothing is withdrawn for it.
            plant_store.show(connection, leaf, newest=showing.newest(connection))
        return withdrawn

    def _withdraw(
        self, connection: Connection, planted: Planted, leaves: frozenset[str], salt: str
    ) -> None:
        """Show the verdict on a plant, and one that withdraws it. ``leaves``: of all whose verdicts
        on its subject are withdrawn at once."""
        verdict = _drawn(connection, planted.leaf)
        state, calibration = _without(connection, verdict.subject, leaves)
        place = Place(
            root=planted.verified.batch.root, position=planted.index, drawn=None, picked=True
        )
        what = Unshown(
            subject=verdict.subject, calibration=calibration, check=WITHDRAWN, leaf=planted.leaf
        )
        # Both in one transaction: nobody sees the one without the other.
        ledger.reveal(connection, self._publisher, planted.leaf, picked=False)
        self._judge.withdraw(connection, what, place, standing.encode_state(state), salt)
        ledger.uncount(connection, planted.leaf)

    def _may_withdraw(self, connection: Connection, planted: Planted, now_ms: int) -> bool:
        plant = planted.plant
        same = self._verifiers[plant.key][1] == self._nodes[plant.node][1]
        if plant.expect != "fail" or same:
            return False
        if ledger.is_asked(connection, planted.leaf):
            # Somebody had it audited beside the draw: one more verdict has no place.
            return False
        before = plant_store.withdrawn_since(
            connection, planter=plant.key, node=plant.node, unix_ms=now_ms - DAY_MS
        )
        return before < PER_DAY_MAX

    def _alert(self, connection: Connection, kind: str, key: str, leaf: str, what: str) -> None:
        store.alert(
            connection,
            unix_ms=self._clock.unix_ms(),
            kind=kind,
            about=self._verifiers[key][0].name,
            receipt=leaf,
            detail=what,
        )


def _drawn(connection: Connection, leaf: str) -> Verdict:
    """The verdict on a drawn receipt."""
    return _verdict(ledger.find(connection, leaf) or b"")


def _subject_on(connection: Connection, leaf: str) -> str:
    """Name of the subject that it is about."""
    return subject_name(_drawn(connection, leaf).subject)


def _without(
    connection: Connection, subject: Subject, leaves: frozenset[str]
) -> tuple[standing.State, Calibration]:
    """The subject's evidence as if the answers of ``leaves`` and all others whose verdicts were
    withdrawn had never been audited: what they left out is gone through once more."""
    left_out, later = set(leaves), list[Bundle]()
    for said, made in _backwards(connection, subject):
        if is_withdrawal(said):
            # What was judged before it may have the answer that it is about in its evidence.
            left_out.add(said.receipt)
        elif said.receipt in left_out and not isinstance(said.drawn, msgspec.UnsetType):
            left_out.remove(said.receipt)
            if not left_out:
                return _again(connection, made, reversed(later))
        else:
            later.append(made)
    raise CorruptStateError("a verdict is not in the chain of its subject's")


def _backwards(connection: Connection, subject: Subject) -> Iterator[tuple[Verdict, Bundle]]:
    """All verdicts on a subject with their bundles, from the newest."""
    row = ledger.subject(connection, subject_name(subject))
    previous = "" if row is None else row.previous
    while previous:
        found = ledger.by_digest(connection, previous)
        if found is None:
            return
        verdict = _verdict(found[0])
        yield verdict, bundles.decode(found[1])
        previous = verdict.previous


def _again(
    connection: Connection, first: Bundle, later: Iterable[Bundle]
) -> tuple[standing.State, Calibration]:
    """From the state before ``first``, which does not count, through what was found ``later``."""
    calibration = _calibration(connection, first)
    state = standing.decode_state(first.previous.encode(), calibration)
    for made in later:
        calibration = _calibration(connection, made)
        if state.calibration != calibration.digest:
            state = standing.adopt(state, calibration)
        trials = None if isinstance(made.trials, msgspec.UnsetType) else made.trials
        state = moved(state, calibration, trials, made.checks, picked=made.picked)
    return state, calibration


def _calibration(connection: Connection, made: Bundle) -> Calibration:
    artefact = ledger.calibration(connection, made.calibration)
    require(artefact is not None, "a calibration that was used was stored")
    return decode(artefact or b"")


def _verdict(note: bytes) -> Verdict:
    """One that was verified when it was stored."""
    return Verdict.parse(notes.parse(note).text)
