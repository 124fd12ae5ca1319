"""What a policy makes of the checkpoints in one evidence file: each is checked once.

Several proofs may lead to one checkpoint. And an ML-DSA-44 signature takes a reader in a browser
milliseconds, where a file has room for thousands: it refuses to check more of them than files have
that anybody makes, and says nothing of the checkpoints that have the others.
"""

from collections import Counter
from collections.abc import Callable
from typing import Final, TypeVar

from trunkline.base.errors import Error
from trunkline.crypto import note
from trunkline.crypto.keys import COSIGNATURE_ML_DSA_44
from trunkline.tlog.checkpoint import Checkpoint
from trunkline.tlog.policy import Policy

ML_DSA_CHECKS_MAX: Final = 1024
"""Of a file: 32 checkpoints, each with as many witnesses as tlog-policy asks readers to take."""
TOO_MANY: Final = "its file has more ML-DSA-44 signatures than are checked"

T = TypeVar("T")


class Checkpoints:
    """The checkpoints of one file, in the order in which its proofs are looked at."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        keys = [log.key for log in policy.logs] + [one.key for one in policy.witnesses]
        self._costly = Counter(
            (key.name, key.key_id) for key in keys if key.algorithm == COSIGNATURE_ML_DSA_44
        )
        """Keys by what a line says of its key: it is checked by each of them."""
        self._left = ML_DSA_CHECKS_MAX
        self._signed: dict[bytes, Checkpoint | Error | None] = {}
        self._cosigned: dict[bytes, tuple[tuple[str, int], ...] | Error] = {}

    def signed(self, checkpoint_note: bytes) -> Checkpoint | None:
        """As :meth:`Policy.signed`; None if there are too many signatures to say."""
        return _once(self._signed, checkpoint_note, self._check)

    def cosigned(self, checkpoint_note: bytes) -> tuple[tuple[str, int], ...]:
        """As :meth:`Policy.cosigned`, for a checkpoint that :meth:`signed` gave."""
        return _once(self._cosigned, checkpoint_note, self.policy.cosigned)

    def _check(self, checkpoint_note: bytes) -> Checkpoint | None:
        lines = note.parse(checkpoint_note).signatures
        checks = sum(self._costly[line.name, line.key_id] for line in lines)
        if checks > self._left:
            return None
        self._left -= checks
        return self.policy.signed(checkpoint_note)


def _once(known: dict[bytes, T | Error], data: bytes, check: Callable[[bytes], T]) -> T:
    """What ``check`` gives or raises of ``data``, remembered."""
    if data not in known:
        try:
            known[data] = check(data)
        except Error as error:
            known[data] = error
    found = known[data]
    if isinstance(found, Error):
        raise found
    return found
