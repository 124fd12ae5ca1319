"""What an entry of the log is to a verifier: a node's batch, nonces or terms, a verifier's
statement.

Only what one of the configured keys signed is anything. The rest of the log belongs to others, and
is followed for the tree's sake alone. Malformed entries are nobody's fault here: the log takes
what it likes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, assert_never

from trunkline.base.errors import MalformedError, VerificationError
from trunkline.crypto import note
from trunkline.crypto.digest import digest
from trunkline.crypto.keys import VerifierKey
from trunkline.receipts import NONCES_TYPE, open_nonces
from trunkline.receipts.batch import BATCH_TYPE, open_batch
from trunkline.verdicts import (
    COMMITMENT_TYPE,
    DRAW_TYPE,
    PLANT_OPENING_TYPE,
    SELF_TEST_TYPE,
    TERMS_TYPE,
    VERDICT_TYPE,
    Commitment,
    Draw,
    SelfTest,
    Terms,
    Verdict,
    open_plant,
)

Kind = Literal["draw", "own_draw", "commitment", "verdict", "plant", "self_test"]
"""``own_draw``: by this verifier's key, whichever process or store made it. ``plant``: an opened
one, by any verifier's, this one's too. ``self_test``: a node's."""
_STATEMENTS: Final[Mapping[bytes, Kind]] = {
    DRAW_TYPE.encode(): "draw",
    COMMITMENT_TYPE.encode(): "commitment",
    VERDICT_TYPE.encode(): "verdict",
    PLANT_OPENING_TYPE.encode(): "plant",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchEntry:
    """A node's batch of receipts."""

    index: int
    node: str
    """The node's vkey."""
    root: bytes
    count: int
    unix_ms: int
    audited: int | None
    """How many of its receipts may be audited, the first; None: it does not say."""

    @property
    def drawable(self) -> int:
        """How many receipts, from the first, a draw draws from."""
        return self.count if self.audited is None else self.audited


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementEntry:
    """A verifier's signed record, or a node's self-test."""

    index: int
    kind: Kind
    key: str
    """The signer's vkey."""
    about: str
    """Leaf hash (hex) of the receipt that it is about; empty for a draw."""
    note: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NoncesEntry:
    """A node's commitment to nonces that it will use."""

    index: int
    digest: str
    """Of the signed note."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TermsEntry:
    """What a node lets be audited of its batches after this entry."""

    index: int
    node: str
    """The node's vkey."""
    note: bytes


Entry = BatchEntry | NoncesEntry | StatementEntry | TermsEntry


class Reader:
    """Reads entries, knowing whose count."""

    def __init__(
        self,
        nodes: Mapping[str, VerifierKey],
        verifiers: Mapping[str, VerifierKey],
        own: VerifierKey,
    ) -> None:
        """``nodes`` and the other ``verifiers`` by the name of the key; ``own``: this one's."""
        self._nodes = nodes
        self._verifiers = verifiers
        self._own = own

    def read(self, index: int, entry: bytes) -> Entry | None:
        """What the entry is; None for what is nothing to this verifier."""
        first, _, _ = entry.partition(b"\n")
        try:
            if first == BATCH_TYPE.encode():
                return self._batch(index, entry)
            if first == NONCES_TYPE.encode():
                return self._nonces(index, entry)
            if first == TERMS_TYPE.encode():
                return self._terms(index, entry)
            if first == SELF_TEST_TYPE.encode():
                return self._self_test(index, entry)
            kind = _STATEMENTS.get(first)
            return None if kind is None else self._statement(index, kind, entry)
        except (MalformedError, VerificationError):
            return None

    def _batch(self, index: int, entry: bytes) -> BatchEntry | None:
        key = _signer(entry, self._nodes)
        if key is None:
            return None
        batch = open_batch(entry, key)
        return BatchEntry(
            index=index,
            node=str(key),
            root=batch.root,
            count=batch.count,
            unix_ms=batch.unix_ms,
            audited=batch.audited,
        )

    def _nonces(self, index: int, entry: bytes) -> NoncesEntry | None:
        key = _signer(entry, self._nodes)
        if key is None:
            return None
        open_nonces(entry, key)
        return NoncesEntry(index=index, digest=digest(entry))

    def _terms(self, index: int, entry: bytes) -> TermsEntry | None:
        key = _signer(entry, self._nodes)
        if key is None:
            return None
        Terms.open_note(entry, key)
        return TermsEntry(index=index, node=str(key), note=entry)

    def _self_test(self, index: int, entry: bytes) -> StatementEntry | None:
        key = _signer(entry, self._nodes)
        if key is None:
            return None
        SelfTest.open_note(entry, key)
        return StatementEntry(index=index, kind="self_test", key=str(key), about="", note=entry)

    def _statement(self, index: int, kind: Kind, entry: bytes) -> StatementEntry | None:
        key = _signer(entry, self._verifiers)
        if kind == "draw" and key is None:
            kind, key = "own_draw", _signer(entry, {self._own.name: self._own})
        elif kind == "plant" and key is None:
            key = _signer(entry, {self._own.name: self._own})
        if key is None:
            return None
        about = ""
        match kind:
            case "draw" | "own_draw":
                Draw.open_note(entry, key)
            case "commitment":
                about = Commitment.open_note(entry, key).receipt
            case "verdict":
                about = Verdict.open_note(entry, key).receipt
            case "plant":
                about = open_plant(entry, (key,), self._nodes.values()).leaf
            case "self_test":
                return None
            case _:
                assert_never(kind)
        return StatementEntry(index=index, kind=kind, key=str(key), about=about, note=entry)


def _signer(entry: bytes, keys: Mapping[str, VerifierKey]) -> VerifierKey | None:
    """The key that the note's only signature claims to be by."""
    signatures = note.parse(entry).signatures
    return keys.get(signatures[0].name) if len(signatures) == 1 else None
