"""How verifiers behaved, by nothing but what the log has of them.

Specified in ``docs/spec/verdict.md``: draws that skip or repeat, verdicts that nobody was bound to,
changed after the commitment, given twice, on what no draw can have, or made after another's was
shown; and verdicts on plants that say the contrary of what others found (``planted``). Whoever
reads the log can tell. It refuses to say whether any other verdict is right: that takes its bundle,
and the opening.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import msgspec

from trunkline.base.errors import Error, MalformedError
from trunkline.crypto.keys import VerifierKey
from trunkline.receipts.batch import BATCH_TYPE, open_batch
from trunkline.tlog.policy import Policy
from trunkline.verdicts.chain import Chain, follow
from trunkline.verdicts.commitment import COMMITMENT_TYPE, Commitment
from trunkline.verdicts.draw import DRAW_TYPE, Draw, check_draw
from trunkline.verdicts.plant import PLANT_OPENING_TYPE, open_plant
from trunkline.verdicts.planted import NOT_TRIED, Known, Missed, Said, Tried, hold_against
from trunkline.verdicts.reveal import Logged, check_reveal, may_know
from trunkline.verdicts.sequence import check_sequence
from trunkline.verdicts.verdict import VERDICT_TYPE, Verdict


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a verifier signed and must not have."""

    entry: int
    """The log's entry that shows it."""
    detail: str


class Conduct(msgspec.Struct, frozen=True, kw_only=True):
    """One verifier's, from the first entry to the last."""

    verifier: str
    """Its key's name."""
    draws: int
    unchained: int
    """Of these, draws from an entry that no chain was announced for in time: made by a checkpoint's
    signatures, of which it may have had several to choose from. Its first few are."""
    verdicts: int
    kept_back: int
    """Commitments whose verdict is not in the log, or not yet."""
    late: int
    """Verdicts that were committed to only after another verifier's on the same receipt was shown:
    no second opinions."""
    tried: int
    """Plants that it gave a verdict on; ``missed`` of them it said the contrary of."""
    missed: int
    counts: bool
    """Whether its verdicts count still (``docs/spec/verdict.md``, "Plants")."""
    findings: tuple[Finding, ...]


@dataclass(slots=True)
class _Account:
    key: VerifierKey
    draws: list[Draw] = field(default_factory=list)
    drawn_at: list[int] = field(default_factory=list)
    chains: tuple[Chain, ...] = ()
    unchained: int = 0
    commitments: dict[str, tuple[int, Commitment]] = field(default_factory=dict)
    verdicts: dict[str, Logged] = field(default_factory=dict)
    """On drawn receipts."""
    said: dict[str, Said] = field(default_factory=dict)
    """In them."""
    asked: int = 0
    """Verdicts that somebody asked for: nobody is to commit to them, or to give only one."""
    findings: list[Finding] = field(default_factory=list)

    def found(self, entry: int, detail: str) -> None:
        self.findings.append(Finding(entry=entry, detail=detail))


NOBODY: Final[Mapping[str, str]] = MappingProxyType({})
_TYPES: Final[Mapping[bytes, type[Draw] | type[Commitment] | type[Verdict]]] = {
    DRAW_TYPE.encode(): Draw,
    COMMITMENT_TYPE.encode(): Commitment,
    VERDICT_TYPE.encode(): Verdict,
}


def examine(
    entries: Iterable[bytes],
    keys: Iterable[VerifierKey],
    policy: Policy,
    *,
    nodes: Sequence[VerifierKey] = (),
    operators: Mapping[str, str] = NOBODY,
) -> tuple[Conduct, ...]:
    """The conduct of the verifiers with ``keys``, in their order.

    ``entries``: all of one log's, from the first. Those that none of ``keys`` signed say nothing.
    ``nodes``: those at which plants count, and whose batches are looked at; ``operators``: who runs
    them and the verifiers, by vkey.
    """
    accounts = {str(key): _Account(key) for key in keys}
    plants: list[Known] = []
    batches: dict[int, bytes] = {}
    for index, entry in enumerate(entries):
        first = entry.partition(b"\n")[0]
        if first == BATCH_TYPE.encode():
            batches[index] = entry
        if first == PLANT_OPENING_TYPE.encode():
            plants += _plant(entry, accounts, nodes)
        kind = _TYPES.get(first)
        for account in accounts.values() if kind is not None else ():
            try:
                record = kind.open_note(entry, account.key) if kind is not None else None
            except Error:
                continue
            match record:
                case Draw():
                    _take_draw(account, index, record, policy)
                case Commitment():
                    account.commitments.setdefault(record.receipt, (index, record))
                case Verdict():
                    _take_verdict(account, index, record, entry)
                    if not _drawable(record, batches, nodes):
                        account.found(index, "a verdict on a receipt that no draw can have")
    said = _by_receipt(accounts)
    tried = hold_against(plants, said, operators)
    return tuple(
        _conduct(account, accounts, tried.get(vkey, NOT_TRIED))
        for vkey, account in accounts.items()
    )


def _plant(
    entry: bytes, accounts: Mapping[str, _Account], nodes: Sequence[VerifierKey]
) -> list[Known]:
    """What an entry opens; nothing, if it is not what it says."""
    try:
        return [Known.of(open_plant(entry, (one.key for one in accounts.values()), nodes))]
    except Error:
        return []


def _drawable(verdict: Verdict, batches: Mapping[int, bytes], nodes: Sequence[VerifierKey]) -> bool:
    """Whether the batch of a drawn receipt says that it may be audited, for all that can be told:
    ``batches`` are the log's entries so far that may be one."""
    drawn = verdict.drawn
    key = next((one for one in nodes if str(one) == verdict.subject.key), None)
    if isinstance(drawn, msgspec.UnsetType) or key is None:
        return True
    try:
        return drawn.index < open_batch(batches.get(drawn.entry, b""), key).drawable
    except Error:
        return False


def _by_receipt(accounts: Mapping[str, _Account]) -> dict[str, dict[str, Said]]:
    said: dict[str, dict[str, Said]] = {}
    for vkey, account in accounts.items():
        for receipt, one in account.said.items():
            said.setdefault(receipt, {})[vkey] = one
    return said


def _take_draw(account: _Account, index: int, draw: Draw, policy: Policy) -> None:
    try:
        check_draw(draw, policy)
        if draw.to > index:
            raise MalformedError("from entries that come after it")
    except Error as error:
        account.found(index, f"a draw: {error.message}")
        return
    account.draws.append(draw)
    account.drawn_at.append(index)
    entries = (draw.from_, draw.to)
    account.unchained += draw.to - draw.from_ > len(draw.chances())
    account.chains, problem = follow(
        account.chains, draw.shown(), draw.announced(), entries=entries, position=index
    )
    if problem:
        account.found(index, f"a draw {problem}")


def _take_verdict(account: _Account, index: int, verdict: Verdict, note: bytes) -> None:
    if isinstance(verdict.drawn, msgspec.UnsetType):
        account.asked += 1
        return
    if verdict.receipt in account.verdicts:
        account.found(index, "a second verdict on one drawn receipt")
        return
    committed, commitment = account.commitments.get(verdict.receipt, (index, None))
    account.verdicts[verdict.receipt] = Logged(committed=committed, revealed=index)
    account.said[verdict.receipt] = Said.of(verdict)
    if commitment is None:
        account.found(index, "a verdict on a drawn receipt without a commitment before it")
        return
    try:
        check_reveal(commitment, verdict, note)
    except Error as error:
        account.found(index, error.message)


def _conduct(account: _Account, accounts: Mapping[str, _Account], tried: Tried) -> Conduct:
    for missed in tried.missed:
        account.found(account.verdicts[missed.receipt].revealed, _missing(missed))
    for fault in check_sequence(account.draws):
        what = f"{fault.kind}: entries {fault.start} to before {fault.end}"
        account.found(account.drawn_at[fault.earlier + 1], f"a draw, {what}")
    others = [one for one in accounts.values() if one is not account]
    late = sum(
        any(
            may_know(said, other.verdicts[receipt]) for other in others if receipt in other.verdicts
        )
        for receipt, said in account.verdicts.items()
    )
    return Conduct(
        verifier=account.key.name,
        draws=len(account.draws),
        unchained=account.unchained,
        verdicts=len(account.verdicts) + account.asked,
        kept_back=len(account.commitments.keys() - account.verdicts.keys()),
        late=late,
        tried=tried.found + len(tried.missed) + tried.undecided,
        missed=len(tried.missed),
        counts=tried.counts,
        findings=tuple(sorted(account.findings, key=lambda one: one.entry)),
    )


def _missing(missed: Missed) -> str:
    by = ", ".join(VerifierKey.parse(vkey).name for vkey in missed.found_by)
    node = VerifierKey.parse(missed.node).name
    if missed.expect == "fail":
        return f"passes an answer that was planted as wrong at {node}, which {by} failed"
    return f"fails an answer that was planted as right at {node}, which {by} passed"
