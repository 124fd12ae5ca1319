"""What an exact cache may keep and give again: keys, entries, bounds. Pure: no clock, no I/O.

Two attempts share an entry only if everything that the answer is made from is the same, to the
byte, and their gateway says that they may share (``docs/spec/attempt-protocol.md``, rule 18). It
refuses private answers, those that go on after another's part, and any that retries one: its
gateway may have found the kept answer to be at fault.
"""

from collections import OrderedDict
from collections.abc import Collection
from hashlib import sha256
from typing import Final

import msgspec

from trunkline.inference.answer import AnswerHead
from trunkline.node.core.content import Before
from trunkline.node.core.statement import Outcome
from trunkline.node.core.upstream import joined
from trunkline.receipts import ReceiptCached, ReceiptSampling
from trunkline.schema.attempt import Accepted, Attempt, Kind
from trunkline.schema.audit import REPEATED_MS_MAX
from trunkline.schema.parsing import top_level

CACHE_DOMAIN: Final = b"trunkline.cache/v1\n"
ENTRY_BYTES: Final = 2048
"""What an entry takes besides the answer's bytes, about."""
EVENT_BYTES: Final = 64
"""What each of its events takes besides."""
AUDITED_S_MAX: Final = REPEATED_MS_MAX / 1000 - 600
"""Longest that an answer is kept that may be audited; less than the rule, since clocks are set."""
ENTRIES_MIN: Final = 4
"""No answer takes more than its part of the space."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that was given, whole and signed for."""

    accepted: Accepted
    data: tuple[bytes, ...]
    """Of its unnamed events, in order; events without data are left out."""
    outcome: Outcome
    original: ReceiptCached
    """What the receipts of those who are given it say."""
    before: Before | None = None
    """What the receipts of those are opened with; None: they may not be audited, or not here."""

    @property
    def size_bytes(self) -> int:
        """What it takes in memory, about."""
        before = self.before
        opens = 0 if before is None else len(before.signed) + len(before.content.data)
        return ENTRY_BYTES + opens + sum(len(part) + EVENT_BYTES for part in self.data)


def may_keep(attempt: Attempt, kinds: Collection[Kind]) -> bool:
    """Whether the attempt's answer may be given to others."""
    return (
        bool(attempt.cache)
        and attempt.kind in kinds
        and attempt.mode != "private"
        and attempt.resume is None
        and attempt.prefix is None
    )


def may_take(attempt: Attempt, kinds: Collection[Kind]) -> bool:
    """Whether the attempt may be given an answer that was kept."""
    return may_keep(attempt, kinds) and attempt.seed is None and not attempt.previous


def cache_key(attempt: Attempt, weights: str) -> bytes:
    """What the answer depends on and who may share it: 32 bytes. ``weights``: empty if unknown.
    What may be audited comes from what may be: its origin is opened with it.

    Each part is preceded by its length, so that no two lists of parts are hashed alike. The request
    counts as its bytes, with all that they hold: seed, temperature, whether it streams.
    """
    hashed = sha256(CACHE_DOMAIN)
    audit = "audit" if attempt.audit else ""
    parts = (attempt.cache, attempt.kind, attempt.model, weights, audit)
    for part in (*(text.encode() for text in parts), bytes(attempt.request)):
        hashed.update(len(part).to_bytes(8, "big") + part)
    return hashed.digest()


def given_again(kept: Kept, attempt: Attempt) -> tuple[Accepted, tuple[bytes, ...], Outcome]:
    """What an attempt that is given the kept answer says: first event, data, outcome.

    The text is the original's; the answer's id and its time are this one's. Nothing is said that
    only whoever made the answer can say: no seed, no numerics, no tokens.
    """
    accepted = msgspec.structs.replace(
        kept.accepted,
        attempt=attempt.attempt,
        numerics=None,
        seed=None,
        node_nonce=None,
        nonces=None,
        nonce_index=0,
        cached=True,
    )
    outcome = msgspec.structs.replace(
        kept.outcome,
        model=msgspec.structs.replace(kept.outcome.model, numerics=""),
        sampling=ReceiptSampling(caller_nonce=attempt.caller_nonce, source="none"),
        prompt="",
        tokens="",
        cached=kept.original,
        before=kept.before,
    )
    return accepted, tuple(renamed(part, attempt) for part in kept.data), outcome


def renamed(data: bytes, attempt: Attempt) -> bytes:
    """A chunk or a whole answer under another attempt's id and time; other members' bytes are kept.

    Raises :class:`RequestError` for what is no JSON object within the bounds of one.
    """
    head = AnswerHead(
        answer=attempt.answer, created_s=attempt.created_s, model=attempt.model, fingerprint=""
    )
    named = {
        "id": msgspec.json.encode(head.completion_id),
        "created": msgspec.json.encode(attempt.created_s),
    }
    members = top_level(data)
    changes = {name: value for name, value in named.items() if name in members}
    return joined({**members, **changes}) if changes else data


class Entries:
    """Kept answers by key, at most ``bytes_max`` of them: those used longest ago go first."""

    def __init__(self, *, bytes_max: int, keep_s: float) -> None:
        self._bytes_max = bytes_max
        self._keep_s = keep_s
        self._entries: OrderedDict[bytes, tuple[Kept, float]] = OrderedDict()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def largest_bytes(self) -> int:
        """Most that one entry may take."""
        return self._bytes_max // ENTRIES_MIN

    def get(self, key: bytes, now_s: float) -> Kept | None:
        """The answer kept under ``key``, unless its time is over. Using it puts it last in line,
        and adds nothing to its time."""
        found = self._entries.get(key)
        if found is None:
            return None
        kept, until_s = found
        if now_s >= until_s:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return kept

    def put(self, key: bytes, kept: Kept, now_s: float) -> None:
        """Keep an answer, in place of what the key had. One that is too large is not kept."""
        self._drop(key)
        size_bytes = kept.size_bytes
        if size_bytes > self.largest_bytes:
            return
        while self.size_bytes + size_bytes > self._bytes_max:
            self._drop(next(iter(self._entries)))
        keep_s = self._keep_s if kept.before is None else min(self._keep_s, AUDITED_S_MAX)
        self._entries[key] = (kept, now_s + keep_s)
        self.size_bytes += size_bytes

    def _drop(self, key: bytes) -> None:
        found = self._entries.pop(key, None)
        if found is not None:
            self.size_bytes -= found[0].size_bytes
