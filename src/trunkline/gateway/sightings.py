"""The largest checkpoint that this gateway has seen of each log, and what follows from a new one.

Every checkpoint that a log of the policy signed is held against the largest one seen, whoever
brought it: the log, a witness, another gateway, a client. One that goes on from it takes its place,
durably; one that contradicts it becomes a split-view file (``docs/spec/split-view.md``), an alarm,
and the end of this log's word here: its proofs count no longer, and answers stay provisional. It
refuses to condemn a log for anything short of that, such as tiles that are missing or do not fit.
"""

import asyncio
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import msgspec

from trunkline.base.errors import (
    BadResponseError,
    ConsistencyError,
    CorruptStateError,
    Error,
    SignatureError,
)
from trunkline.crypto import note
from trunkline.crypto.digest import sha256
from trunkline.crypto.keys import VerifierKey
from trunkline.evidence import split_view
from trunkline.runtime.logger import Logger
from trunkline.tlog.checkpoint import CHECKPOINT_NOTE_BYTES_MAX, Checkpoint, open_checkpoint

FOLDER: Final = "sightings"
CHECKPOINT_SUFFIX: Final = ".checkpoint"
EVIDENCE_SUFFIX: Final = ".split-view.json"
AGREED_MAX: Final = 1024
UNPROVEN: Final = "log_consistency_unproven"


class SplitViewError(ConsistencyError):
    """A log of the policy contradicted itself: nothing that it says counts any more."""

    code = "log_split_view"

    def __init__(self, origin: str) -> None:
        super().__init__(
            f"{origin} signed two trees that contradict each other: it is no longer trusted"
        )
        self.origin = origin


class Prefixes(Protocol):
    """A log, as far as it matters here."""

    async def prefix_proof(self, size1: int, size2: int) -> list[bytes]:
        """Prefix proof between two of its sizes, not verified. Raises an UpstreamError."""
        ...


class Shelf:
    """Where sightings are kept: a folder with two files for each log. Every call blocks."""

    def __init__(self, data: Path) -> None:
        self.path = data / FOLDER

    def read(self, origin: str, suffix: str) -> bytes | None:
        """What was written last, None if nothing was. Raises OSError."""
        try:
            with (self.path / _name(origin, suffix)).open("rb") as file:
                return file.read(split_view.SPLIT_VIEW_BYTES_MAX + 1)
        except FileNotFoundError:
            return None

    def write(self, origin: str, suffix: str, data: bytes) -> Path:
        """Replace it durably, wholly or not at all. Raises OSError."""
        self.path.mkdir(mode=0o700, exist_ok=True)
        target = self.path / _name(origin, suffix)
        new = target.with_suffix(".new")
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(target)
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return target


def _name(origin: str, suffix: str) -> str:
    return sha256(origin.encode()).hex() + suffix


class LogSighting(msgspec.Struct, frozen=True, kw_only=True):
    """One log, in the gateway's status."""

    origin: str
    size: int
    """Of the largest checkpoint seen."""
    split_view: str | None
    """File of the evidence that it contradicted itself: it is no longer trusted. None: it is."""


@dataclass(slots=True)
class _Seen:
    """One log's largest checkpoint, and what it was caught at."""

    key: VerifierKey
    note: bytes = b""
    checkpoint: Checkpoint | None = None
    evidence: bytes = b""
    """Split-view file; empty while there is none."""


class Sightings:
    """What has been seen of each log of the policy. ``load`` it first."""

    def __init__(
        self,
        shelf: Shelf,
        logs: Mapping[VerifierKey, Prefixes | None],
        *,
        logger: Logger,
        on_split_view: Callable[[int], None] = lambda _: None,
    ) -> None:
        """``logs``: by key, whom to ask for proofs (None: nobody can be asked, and only two trees
        of one size are told apart). ``on_split_view`` hears how many logs are condemned."""
        self._shelf = shelf
        self._logs = logs
        self._seen = {key.name: _Seen(key) for key in logs}
        self._logger = logger
        self._on_split_view = on_split_view
        self._lock = asyncio.Lock()
        self._agreed: OrderedDict[bytes, None] = OrderedDict()

    def load(self) -> None:
        """Read what an earlier process saw; blocks. CorruptStateError when it is not what a log of
        the policy signed: somebody else wrote there."""
        for origin, seen in self._seen.items():
            kept = self._shelf.read(origin, CHECKPOINT_SUFFIX)
            evidence = self._shelf.read(origin, EVIDENCE_SUFFIX)
            try:
                if kept is not None:
                    seen.checkpoint, seen.note = open_checkpoint(kept, seen.key), kept
                if evidence is not None:
                    split_view.contradicted(evidence, seen.key)
                    seen.evidence = evidence
            except Error as error:
                raise CorruptStateError(f"{self._shelf.path}: {error.message}") from None
        self._on_split_view(len(self.condemned))

    @property
    def condemned(self) -> tuple[str, ...]:
        """Origins of the logs that contradicted themselves."""
        return tuple(origin for origin, seen in self._seen.items() if seen.evidence)

    def status(self) -> tuple[LogSighting, ...]:
        """Every log of the policy."""
        return tuple(
            LogSighting(
                origin=origin,
                size=0 if seen.checkpoint is None else seen.checkpoint.size,
                split_view=str(self._shelf.path / _name(origin, EVIDENCE_SUFFIX))
                if seen.evidence
                else None,
            )
            for origin, seen in self._seen.items()
        )

    def largest(self, origin: str) -> bytes | None:
        """The note of the largest checkpoint seen; None before the first."""
        seen = self._seen.get(origin)
        return seen.note or None if seen is not None else None

    def evidence(self, origin: str) -> bytes | None:
        """The split-view file of a log that contradicted itself."""
        seen = self._seen.get(origin)
        return seen.evidence or None if seen is not None else None

    async def observe(self, checkpoint_note: bytes, source: str = "log") -> str:
        """Hold a checkpoint against the largest one seen of its log; returns the log's origin.

        ``source`` says who brought it, for the diagnostics. MalformedError or SignatureError for
        what no log of the policy signed. SplitViewError once the log is known
        to have contradicted itself. UpstreamError while it can not be told: nothing is kept then.
        """
        if len(checkpoint_note) > CHECKPOINT_NOTE_BYTES_MAX:
            raise SignatureError("a checkpoint is not so long")
        parsed = note.parse(checkpoint_note)
        checkpoint = Checkpoint.parse(parsed.text)
        seen = self._seen.get(checkpoint.origin)
        if seen is None:
            raise SignatureError("not signed by a log that the policy knows")
        parsed.verify(seen.key)
        async with self._lock:
            if seen.evidence:
                raise SplitViewError(checkpoint.origin)
            if sha256(parsed.text) not in self._agreed:
                await self._compare(seen, checkpoint, checkpoint_note, source)
        return checkpoint.origin

    async def adopt(self, evidence: bytes, source: str) -> None:
        """Believe somebody else's split-view file, once it is verified. Raises an Error if not."""
        file = split_view.decode(evidence)
        seen = next((one for one in self._seen.values() if str(one.key) == file.log), None)
        if seen is None:
            raise SignatureError("not about a log that the policy knows")
        split_view.contradicted(evidence, seen.key)
        async with self._lock:
            if not seen.evidence:
                await self._condemn(seen, evidence, source)

    async def _compare(
        self, seen: _Seen, checkpoint: Checkpoint, checkpoint_note: bytes, source: str
    ) -> None:
        known = seen.checkpoint
        if known is not None:
            new, old = (checkpoint, checkpoint_note), (known, seen.note)
            small, large = (new, old) if checkpoint.size < known.size else (old, new)
            proof = await self._proof(seen.key, small[0].size, large[0].size)
            try:
                agree = split_view.check(small[0], large[0], proof)
            except ConsistencyError as error:
                self._logger.warning("checkpoint.unproven", origin=known.origin, source=source)
                raise BadResponseError(error.message, code=UNPROVEN) from None
            if not agree:
                evidence = split_view.encode(seen.key, (small[1], large[1]), proof)
                await self._condemn(seen, evidence, source)
                raise SplitViewError(known.origin)
        if known is None or checkpoint.size > known.size:
            # A crash before this is durable: the checkpoint before is held against the next one.
            await asyncio.to_thread(
                self._shelf.write, checkpoint.origin, CHECKPOINT_SUFFIX, checkpoint_note
            )
            seen.checkpoint, seen.note = checkpoint, checkpoint_note
        self._agreed[sha256(checkpoint.text())] = None
        while len(self._agreed) > AGREED_MAX:
            self._agreed.popitem(last=False)

    async def _proof(self, key: VerifierKey, size1: int, size2: int) -> Sequence[bytes]:
        if size1 in (0, size2):
            return ()
        log = self._logs[key]
        if log is None:
            raise BadResponseError(f"{key.name}: the policy has no URL to ask", code=UNPROVEN)
        return await log.prefix_proof(size1, size2)

    async def _condemn(self, seen: _Seen, evidence: bytes, source: str) -> None:
        origin = seen.key.name
        # Distrusted first: whatever becomes of the file, this process has seen enough.
        seen.evidence = evidence
        self._on_split_view(len(self.condemned))
        file = await asyncio.to_thread(self._shelf.write, origin, EVIDENCE_SUFFIX, evidence)
        self._logger.error("log.contradicted", origin=origin, source=source, file=str(file))
