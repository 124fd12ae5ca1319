"""Steps 9 to 12: is each batch in a log that the policy knows, under a checkpoint that enough
witnesses have cosigned?

C2SP tlog-proof and tlog-policy. The log's entry is the batch's signed note, byte for byte. A policy
that only the file itself carries makes the steps no more than consistent: its writer chose it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from trunkline.base.errors import Error, QuorumError
from trunkline.crypto import merkle
from trunkline.evidence.checkpoints import TOO_MANY, Checkpoints
from trunkline.evidence.node import Part
from trunkline.evidence.report import Finding, failed, inconclusive, passed, plain
from trunkline.receipts.batch import note_bytes
from trunkline.tlog import proof as tlog_proof
from trunkline.tlog.checkpoint import Checkpoint
from trunkline.tlog.policy import NO_QUORUM, Policy

PROVISIONAL = inconclusive("no proof yet: the receipt is provisional")
NO_POLICY = inconclusive("not checked: no policy says which logs and witnesses count")


@dataclass(slots=True, kw_only=True)
class Logged:
    """One part's proof while it is checked."""

    part: Part
    proof: tlog_proof.Proof | None = None
    checkpoint: Checkpoint | None = None
    """Once a log of the policy is known to have signed it."""
    witnessed_s: int = 0
    """By when the quorum's witnesses had all seen the checkpoint, Unix seconds; 0: they do not say
    so."""
    problem: str = ""
    """Why there is no ``proof`` although the file has one."""


def read_proof(part: Part) -> Logged:
    """Parse the part's proof, if it has one."""
    text = part.source.proof
    if text is None:
        return Logged(part=part)
    try:
        return Logged(part=part, proof=tlog_proof.parse(text.encode()))
    except UnicodeEncodeError:
        return Logged(part=part, problem="the proof is not Unicode")
    except Error as error:
        return Logged(part=part, problem=error.message)


def check_policy(given: Policy | None, stated: str | None) -> tuple[Policy | None, Finding]:
    """Step 9: which policy the proofs are held against."""
    if given is not None:
        return given, passed(f"your policy: {_describe(given)}")
    if stated is None:
        return None, inconclusive("no policy, neither given nor in the file")
    try:
        policy = Policy.parse(stated.encode())
    except UnicodeEncodeError:
        return None, failed("the file's policy is not Unicode")
    except Error as error:
        return None, failed(f"the file's policy: {error.message}")
    return policy, inconclusive(
        f"the file's own policy: {_describe(policy)}; whoever wrote the file chose them"
    )


def _describe(policy: Policy) -> str:
    return f"{len(policy.logs)} logs, {len(policy.witnesses)} witnesses"


def check_log(logged: Logged, checkpoints: Checkpoints | None) -> Finding:
    """Step 10: a log of the policy signed the checkpoint."""
    if logged.problem:
        return failed(logged.problem)
    if logged.proof is None:
        return PROVISIONAL
    if checkpoints is None:
        return NO_POLICY
    try:
        logged.checkpoint = checkpoints.signed(logged.proof.checkpoint_note)
    except Error as error:
        return failed(error.message)
    if logged.checkpoint is None:
        return inconclusive(f"not checked: {TOO_MANY}")
    return passed(f"{plain(logged.checkpoint.origin)} at size {logged.checkpoint.size}")


def contradiction(parts: Sequence[Logged]) -> Finding | None:
    """Step 10, over all parts: one log that signed two trees of one size has forked."""
    roots: dict[tuple[str, int], bytes] = {}
    for logged in parts:
        tree = logged.checkpoint
        if tree is not None and roots.setdefault((tree.origin, tree.size), tree.root) != tree.root:
            return failed(
                f"{plain(tree.origin)} signed two trees of size {tree.size}: keep this file"
            )
    return None


def check_quorum(logged: Logged, checkpoints: Checkpoints | None) -> Finding:
    """Step 11: enough witnesses of the policy cosigned the checkpoint."""
    if logged.proof is None:
        return PROVISIONAL if not logged.problem else inconclusive("not checked: no proof")
    if checkpoints is None:
        return NO_POLICY
    if logged.checkpoint is None:
        return inconclusive("not checked: the checkpoint is not the log's")
    policy = checkpoints.policy
    try:
        witnesses = checkpoints.cosigned(logged.proof.checkpoint_note)
    except QuorumError as error:
        return inconclusive(error.message)
    except Error as error:
        return failed(error.message)
    # 0 is a witness that says nothing of time.
    timed = {name: seen_s for name, seen_s in witnesses if seen_s}
    logged.witnessed_s = max(timed.values(), default=0) if policy.is_quorum(timed.keys()) else 0
    if policy.quorum == NO_QUORUM:
        return passed(
            "the policy asks for no witnesses: a log that shows others another tree is not noticed"
        )
    names = ", ".join(plain(name) for name, _ in witnesses)
    return passed(f"quorum {plain(policy.quorum)}, cosigned by {names}")


def check_inclusion(logged: Logged) -> Finding:
    """Step 12: the batch's note is the log's entry at the proof's index."""
    if logged.proof is None:
        return PROVISIONAL if not logged.problem else inconclusive("not checked: no proof")
    if logged.checkpoint is None:
        return inconclusive("not checked: no log of the policy vouches for the tree")
    tree, proof = logged.checkpoint, logged.proof
    try:
        leaf = merkle.leaf_hash(note_bytes(logged.part.source.signed))
        merkle.verify_inclusion(leaf, proof.index, tree.size, proof.path, tree.root)
    except Error as error:
        return failed(error.message)
    return passed(f"the batch is entry {proof.index} of {plain(tree.origin)}")
