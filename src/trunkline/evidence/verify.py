"""Verifies an evidence file offline, in numbered steps. Specified in ``docs/spec/evidence.md``.

It asks nobody: what it needs is in the file, or given by the reader. It refuses to guess: what is
not shown is ``inconclusive``, and only steps that were shown count as passed. What trust rests on
(pinned keys, the policy) must come from the reader; the file's own is checked for contradictions.
"""

from collections.abc import Callable, Sequence

from trunkline.base.errors import MalformedError
from trunkline.evidence import content, inclusion, node
from trunkline.evidence.answer import check_answer
from trunkline.evidence.checkpoints import Checkpoints
from trunkline.evidence.file import EvidenceKey, decode
from trunkline.evidence.node import Part
from trunkline.evidence.operators import Operators
from trunkline.evidence.report import (
    Finding,
    Report,
    State,
    combine,
    failed,
    inconclusive,
    numbered,
    outcome_of,
    passed,
    plain,
)
from trunkline.evidence.response import PassingResponse
from trunkline.evidence.validity import check_validity
from trunkline.evidence.verdicts import check_verdicts
from trunkline.receipts import Receipt
from trunkline.tlog.policy import Policy

# The steps:
#
#    1  file          it is evidence v1, within its bounds
#    2  receipts      each part's receipt is a receipt v1 in canonical bytes
#    3  node keys     who holds the key that each receipt names
#    4  signatures    that key signed the batch
#    5  batch paths   the receipt is in the batch
#    6  request       the request is the one that the receipts bind
#    7  response      the answer is the one that the receipts bind
#    8  parts         the receipts belong together as one answer
#    9  policy        whose choice of logs and witnesses the rest is held against
#   10  log           a log of the policy signed each checkpoint
#   11  witnesses     a quorum of the policy cosigned it
#   12  inclusion     each batch is in the log, under that checkpoint
#   13  key validity  each receipt was in the log while its operator let its key count
#   14  verdicts      what verifiers that the reader knows said of the receipts since
TITLES = (
    "file",
    "receipts",
    "node keys",
    "signatures",
    "batch paths",
    "request",
    "response",
    "parts",
    "policy",
    "log",
    "witnesses",
    "inclusion",
    "key validity",
    "verdicts",
)
_LOGGED = frozenset({"log", "witnesses", "inclusion"})


def verify(
    evidence: bytes,
    *,
    policy: str | None = None,
    trusted_keys: Sequence[EvidenceKey] | None = None,
    request: bytes | None = None,
    response: bytes | PassingResponse | None = None,
) -> Report:
    """Verify an evidence file without asking anybody.

    ``policy``: your C2SP tlog-policy; without it the file's own is used, and the outcome is at best
    inconclusive. ``trusted_keys``: keys of nodes, operators and verifiers that you know by other
    means; a node outside them is inconclusive too, and a verifier outside them says nothing.
    ``request`` and ``response``: the bodies as your app sent and received them,
    to be compared with what was signed; the response also as one that was told as it passed.

    Any bytes give a report. Raises :class:`MalformedError` only for a ``policy`` that does not
    parse: then the check could not run.
    """
    given = None if policy is None else _policy(policy)
    try:
        file = decode(evidence)
    except MalformedError as error:
        return _unreadable(error.message)
    parts = [Part(source=source) for source in file.parts]
    # 1 file
    findings = [passed(f"evidence of answer {plain(file.answer)}, {len(parts)} part(s)")]
    pinned = trusted_keys or ()
    operators = Operators(pinned, file.keys)
    # 2 to 5
    findings += _check_nodes(parts, pinned, file.keys, operators)
    receipts = [part.receipt for part in parts if part.receipt is not None]
    complete = len(receipts) == len(parts)
    # 6 request
    findings.append(combine([content.check_request(part, request) for part in parts]))
    # 7 response
    findings.append(_check_response(parts, response))
    # 8 parts
    findings.append(check_answer(file.answer, receipts) if complete else node.NO_RECEIPT)
    # 9 policy
    used, chosen = inclusion.check_policy(given, file.policy)
    findings.append(chosen)
    checkpoints = None if used is None else Checkpoints(used)
    # 10 to 13
    findings += _check_log(parts, checkpoints, operators)
    # 14 verdicts
    findings.append(check_verdicts(file.verdicts or (), parts, pinned, checkpoints))
    return _report(file.answer, findings, receipts)


def _policy(text: str) -> Policy:
    try:
        return Policy.parse(text.encode())
    except UnicodeEncodeError as error:
        raise MalformedError("the policy is not Unicode") from error


def _check_nodes(
    parts: Sequence[Part],
    pinned: Sequence[EvidenceKey],
    stated: Sequence[EvidenceKey],
    operators: Operators,
) -> list[Finding]:
    steps: tuple[Callable[[Part], Finding], ...] = (
        # 2 receipts
        node.check_receipt,
        # 3 node keys
        lambda part: node.check_key(part, pinned, stated, operators),
        # 4 signatures
        node.check_signature,
        # 5 batch paths
        node.check_path,
    )
    return [combine([step(part) for part in parts]) for step in steps]


def _check_response(parts: Sequence[Part], response: bytes | PassingResponse | None) -> Finding:
    """Step 7: the bodies in the file, and the response that the reader has. Both must agree."""
    kept = combine([content.check_bodies(part) for part in parts])
    if response is None:
        return kept
    own = content.check_response(parts, response)
    if kept.result == "not_applicable":
        return own
    # What the reader asked about comes first: kept bodies can spoil a pass, never stand in for it.
    return kept if kept.result == "fail" or own.result == "pass" else own


def _check_log(
    parts: Sequence[Part], checkpoints: Checkpoints | None, operators: Operators
) -> list[Finding]:
    logged = [inclusion.read_proof(part) for part in parts]
    # 10 log
    log = combine([inclusion.check_log(item, checkpoints) for item in logged])
    # 11 witnesses
    witnesses = combine([inclusion.check_quorum(item, checkpoints) for item in logged])
    # 12 inclusion
    included = combine([inclusion.check_inclusion(item) for item in logged])
    # 13 key validity
    valid = combine([check_validity(item, operators) for item in logged])
    return [inclusion.contradiction(logged) or log, witnesses, included, valid]


def _unreadable(problem: str) -> Report:
    rest = inconclusive("not checked: the file can not be read")
    return _report("", [failed(problem), *[rest] * (len(TITLES) - 1)], [])


def _report(answer: str, findings: Sequence[Finding], receipts: Sequence[Receipt]) -> Report:
    steps = numbered(TITLES, findings)
    logged = all(step.result == "pass" for step in steps if step.title in _LOGGED)
    state: State = "final" if logged else "provisional"
    outcome = outcome_of(steps)
    if outcome == "pass" and not logged:
        outcome = "inconclusive"
    return Report(
        outcome=outcome, state=state, answer=answer, steps=steps, receipts=tuple(receipts)
    )
