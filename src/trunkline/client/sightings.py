"""The largest checkpoint of each log that this app has seen, and the alarm when two contradict.

Only what passed every step comes here, so each checkpoint is signed by a log of the app's policy.
Two roots for one size are two signed statements that can not both be true: that file of portable
evidence (``docs/spec/split-view.md``) is the error's ``evidence``. Trees of different sizes are
compared by whoever has the log at hand; what was seen is in :attr:`Sightings.notes` for that.
"""

from typing import ClassVar

from trunkline.base.errors import Error, VerificationError
from trunkline.evidence import decode, split_view
from trunkline.tlog import proof
from trunkline.tlog.checkpoint import Checkpoint
from trunkline.tlog.policy import Policy


class SplitViewError(VerificationError):
    """A log showed this app two different trees of one size. ``evidence``: a split-view file."""

    code: ClassVar[str] = "split_view"

    def __init__(self, origin: str, evidence: bytes) -> None:
        super().__init__(f"the log {origin} signed two trees of one size")
        self.evidence = evidence


class Sightings:
    """In memory; shared by all calls of one wrapped client."""

    def __init__(self, policy: str) -> None:
        """``policy``: whose logs count; empty: none does, and nothing is kept."""
        self._policy = Policy.parse(policy) if policy else None
        self._seen: dict[str, tuple[Checkpoint, bytes]] = {}

    @property
    def notes(self) -> tuple[bytes, ...]:
        """The largest checkpoint seen of each log, as signed."""
        return tuple(signed for _, signed in self._seen.values())

    def see(self, evidence: bytes) -> None:
        """Keep the checkpoints of an evidence file that passed. Raises :class:`SplitViewError`."""
        for part in decode(evidence).parts:
            if part.proof is not None and self._policy is not None:
                self._see(proof.parse(part.proof.encode()).checkpoint_note, self._policy)

    def _see(self, signed: bytes, policy: Policy) -> None:
        try:
            accepted = policy.accepts(signed)
        except Error:
            return
        tree = accepted.checkpoint
        known = self._seen.get(tree.origin)
        if known is not None and known[0].size == tree.size and known[0].root != tree.root:
            both = split_view.encode(accepted.log_key, (known[1], signed), ())
            raise SplitViewError(tree.origin, both)
        if known is None or known[0].size < tree.size:
            # As many as the policy has logs.
            self._seen[tree.origin] = (tree, signed)
