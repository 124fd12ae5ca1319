"""The largest checkpoint of each log that this app has seen, and the alarm when two contradict.

Only what passed every step comes here, so each checkpoint is signed by a log of the app's policy.
Two roots for one size are two signed statements that can not both be true: that file of portable
evidence (``docs/spec/split-view.md``) is the error's ``evidence``. Trees of different sizes are
compared by whoever has the log at hand; what was seen is in :attr:`Sightings.notes` for that.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from threading import Lock
from typing import ClassVar, Protocol

from trunkline.base.errors import Error, VerificationError
from trunkline.evidence import decode, split_view
from trunkline.tlog import proof
from trunkline.tlog.checkpoint import Checkpoint
from trunkline.tlog.policy import Accepted, Policy


class SplitViewError(VerificationError):
    """A log showed this app two different trees of one size. ``evidence``: a split-view file."""

    code: ClassVar[str] = "split_view"

    def __init__(self, origin: str, evidence: bytes) -> None:
        super().__init__(f"the log {origin} signed two trees of one size")
        self.evidence = evidence


class Keeps(Protocol):
    """Where sightings outlive the process: :class:`trunkline.client.sightings_file`."""

    def held(self) -> AbstractContextManager[None]: ...

    def read(self) -> tuple[bytes, ...]: ...

    def write(self, notes: Sequence[bytes]) -> None: ...


class Sightings:
    """Shared by all calls of one wrapped client, from any thread. In memory, and where a file is
    given also there, so that an earlier run and other processes count as well."""

    def __init__(self, policy: str, file: Keeps | None = None) -> None:
        """``policy``: whose logs count; empty: none does, and nothing is kept. With a file: raises
        what reading it raises, and :class:`SplitViewError`."""
        self._policy = Policy.parse(policy) if policy else None
        self._seen: dict[str, tuple[Checkpoint, bytes]] = {}
        self._others: dict[bytes, None] = {}
        """Notes in the file by logs that this policy does not know: theirs who wrote them."""
        self._file = file
        self._lock = Lock()
        if file is not None and self._policy is not None:
            with file.held():
                self._recall(file, self._policy)

    @property
    def notes(self) -> tuple[bytes, ...]:
        """The largest checkpoint seen of each log, as signed."""
        return tuple(signed for _, signed in self._seen.values())

    def see(self, evidence: bytes) -> None:
        """Keep the checkpoints of an evidence file that passed; with a file, blocks until they are
        durable. Raises :class:`SplitViewError`, and what the file raises."""
        for part in decode(evidence).parts:
            if part.proof is not None and self._policy is not None:
                self._see(proof.parse(part.proof.encode()).checkpoint_note, self._policy)

    def _see(self, signed: bytes, policy: Policy) -> None:
        try:
            accepted = policy.accepts(signed)
        except Error:
            return
        with self._lock:
            before = dict(self._seen)
            # What is not larger than what this process knows is in the file already.
            if not self._take(accepted, signed) or self._file is None:
                return
            try:
                with self._file.held():
                    self._recall(self._file, policy)
                    self._file.write((*self.notes, *self._others))
            except BaseException:
                # Not kept: the next answer tries again.
                self._seen = before
                raise

    def _recall(self, file: Keeps, policy: Policy) -> None:
        """Take what others have written since."""
        self._others.clear()
        for note in file.read():
            try:
                accepted = policy.accepts(note)
            except Error:
                self._others[note] = None
            else:
                self._take(accepted, note)

    def _take(self, accepted: Accepted, signed: bytes) -> bool:
        """Whether this is larger than all that was seen of its log."""
        tree = accepted.checkpoint
        known = self._seen.get(tree.origin)
        if known is not None and known[0].size == tree.size and known[0].root != tree.root:
            both = split_view.encode(accepted.log_key, (known[1], signed), ())
            raise SplitViewError(tree.origin, both)
        if known is not None and known[0].size >= tree.size:
            return False
        # As many as the policy has logs.
        self._seen[tree.origin] = (tree, signed)
        return True
