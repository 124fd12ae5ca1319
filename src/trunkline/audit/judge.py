"""One audited receipt, judged: its checks, its result, and what its subject's standing is now.

The order: may it be audited at all; was it opened; is the opening what was signed; does the account
add up; would the model have said it. Whatever could not be reached is ``inconclusive``, and nothing
passes by default. Only the opening of a receipt that its node signed is looked at here: signatures,
logs and draws were checked by the caller.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from trunkline.audit import (
    accounting,
    bundle,
    content,
    embedding,
    logprobs,
    nonces,
    novelty,
    repeated,
)
from trunkline.audit.bundle import Bundle, Compared, replay_check
from trunkline.audit.calibration import Calibration
from trunkline.audit.embedding import Remade
from trunkline.audit.findings import failed, inconclusive, is_closed, not_applicable, total
from trunkline.audit.replay import Measured
from trunkline.audit.standing import State, adopt, encode_state, update
from trunkline.audit.trials import Trials, quantise
from trunkline.crypto.keys import NAME_BYTES_MAX, VerifierKey
from trunkline.receipts import ITEMS, Receipt, binds
from trunkline.schema.audit import OpenedContent
from trunkline.verdicts import Check, Kind, Regime, Result, Standing, StandingEvidence, Subject

ALLOWED: Final = "allowed"
OPENED: Final = "opened"
WITHHELD: Final = "withheld"
"""The reason where no answer came to a demand within its deadline, or none that could be read."""
FAULTS: Final = frozenset({WITHHELD, "unknown", "not_audited"})
"""Reasons that a node with a receipt like this one can not have. The others leave it open: what was
kept for too short a time, or demanded too late, shows nothing."""

NOT_ALLOWED: Final = not_applicable(ALLOWED, "the receipt allows no audit")
NOT_KNOWN: Final = not_applicable(ALLOWED, "not a model whose weights are known")
HALF: Final = failed(OPENED, "the node opened half of what it had signed")
OTHER_CONTEXT: Final = "other_context: the node may have had less room then than it states now"
OTHER_RULES: Final = "other_rules: its node makes answers by other rules than this verifier"
UNASKED: Final = content.NO_MODEL
NOTHING_OWN: Final = "there is no token that this attempt chose"
NAMELESS: Final = "unnamed"
CLOSED: Final = "request.client"
"""The item of a receipt that its node does not open."""
TEXT_CHARS_MAX: Final = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What there is to judge."""

    receipt: Receipt
    """As its node signed it: verified by the caller, like ``origin``."""
    leaf: bytes
    key: VerifierKey
    """The node's."""
    calibration: Calibration
    content: OpenedContent | None = None
    reason: str = ""
    """Without content: the node's reason, or ``WITHHELD``."""
    measured: Measured | None = None
    """None: the model could not be asked."""
    unmeasured: str = UNASKED
    """Why not: ``measured``, or of embeddings ``remade``, is None then."""
    context_tokens: int = 0
    """Of the node's engine, as it states it; 0: as the verifier's."""
    context_doubted: bool = False
    """The answer ends where only another context than the node states ends it; and it states what
    an earlier process of it need not have had."""
    nonce_used_by: str = ""
    """Another answer for which the verifier has seen the same nonce."""
    nonces_entry: int | None = None
    """The log's entry with the commitment to the nonce, as the verifier has seen it."""
    nonces_unlogged: bool = False
    """It would have seen it, and has not."""
    entry: int | None = None
    """The log's entry with the receipt's batch; None: the receipt was not drawn."""
    whole: bool = True
    """Its node had stated that it keeps log-probabilities that were sent."""
    nonce_origin: nonces.Origin | None = None
    """Of an inherited seed: what the node that began the answer shows, if it does."""
    origin: repeated.Origin | None = None
    """Of an answer given again: the receipt that it came from, if its node shows one. ``measured``,
    ``remade``, ``nonces_entry`` and the like are about that one then."""
    subject: Subject | None = None
    """Whose standing it is evidence on, where the receipt does not tell it all."""
    remade: Remade | None = None
    """Of embeddings: what the verifier's embedder makes of the request; None: it has none."""
    picked: bool = False
    """Somebody chose it: a node could bring its good answers only, and an enemy of it its worst. A
    fault stays a fault, and its scores say nothing of the subject."""
    counted: bool = False
    """The very same scores have counted before (``novelty``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What a verdict says, and the state to go on from."""

    checks: tuple[Check, ...]
    result: Result
    kind: Kind
    regime: Regime
    subject: Subject
    trials: Trials | None
    state: State
    bundle: bytes

    @property
    def standing(self) -> Standing:
        return self.state.standing

    @property
    def evidence(self) -> StandingEvidence:
        return self.state.evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What the checks of an answer came to."""

    kind: Kind
    checks: list[Check]
    trials: Trials | None = None
    compared: Compared | None = None
    """Of its log-probabilities, where any were asked for and could be compared."""


def judge(case: Case, before: State | None) -> Judged:
    """Judge ``case``. ``before``: the subject's state so far; None: nothing is known of it.

    A state of another calibration goes on as :func:`~trunkline.audit.standing.adopt` says.
    """
    calibration = case.calibration
    if before is None:
        before = State.start(calibration)
    elif before.calibration != calibration.digest:
        before = adopt(before, calibration)
    found = _examine(case)
    checks, trials = found.checks, found.trials
    if case.counted and trials is not None and calibration.regime == "noisy":
        checks.append(novelty.COUNTED)
    result = total(checks)
    after = moved(before, calibration, trials, checks, picked=case.picked)
    subject = about(case)
    made = Bundle(
        calibration=calibration.digest,
        checks=tuple(checks),
        evidence=after.evidence,
        kind=found.kind,
        logprobs=msgspec.UNSET if found.compared is None else found.compared,
        picked=case.picked,
        previous=encode_state(before).decode(),
        receipt=case.leaf.hex(),
        regime=calibration.regime,
        result=result,
        standing=after.standing,
        subject=subject,
        trials=msgspec.UNSET if trials is None else trials,
    )
    return Judged(
        checks=made.checks,
        result=result,
        kind=found.kind,
        regime=made.regime,
        subject=subject,
        trials=trials,
        state=after,
        bundle=bundle.encode(made),
    )


def about(case: Case) -> Subject:
    """Whose standing ``case`` is evidence on."""
    return case.subject or subject_of(case.receipt, case.calibration)


def subject_of(receipt: Receipt, calibration: Calibration) -> Subject:
    """Whose standing a receipt is evidence on.

    A receipt's texts have no bounds of their own, a verdict's have: what is longer is cut, so that
    no node can have names that keep a verdict from being written.
    """
    return Subject(
        configuration=calibration.parties.configuration,
        key=receipt.key,
        model=_name(receipt.model.served),
        node=receipt.node,
        numerics=receipt.model.numerics[:TEXT_CHARS_MAX],
        operator=_name(receipt.operator),
        weights=receipt.model.weights,
    )


def _name(text: str) -> str:
    return text[:NAME_BYTES_MAX] or NAMELESS


def moved(
    before: State,
    calibration: Calibration,
    trials: Trials | None,
    checks: Sequence[Check],
    *,
    picked: bool,
) -> State:
    """The subject's state after an answer with these checks and trials."""
    fault, closed = at_fault(checks), is_closed(checks)
    if picked or not novelty.counts(checks):
        return update(before, calibration, None, fault=fault, closed=closed)
    passed = total(checks) == "pass"
    return update(before, calibration, trials, fault=fault, passed=passed, closed=closed)


def at_fault(checks: Sequence[Check]) -> bool:
    """Whether a check failed that needs no statistics."""
    return any(check.result == "fail" and check.name != bundle.REPLAY for check in checks)


def _examine(case: Case) -> _Found:
    receipt = case.receipt
    if not receipt.policy.audit:
        return _Found(kind="opening", checks=[NOT_ALLOWED])
    if case.content is None:
        return _Found(kind="opening", checks=[_unopened(case.reason)])
    if not receipt.model.weights:
        return _Found(kind="opening", checks=[NOT_KNOWN])
    if case.entry is not None and _half_opened(receipt, case.content):
        return _Found(kind="opening", checks=[HALF])
    if repeated.is_repeated(receipt):
        return _repeated(case, case.content)
    return _made(case, case.content)


def _half_opened(receipt: Receipt, opened: OpenedContent) -> bool:
    """Whether the receipt hides what no salt opens. Whoever calls a node is not shown all salts;
    its node has them, or could leave out what would tell."""
    return any(
        item not in opened.salts and binds(receipt, item, "", {}) is None
        for item in ITEMS
        if item != CLOSED
    )


def _repeated(case: Case, opened: OpenedContent) -> _Found:
    """An answer given again: its origin is held against the model, and it against its origin."""
    receipt, origin = case.receipt, case.origin
    came_from = repeated.check_origin(receipt, origin)
    if origin is None or came_from.result == "fail":
        return _Found(kind="accounting", checks=[came_from])
    if case.entry is not None and _half_opened(origin.receipt, origin.content):
        return _Found(kind="opening", checks=[HALF])
    made = replace(
        case,
        receipt=origin.receipt,
        leaf=origin.leaf,
        content=origin.content,
        entry=origin.entry if case.entry is not None else None,
    )
    found = _made(made, origin.content)
    read = None if embedding.is_embedding(receipt) else _read(made, origin.content)
    answer = repeated.check_answer(receipt, opened, read)
    return replace(found, checks=[came_from, answer, *found.checks])


def _made(case: Case, opened: OpenedContent) -> _Found:
    if embedding.is_embedding(case.receipt):
        return _embedded(case, opened)
    return _opened(case, opened)


def _unopened(reason: str) -> Check:
    if reason in FAULTS:
        return failed(OPENED, "the node did not open what it had signed")
    return inconclusive(OPENED, "the node no longer has it, or never kept it")


def _embedded(case: Case, opened: OpenedContent) -> _Found:
    calibration, remade = case.calibration, case.remade
    checks = embedding.check(case.receipt, opened, remade)
    trials = embedding.trials(opened, remade, checks, clip=float(calibration.clip))
    if trials is not None and calibration.regime == "exact":
        trials = trials.counted()
    why = embedding.why_not(remade)
    if case.unmeasured == OTHER_RULES:
        why, answer = OTHER_RULES, inconclusive(content.RESPONSE, OTHER_RULES)
        checks = [answer if check.name == answer.name else check for check in checks]
    compared = replay_check(trials, calibration.regime, "embedding", why)
    return _Found(kind="embedding", checks=[*checks, compared], trials=trials)


def _opened(case: Case, opened: OpenedContent) -> _Found:
    receipt, calibration, measured = case.receipt, case.calibration, case.measured
    read = _read(case, opened)
    checks = [*content.check(read), *_origin_of_seed(case, read)]
    if case.entry is not None and case.whole and content.LOGPROBS_CLOSED in checks:
        return _Found(kind="opening", checks=[HALF])
    bound = all(check.result == "pass" for check in checks if check.name in content.BINDING)
    trials = None
    if measured is not None and not measured.unreachable and bound and _complete(measured, opened):
        trials = trials_of(measured, receipt, calibration)
    proven = trials is not None and calibration.regime == "exact" and not trials.mismatches
    checks += accounting.check(read, calibration, proven=proven)
    if case.context_doubted:
        doubted = inconclusive(accounting.FINISH, OTHER_CONTEXT)
        checks = [doubted if check.name == accounting.FINISH else check for check in checks]
    why = case.unmeasured if measured is None else measured.unreachable or NOTHING_OWN
    checks.append(replay_check(trials, calibration.regime, "replay", why))
    said, compared = logprobs.check(read, checks, calibration.regime)
    if said is not None:
        checks.append(said)
    return _Found(kind="replay", checks=checks, trials=trials, compared=compared)


def _read(case: Case, opened: OpenedContent) -> content.Opened:
    return content.open_(
        case.receipt, opened, case.measured, case.context_tokens, unmeasured=case.unmeasured
    )


def trials_of(measured: Measured, receipt: Receipt, calibration: Calibration) -> Trials | None:
    """The trials of the receipt's own tokens, with a score for each; None: it has none. Only for
    an opening that its receipt binds."""
    given = receipt.response.resumed
    if given and len(given) != len(measured.scores):
        return None
    trials = quantise(
        measured.scores,
        clip=float(calibration.clip),
        end_tokens=frozenset(measured.model.eos_token_ids),
        given=given,
    )
    if not trials.tokens:
        return None
    return trials.counted() if calibration.regime == "exact" else trials


def _origin_of_seed(case: Case, read: content.Opened) -> list[Check]:
    if read.request is None:
        return [inconclusive(nonces.SEED, "the request that was opened is none that can be read")]
    return [
        nonces.check_seed(case.receipt, read.request),
        nonces.check_nonce(
            case.receipt,
            read.content.nonce,
            case.key,
            used_by=case.nonce_used_by,
            noted_at=case.nonces_entry,
            unlogged=case.nonces_unlogged,
            entry=case.entry,
            origin=case.nonce_origin,
        ),
    ]


def _complete(measured: Measured, opened: OpenedContent) -> bool:
    """A score for every token, and for no other."""
    scored = [[score.token for score in choice] for choice in measured.scores]
    return scored == [list(choice) for choice in opened.tokens]
