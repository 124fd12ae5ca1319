"""What verifiers' verdicts come to: the standing of each model at each node, here, by the policy.

A verdict's ``standing`` is one verifier's word on one subject; what follows from several verifiers'
words is decided by the user's ``[verification]``. The newest of each kind of word counts, whatever
the order in which verdicts are heard and however often: what is kept of them is a maximum. It takes
as many different operators as the policy asks to quarantine, so that one that lies can at most
demote a node; and their verdicts count for that once they are proved to be in the log, so that none
can tell this gateway what it hides from everybody else. Only the verifier that failed a subject can
take that back, by a newer ``good`` on it, or on what has taken its place: the same model at the
same node by another key, with other weights or numerics; or because it was a plant.

Verdicts come here verified. Specified in ``docs/operate/verification.md``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import zip_longest
from typing import Final, NamedTuple

import msgspec

from trunkline.gateway.core.accusations import WITHHELD, Accusations, Charge, Mark
from trunkline.gateway.core.demands import Consequence, Verification
from trunkline.verdicts import Logged, Result, Subject, Verdict, is_withdrawal

SUBJECTS_MAX: Final = 1024
"""Of one verifier; beyond, what it has not spoken of for longest is forgotten."""
RECEIPTS_MAX: Final = 4096
"""Receipts with verdicts that could still contradict each other."""
AHEAD_MS_MAX: Final = 300_000
"""How far a verdict's time may be ahead of the gateway's clock: until that time has come, nothing
that its verifier says takes it back."""

Place = tuple[str, str]
"""A node's vkey and a model as that node names it."""


class Level(IntEnum):
    """What a standing does to routing; a higher one does more."""

    GOOD = 0
    DEMOTED = 1
    """Asked after every other deployment of its tier."""
    QUARANTINED = 2
    """Not asked."""

    @property
    def word(self) -> str:
        """As it is said and stored."""
        return self.name.lower()


class NodeStanding(msgspec.Struct, frozen=True, kw_only=True):
    """A model at a node, where anything is held against it."""

    level: Level
    why: str
    """For a person."""
    by: tuple[str, ...]
    """Key names of the verifiers that say so."""
    verdicts: tuple[str, ...]
    """SHA-256 (hex) of their signed verdicts."""
    said_ms: int
    """When the newest of them was signed, Unix milliseconds."""


class Dispute(msgspec.Struct, frozen=True, kw_only=True):
    """Verdicts on one receipt that contradict each other, with no majority of operators."""

    receipt: str
    place: Place
    by: tuple[str, ...]
    verdicts: tuple[str, ...]
    said_ms: int


@dataclass(slots=True)
class _Word:
    """What one verifier has said of one subject: the newest verdict of each kind."""

    failed: Mark | None = None
    withheld: Mark | None = None
    good: Mark | None = None
    withdrawn: Mark | None = None
    """It took back what it held against a node for a plant."""
    broken: Mark | None = None
    """Its ``result`` was ``fail``."""
    passed: Mark | None = None

    def hear(self, mark: Mark, verdict: Verdict) -> None:
        match verdict.standing:
            case "failed" if verdict.kind == WITHHELD:
                self.withheld = _newer(self.withheld, mark)
            case "failed":
                self.failed = _newer(self.failed, mark)
            case "good":
                self.good = _newer(self.good, mark)
            case _ if is_withdrawal(verdict):
                self.withdrawn = _newer(self.withdrawn, mark)
            case _:
                pass
        if verdict.result == "pass":
            self.passed = _newer(self.passed, mark)
        elif verdict.result == "fail":
            self.broken = _newer(self.broken, mark)

    def marks(self) -> Iterator[Mark]:
        found = (
            self.failed, self.withheld, self.good, self.withdrawn, self.broken, self.passed,
        )  # fmt: skip
        yield from (mark for mark in found if mark is not None)

    def newest(self) -> Mark:
        return max(self.marks(), default=Mark(0, ""))

    def since_good(self, mark: Mark | None) -> Mark | None:
        """``mark``, unless a newer ``good`` took it back, or a withdrawal."""
        if mark is None or not _stands(mark, self.good) or not _stands(mark, self.withdrawn):
            return None
        return mark

    def doubt(self) -> Mark | None:
        """Its last word on a single answer, where that was ``fail``."""
        stands = self.broken is not None and _stands(self.broken, self.passed)
        return self.since_good(self.broken) if stands else None


class _Opinion(NamedTuple):
    """One verifier's newest conclusive result on a receipt."""

    mark: Mark
    result: Result
    subject: Subject


class _Voice(NamedTuple):
    """A word that stands, and whose it is."""

    operator: str
    verifier: str
    """Its key's name."""
    mark: Mark
    vkey: str = ""
    charges: tuple[Charge, ...] = ()
    """The verdicts that say so and stand, the newest first."""


@dataclass(slots=True)
class _Held:
    """What is held against one place."""

    failed: list[_Voice] = field(default_factory=list)
    withheld: list[_Voice] = field(default_factory=list)
    doubted: list[_Voice] = field(default_factory=list)
    disputed: list[_Voice] = field(default_factory=list)


class Board:
    """All that was heard. ``hear`` verdicts; ask for ``standings`` under a policy."""

    def __init__(self) -> None:
        self._words: dict[str, dict[Subject, _Word]] = {}
        """By the verifier's vkey."""
        self._results: dict[str, dict[str, _Opinion]] = {}
        """By receipt, then by the verifier's vkey."""
        self._accusations = Accusations()
        self._silenced: frozenset[str] = frozenset()

    def silence(self, verifiers: frozenset[str]) -> None:
        """What these verifiers (vkeys) say does not count (``plants``). It is kept: others may
        count again. It takes as many operators as before to quarantine, so that nobody has more of
        a say because another has none."""
        self._silenced = verifiers

    def hear(self, verdict: Verdict, digest: str, *, logged: Logged | None = None) -> None:
        """One verdict, verified. ``digest``: SHA-256 of its signed note, hex. ``logged``: its
        places, proved to be in the log; may be said later, by hearing it once more."""
        mark = Mark(verdict.unix_ms, digest)
        words = self._words.setdefault(verdict.key, {})
        words.setdefault(verdict.subject, _Word()).hear(mark, verdict)
        self._accusations.hear(verdict, mark, logged)
        if len(words) > SUBJECTS_MAX:
            del words[min(words, key=lambda subject: words[subject].newest())]
        if verdict.result not in ("pass", "fail"):
            return
        opinions = self._results.setdefault(verdict.receipt, {})
        before = opinions.get(verdict.key)
        if before is None or before.mark < mark:
            opinions[verdict.key] = _Opinion(mark, verdict.result, verdict.subject)
        if len(self._results) > RECEIPTS_MAX:
            del self._results[min(self._results, key=self._age)]

    def support(self) -> frozenset[str]:
        """Digests of the verdicts that decide what stands: what must be kept of all that was
        heard."""
        words = {
            mark.digest
            for subjects in self._words.values()
            for word in subjects.values()
            for mark in word.marks()
        }
        opinions = {one.mark.digest for found in self._results.values() for one in found.values()}
        return frozenset(words | opinions | self._accusations.support())

    def unproved(self, policy: Verification) -> tuple[str, ...]:
        """Digests of the verdicts that would do more than demote, were their places in the log
        proved: the newest of each verifier on each subject, until one is its own, and what others
        say of these receipts. Operators take turns, each with its newest first, so that none holds
        up another by how much it says."""
        marks: dict[str, set[Mark]] = {}
        operators = {verifier.vkey: verifier.operator for verifier in policy.verifiers}
        for against in self._held(policy).values():
            for most, voices in (
                (policy.on_fail, against.failed),
                (policy.on_withheld, against.withheld),
            ):
                for charge in self._unproved(voices) if most == "quarantine" else ():
                    marks.setdefault(operators[charge.verifier], set()).add(charge.mark)
        turns = zip_longest(*(sorted(said, reverse=True) for said in marks.values()))
        return tuple(mark.digest for turn in turns for mark in turn if mark is not None)

    def standings(self, policy: Verification) -> dict[Place, NodeStanding]:
        """Every place that anything is held against, by verifiers that the policy names."""
        held = self._held(policy)
        for dispute in self.disputes(policy):
            against = held.setdefault(dispute.place, _Held())
            mark = Mark(dispute.said_ms, dispute.verdicts[-1])
            against.disputed += [_Voice("", name, mark) for name in dispute.by]
        found = ((place, self._standing(against, policy)) for place, against in held.items())
        return {place: standing for place, standing in found if standing is not None}

    def _held(self, policy: Verification) -> dict[Place, _Held]:
        """What the verifiers that the policy names hold against each place."""
        names = {verifier.vkey: verifier.key.name for verifier in policy.verifiers}
        operators = {verifier.vkey: verifier.operator for verifier in policy.verifiers}
        held: dict[Place, _Held] = {}
        for vkey, subjects in self._words.items():
            if vkey not in operators or vkey in self._silenced:
                continue
            for subject, word in subjects.items():
                if _replaced(subject, word, subjects):
                    continue
                against = held.setdefault((subject.key, subject.model), _Held())
                said = _Voice(operators[vkey], names[vkey], Mark(0, ""), vkey)
                if (mark := word.since_good(word.failed)) is not None:
                    charges = self._charges(vkey, subject, word, withheld=False)
                    against.failed.append(said._replace(mark=mark, charges=charges))
                if (mark := word.since_good(word.withheld)) is not None:
                    charges = self._charges(vkey, subject, word, withheld=True)
                    against.withheld.append(said._replace(mark=mark, charges=charges))
                if (mark := word.doubt()) is not None:
                    against.doubted.append(said._replace(mark=mark))
        return held

    def _charges(
        self, vkey: str, subject: Subject, word: _Word, *, withheld: bool
    ) -> tuple[Charge, ...]:
        found = self._accusations.of(vkey, subject, withheld=withheld)
        return tuple(one for one in found if word.since_good(one.mark) is not None)

    def _unproved(self, voices: Sequence[_Voice]) -> list[Charge]:
        """What must be proved, for each of the voices to count beside those of others."""
        return [
            charge
            for voice in voices
            for charge in self._accusations.unproved(
                voice.charges,
                {other.vkey for other in voices if other.operator != voice.operator},
            )
        ]

    def _standing(self, against: _Held, policy: Verification) -> NodeStanding | None:
        """What stands against a place comes to; None: nothing."""
        kinds: tuple[tuple[str, list[_Voice], Consequence], ...] = (
            ("failed", against.failed, policy.on_fail),
            ("withheld", against.withheld, policy.on_withheld),
            ("broken", against.doubted, "alert" if policy.on_fail == "alert" else "demote"),
            ("disputed", against.disputed, policy.on_dispute),
        )
        found = [(self._level(said, most, policy), why, said, most) for why, said, most in kinds]
        level, why, voices, most = max(found, key=lambda each: each[0])
        if level is Level.GOOD:
            return None
        said = _WHY[why]
        enough = len({voice.operator for voice in voices}) >= policy.quorum
        if most == "quarantine" and enough and level is Level.DEMOTED:
            said += _UNPROVED if self._unproved(voices) else _COPIED
        return NodeStanding(
            level=level,
            why=said,
            by=tuple(sorted({voice.verifier for voice in voices})),
            verdicts=tuple(sorted({voice.mark.digest for voice in voices})),
            said_ms=max(voice.mark.unix_ms for voice in voices),
        )

    def _level(self, voices: Sequence[_Voice], most: Consequence, policy: Verification) -> Level:
        """What so many voices come to, where the policy lets them do ``most``. Only what is proved
        to be in the log, and can be no copy of the others, does more than demote."""
        if not voices or most == "alert":
            return Level.GOOD
        if most == "demote":
            return Level.DEMOTED
        charges: dict[str, list[Charge]] = {}
        for voice in voices:
            charges.setdefault(voice.vkey, []).extend(voice.charges)
        operators = {voice.vkey: voice.operator for voice in voices}
        enough = self._accusations.agree(charges, operators, policy.quorum)
        return Level.QUARANTINED if enough else Level.DEMOTED

    def disputes(self, policy: Verification) -> list[Dispute]:
        """Every receipt on which as many operators say ``pass`` as say ``fail``, until those that
        failed it have found its subject good since. The newest last."""
        operators = {
            verifier.vkey: verifier.operator
            for verifier in policy.verifiers
            if verifier.vkey not in self._silenced
        }
        found = [
            dispute
            for receipt, opinions in self._results.items()
            if len(opinions) > 1
            and (dispute := self._dispute(receipt, opinions, operators)) is not None
        ]
        return sorted(found, key=lambda dispute: (dispute.said_ms, dispute.receipt))

    def _dispute(
        self, receipt: str, opinions: Mapping[str, _Opinion], operators: Mapping[str, str]
    ) -> Dispute | None:
        counted = {vkey: one for vkey, one in opinions.items() if vkey in operators}
        passing = {operators[v] for v, one in counted.items() if one.result == "pass"}
        failing = {v: one for v, one in counted.items() if one.result == "fail"}
        if not passing or len({operators[v] for v in failing}) != len(passing):
            return None
        if not any(self._unretracted(vkey, one) for vkey, one in failing.items()):
            return None
        marks = sorted(one.mark for one in counted.values())
        subject = min(failing.items())[1].subject
        return Dispute(
            receipt=receipt,
            place=(subject.key, subject.model),
            by=tuple(sorted(_name(vkey) for vkey in counted)),
            verdicts=tuple(mark.digest for mark in marks),
            said_ms=marks[-1].unix_ms,
        )

    def _unretracted(self, vkey: str, opinion: _Opinion) -> bool:
        words = self._words.get(vkey, {})
        word = words.get(opinion.subject)
        if word is None:
            return True
        replaced = _replaced(opinion.subject, word, words)
        return not replaced and word.since_good(opinion.mark) is not None

    def _age(self, receipt: str) -> Mark:
        return max(opinion.mark for opinion in self._results[receipt].values())


def _replaced(subject: Subject, word: _Word, words: Mapping[Subject, _Word]) -> bool:
    """Whether another subject has taken the place of this one, and the same verifier found that one
    good since it last spoke of this. Who goes on under both is spoken of again. One without a
    configuration can never be found good itself: nothing was known that its scores are held
    against, or nothing was opened. The same with one takes its place."""
    last = word.newest()
    made = (subject.key, subject.weights, subject.numerics)
    return any(
        (other.node, other.model) == (subject.node, subject.model)
        and (
            (other.key, other.weights, other.numerics) != made
            or bool(other.configuration) > bool(subject.configuration)
        )
        and said.good is not None
        and said.good.unix_ms > last.unix_ms
        for other, said in words.items()
    )


_WHY: Final = {
    "failed": "it fails verification",
    "withheld": "it does not open receipts that were drawn",
    "broken": "its newest answer that was checked fails",
    "disputed": "verifiers contradict each other about an answer of it",
}
_UNPROVED: Final = ", by verdicts that are not proved to be in the log yet"
_COPIED: Final = ", but of too few verifiers that could not know what another had said"


def is_early(verdict: Verdict, now_ms: int) -> bool:
    """Whether a verdict claims a time that has not come, by more than clocks differ."""
    return verdict.unix_ms > now_ms + AHEAD_MS_MAX


def _newer(before: Mark | None, mark: Mark) -> Mark:
    return mark if before is None else max(before, mark)


def _stands(against: Mark, for_it: Mark | None) -> bool:
    """What was signed in the same millisecond takes nothing back."""
    return for_it is None or against.unix_ms >= for_it.unix_ms


def _name(vkey: str) -> str:
    return vkey.partition("+")[0]
