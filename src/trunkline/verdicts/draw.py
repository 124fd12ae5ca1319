"""Draws: which receipts a verifier audits, by chance that came after they were signed and logged.

Specified in ``docs/spec/verdict.md``. The chance is a value of a chain that the verifier had
announced before the entry was there (``chain``). Before its first chain, and for nodes that do not
know of chains, it is the witnesses' signatures under a checkpoint that holds the receipts: nobody
could foresee them, but a verifier that asked for several has several to choose from. A verifier
signs and logs the draw before it asks for a single opening, one range of the log after the other,
so that anybody can draw again and see that it asked for what was drawn, skipped nothing and drew
nothing twice.

It refuses to draw from signatures that are not the policy's: whoever may add a line of his own to
a checkpoint's note may choose what is drawn.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import UNSET, UnsetType

from trunkline.base.errors import MalformedError, SignatureError
from trunkline.crypto import merkle, note
from trunkline.crypto.digest import sha256
from trunkline.tlog.checkpoint import Checkpoint
from trunkline.tlog.policy import Policy
from trunkline.tlog.tile import ENTRY_BYTES_MAX
from trunkline.verdicts.chain import Bound, Chain, chances
from trunkline.verdicts.record import Count, Key, Name, Record

DRAW_TYPE = "trunkline.draw/v1"
DRAWN_ENTRIES_MAX = 10_000
"""Entries in one draw."""
RATE_PPM_MAX = 1_000_000
OPINIONS = 2
"""Verifiers that audit one drawn receipt."""

_DOMAIN = b"trunkline.draw/v1\n"
_BITS = 64


class Draw(Record, frozen=True, kw_only=True):
    """A verifier's draw from the entries ``from_`` to before ``to`` of one log."""

    TYPE: ClassVar[str] = DRAW_TYPE
    NOTE_BYTES_MAX: ClassVar[int] = ENTRY_BYTES_MAX

    bound: Annotated[tuple[Bound, ...], msgspec.Meta(min_length=1, max_length=2)] | UnsetType = (
        UNSET
    )
    """What it shows of the chains that are for its entries. Absent: there was none."""
    checkpoint: Annotated[str, msgspec.Meta(max_length=ENTRY_BYTES_MAX)]
    """The cosigned checkpoint, a signed note, as :func:`plain_checkpoint` has it."""
    from_: Count = msgspec.field(name="from")
    """The ``to`` of this verifier's draw before, from the same log."""
    key: Key
    next: Chain | UnsetType = UNSET
    """A chain that it announces, for entries that are not in the log yet."""
    operator: Name
    rate_ppm: Annotated[int, msgspec.Meta(ge=0, le=RATE_PPM_MAX)]
    """Receipts drawn of a million."""
    to: Count
    """The checkpoint's size, or ``from_`` and 10,000 where that is less."""
    type: Literal["trunkline.draw/v1"] = "trunkline.draw/v1"
    unix_ms: Count

    def check(self) -> None:
        super().check()
        size = self.tree().size
        if self.to <= self.from_:
            raise MalformedError("a draw has at least one entry")
        if self.to != range_end(self.from_, size):
            raise MalformedError("a draw ends where its checkpoint does, or after 10,000 entries")
        if not isinstance(self.next, UnsetType) and self.next.first < self.to:
            raise MalformedError("a draw announces a chain for entries that it draws from")
        shown = self.shown()
        if any(after.first < before.end for before, after in pairwise(shown)):
            raise MalformedError("a draw shows two chains for one entry")
        self.chances()

    def shown(self) -> tuple[Chain, ...]:
        """The chains that it is drawn by."""
        return () if isinstance(self.bound, UnsetType) else tuple(one.chain for one in self.bound)

    def announced(self) -> Chain | None:
        """The chain that it announces."""
        return None if isinstance(self.next, UnsetType) else self.next

    def chances(self) -> dict[int, bytes]:
        """The chance of each of its entries that a chain is for. Takes a hash for each."""
        found: dict[int, bytes] = {}
        for one in () if isinstance(self.bound, UnsetType) else self.bound:
            found |= chances(one, self.from_, self.to)
        return found

    def chance(self, entry: int) -> bytes:
        """32 bytes: what is drawn with from the batch at ``entry``."""
        return self.chances().get(entry) or self.randomness()

    def tree(self) -> Checkpoint:
        """The checkpoint that the draw is made under; not verified, see :func:`check_draw`."""
        return Checkpoint.parse(note.parse(_utf8(self.checkpoint)).text)

    def randomness(self) -> bytes:
        """32 bytes: see :func:`randomness`."""
        return randomness(_utf8(self.checkpoint))

    def chosen(
        self,
        entry: int,
        count: int,
        *,
        rate_ppm_max: int = RATE_PPM_MAX,
        chance: bytes | None = None,
    ) -> tuple[int, ...]:
        """Indices of the receipts drawn of a batch that is the log's entry ``entry``, and of which
        the first ``count`` may be audited, for all that it says.

        None of them for an entry outside the draw's range. By the node's terms: ``rate_ppm_max``,
        and ``chance``, where it is not :meth:`chance`.
        """
        if not self.from_ <= entry < self.to:
            return ()
        chance = self.chance(entry) if chance is None else chance
        rate_ppm = min(self.rate_ppm, rate_ppm_max)
        return tuple(leaf for leaf in range(count) if drawn(chance, rate_ppm, entry, leaf))


def range_end(from_: int, size: int) -> int:
    """Where a draw that starts at ``from_`` ends, under a checkpoint of ``size`` entries."""
    return min(size, from_ + DRAWN_ENTRIES_MAX)


def plain_checkpoint(checkpoint_note: bytes, policy: Policy) -> bytes:
    """The note with the signatures of the policy's log and witnesses alone, in the policy's order.

    Those of others say nothing to a reader, and could be had in any number. Raises what
    :meth:`Policy.accepts` does.
    """
    accepted = policy.accepts(checkpoint_note)
    parsed = note.parse(checkpoint_note)
    keys = (accepted.log_key, *(witness.key for witness in policy.witnesses))
    # One line of each key: a witness that cosigned twice would give two draws to choose from.
    lines = [next((one for one in parsed.signatures if one.is_by(key)), None) for key in keys]
    return note.format(parsed.text, [line for line in lines if line is not None])


def check_draw(draw: Draw, policy: Policy) -> None:
    """Check that a log and enough witnesses of ``policy`` signed the draw's checkpoint, and no
    others.

    Raises :class:`MalformedError`, :class:`SignatureError` or :class:`QuorumError`.
    """
    data = _utf8(draw.checkpoint)
    if plain_checkpoint(data, policy) != data:
        raise SignatureError(
            "the draw's checkpoint has signatures that are not the policy's, or in another order",
            code="draw_not_plain",
        )


def randomness(checkpoint_note: bytes) -> bytes:
    """What is drawn with: SHA-256 of the cosigned checkpoint's note, in the draw's domain."""
    return sha256(_DOMAIN + checkpoint_note)


def drawn(chance: bytes, rate_ppm: int, entry: int, leaf: int) -> bool:
    """Whether receipt ``leaf`` of the batch at ``entry`` is drawn.

    ``chance``: 32 bytes, :func:`randomness`. A receipt is drawn with probability
    ``rate_ppm``/1,000,000, independently of all others.
    """
    hashed = sha256(chance + entry.to_bytes(8, "big") + leaf.to_bytes(4, "big"))
    return int.from_bytes(hashed[: _BITS // 8], "big") * RATE_PPM_MAX < rate_ppm << _BITS


def opinions(
    chance: bytes,
    leaf: bytes,
    verifiers: Mapping[str, str],
    drawn_by: str,
    count: int = OPINIONS,
) -> tuple[str, ...]:
    """Names of the verifiers that audit a drawn receipt, the one that drew it first.

    ``leaf`` is the receipt's 32-byte leaf hash; ``verifiers`` the operator of each verifier by its
    key's name; ``count`` how many are asked for. The others are those with the lowest
    SHA-256(chance ‖ leaf ‖ key name); those of operators that have no say yet come first.
    """
    if len(leaf) != merkle.HASH_BYTES:
        raise ValueError("a leaf hash has 32 bytes")
    ranked = sorted(
        (name for name in verifiers if name != drawn_by),
        key=lambda name: sha256(chance + leaf + name.encode()),
    )
    chosen = [drawn_by]
    operators = {verifiers.get(drawn_by)}
    for name in ranked:
        if len(chosen) < count and verifiers[name] not in operators:
            chosen.append(name)
            operators.add(verifiers[name])
    spare = [name for name in ranked if name not in chosen]
    return tuple(chosen + spare[: max(0, count - len(chosen))])


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise MalformedError("a checkpoint that is not Unicode") from error
