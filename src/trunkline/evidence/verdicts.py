"""Step 14: what verifiers said of the receipts since.

Verdicts are ``docs/spec/verdict.md``. A verdict counts if the reader pinned its verifier, as role
``verifier``. One by anybody else says nothing, for or against: whoever wrote the file may have made
it. What speaks against the answer counts at once, what speaks for it once it is in a log, and what
says neither changes nothing. One that failed the receipt fails the step: it refuses to weigh
verdicts against each other.
"""

from collections.abc import Sequence

import msgspec

from trunkline.base.errors import Error, MalformedError, QuorumError
from trunkline.crypto import merkle, note
from trunkline.crypto.keys import VerifierKey
from trunkline.evidence.checkpoints import TOO_MANY, Checkpoints
from trunkline.evidence.file import EvidenceKey, EvidenceVerdict
from trunkline.evidence.node import Part
from trunkline.evidence.report import (
    Finding,
    failed,
    inconclusive,
    not_applicable,
    passed,
    plain,
)
from trunkline.receipts import receipt_leaf
from trunkline.tlog import proof as tlog_proof
from trunkline.verdicts import Verdict

NONE = not_applicable("the file carries no verdicts")


class _Said(msgspec.Struct, frozen=True):
    """One verdict's finding, and whether it speaks against its subject as a whole."""

    finding: Finding
    doubt: bool = False


def check_verdicts(
    attached: Sequence[EvidenceVerdict],
    parts: Sequence[Part],
    pinned: Sequence[EvidenceKey],
    checkpoints: Checkpoints | None,
) -> Finding:
    """Step 14, over all verdicts in the file."""
    if not attached:
        return NONE
    said = [_check(item, parts, pinned, checkpoints) for item in attached]
    results = {one.finding.result for one in said}
    detail = "; ".join(dict.fromkeys(one.finding.detail for one in said))
    if "fail" in results:
        return failed(detail)
    if any(one.doubt for one in said):
        return inconclusive(detail)
    return passed(detail) if "pass" in results else not_applicable(detail)


def _check(
    item: EvidenceVerdict,
    parts: Sequence[Part],
    pinned: Sequence[EvidenceKey],
    checkpoints: Checkpoints | None,
) -> _Said:
    try:
        data = item.verdict.encode()
        verdict = _read(data)
        who = f"{plain(VerifierKey.parse(verdict.key).name)}, operator {plain(verdict.operator)}"
        holders = [key for key in pinned if key.role == "verifier" and key.vkey == verdict.key]
        if not holders:
            return _Said(not_applicable(f"{who}: not a verifier that you know: it says nothing"))
        if any(holder.operator != verdict.operator for holder in holders):
            return _Said(failed("a verifier's key is pinned for another operator than it says"))
        Verdict.open_note(data, VerifierKey.parse(verdict.key))
        problem = _wrong_subject(verdict, parts)
        if problem is not None:
            return _Said(problem)
        logged = _check_logged(item, data, checkpoints)
    except UnicodeEncodeError:
        return _Said(failed("a verdict is not Unicode"))
    except Error as error:
        return _Said(failed(f"a verdict: {error.message}"))
    return _judge(verdict, who, logged)


def _read(data: bytes) -> Verdict:
    """What the note says, not yet verified: it names the key to verify it with."""
    if len(data) > Verdict.NOTE_BYTES_MAX:
        raise MalformedError(f"{len(data)} bytes are too long")
    return Verdict.parse(note.parse(data).text)


def _wrong_subject(verdict: Verdict, parts: Sequence[Part]) -> Finding | None:
    """Why the verdict is not about a receipt of this file, if it is not."""
    read = [(part.receipt, part.data) for part in parts if part.receipt is not None]
    for receipt, data in read:
        if receipt_leaf(data).hex() == verdict.receipt:
            if verdict.subject.key == receipt.key:
                return None
            return failed("a verdict holds against one node what another signed")
    if len(read) < len(parts):
        return not_applicable("not checked: there is no receipt")
    return failed("a verdict is about another receipt")


def _check_logged(item: EvidenceVerdict, data: bytes, checkpoints: Checkpoints | None) -> str:
    """Why the verdict is not shown to be in a log; empty: it is. Raises what a false proof does."""
    if item.proof is None:
        return "not shown to be in a log"
    proof = tlog_proof.parse(item.proof.encode())
    if checkpoints is None:
        return "no policy says which logs count"
    tree = checkpoints.signed(proof.checkpoint_note)
    if tree is None:
        return TOO_MANY
    try:
        checkpoints.cosigned(proof.checkpoint_note)
    except QuorumError:
        return "too few witnesses saw it in the log"
    merkle.verify_inclusion(merkle.leaf_hash(data), proof.index, tree.size, proof.path, tree.root)
    return ""


def _judge(verdict: Verdict, who: str, unlogged: str) -> _Said:
    detail = (
        f"{who}: {verdict.result} ({verdict.kind}, regime {verdict.regime}), "
        f"standing {verdict.standing}"
    )
    if verdict.result == "fail":
        return _Said(failed(detail))
    if verdict.result == "pass" and not unlogged:
        found = passed(detail)
    else:
        found = not_applicable(f"{detail}; does not count: {unlogged}" if unlogged else detail)
    return _Said(found, verdict.standing == "failed")
