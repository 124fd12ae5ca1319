"""Publishing checkpoints, and asking witnesses for the cosignatures that go with them.

One task per witness asks for whatever checkpoint is wanted of it, backs off while it is away, and
takes its word for the size that it has seen. Cosignatures are verified before they count. The
decisions are :mod:`trunkline.log.core.cosigning`.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from trunkline.base.errors import (
    MalformedError,
    SignatureError,
    UpstreamError,
    VerificationError,
)
from trunkline.base.ports import Clock
from trunkline.crypto import note
from trunkline.crypto.keys import VerifierKey
from trunkline.log import crash
from trunkline.log.core.cosigning import Cosigning, Signed
from trunkline.log.tiles import Tiles
from trunkline.remote.witness import WitnessCaller, WitnessConflictError
from trunkline.runtime.logger import Logger
from trunkline.tlog import cosignature
from trunkline.tlog.checkpoint import open_checkpoint

BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MAX_S: Final = 4.0
ASK_TIMEOUT_S: Final = 4.0
CONFLICTS_IN_A_ROW_MAX: Final = 3
TIMER_S_MIN: Final = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """One witness: whom to ask, and whose cosignature counts."""

    key: VerifierKey
    caller: WitnessCaller


class Publisher:
    """What readers of the log see, and the tasks that get it cosigned."""

    def __init__(
        self,
        *,
        cosigning: Cosigning,
        witnesses: Sequence[Witness],
        tiles: Tiles,
        clock: Clock,
        logger: Logger,
        reach: crash.CrashHook,
        backoff_first_s: float = BACKOFF_FIRST_S,
    ) -> None:
        self._cosigning = cosigning
        self._witnesses = witnesses
        self._tiles = tiles
        self._clock = clock
        self._logger = logger
        self._reach = reach
        self._backoff_first_s = backoff_first_s
        self._published = cosigning.published.published()
        self._lock = asyncio.Lock()
        self._changed = asyncio.Condition()

    @property
    def published(self) -> bytes:
        """The note that is served at ``/checkpoint``."""
        return self._published

    @property
    def published_size(self) -> int:
        return self._cosigning.published.size

    @property
    def has_quorum(self) -> bool:
        return self._cosigning.has_quorum

    async def offer(self, signed: Signed) -> None:
        """A newer checkpoint was sequenced: publish it, or have it cosigned first."""
        await self._decide(lambda now_s: self._cosigning.offer(signed, now_s))

    async def run(self) -> None:
        """Publish and ask until cancelled. An exception out of here is fatal for the process."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._run_timer(), name="log.publish")
            for witness in self._witnesses:
                tasks.create_task(self._run_witness(witness), name=f"log.ask.{witness.key.name}")

    async def _decide(self, decide: Callable[[float], Signed | None]) -> None:
        """Let the state machine take one step, and do what it says before anybody else steps."""
        async with self._lock:
            publish = decide(self._clock.monotonic_s())
            if publish is not None:
                await self._put(publish)
        async with self._changed:
            self._changed.notify_all()

    async def _put(self, publish: Signed) -> None:
        # A crash before the rename in write_checkpoint: readers keep the checkpoint before. After
        # it: they have this one. Cosignatures lost on the way are asked for again: a witness
        # cosigns the same size any number of times.
        self._reach(crash.PUBLICATION_STAGED)
        published = publish.published()
        await asyncio.to_thread(self._tiles.write_checkpoint, published)
        self._published = published
        if publish.lines:
            self._reach(crash.COSIGNED_PUBLISHED)
        self._logger.info(
            "checkpoint.published", size=publish.size, cosignatures=len(publish.lines)
        )

    async def _run_timer(self) -> None:
        """Publish the newest without a quorum once the window has passed."""
        while True:
            await self._decide(self._cosigning.tick)
            # Looked at under the condition's lock, so that no change slips in before the wait.
            async with self._changed:
                overdue_s = self._cosigning.overdue_at_s()
                if overdue_s is not None:
                    overdue_s = max(overdue_s - self._clock.monotonic_s(), TIMER_S_MIN)
                with suppress(TimeoutError):
                    async with asyncio.timeout(overdue_s):
                        await self._changed.wait()

    async def _run_witness(self, witness: Witness) -> None:
        """Ask one witness for whatever is wanted of it."""
        name, key = witness.key.name, str(witness.key)
        published = self._cosigning.published
        known = published.size if key in published.lines else 0
        backoff_s = self._backoff_first_s
        conflicts = 0
        while True:
            wanted = self._cosigning.wanted(key)
            if wanted is None:
                async with self._changed:
                    await self._changed.wait_for(lambda: self._cosigning.wanted(key) is not None)
                continue
            try:
                async with asyncio.timeout(ASK_TIMEOUT_S):
                    line = await self._ask(witness, known, wanted)
            except WitnessConflictError as conflict:
                conflicts += 1
                if conflicts <= CONFLICTS_IN_A_ROW_MAX and self._cosigning.witness_is_at(
                    conflict.size
                ):
                    known = conflict.size
                    continue
                # It has seen more than this log ever had (or keeps changing its mind): either the
                # log was restored from an old copy, or the witness is wrong. People must look.
                self._logger.error("witness.disagreed", witness=name, size=conflict.size)
            except (UpstreamError, VerificationError, MalformedError, TimeoutError) as error:
                code = getattr(error, "error_code", "upstream_timeout")
                self._logger.warning("witness.failed", witness=name, error=code)
            else:
                self._reach(crash.COSIGNATURE_RECEIVED)
                known, conflicts, backoff_s = wanted.size, 0, self._backoff_first_s
                await self._cosigned(key, wanted.size, line)
                continue
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, BACKOFF_MAX_S)
            conflicts = 0

    async def _cosigned(self, key: str, size: int, line: bytes) -> None:
        await self._decide(lambda now_s: self._cosigning.cosigned(key, size, line, now_s))

    async def _ask(self, witness: Witness, known: int, wanted: Signed) -> bytes:
        """The witness's verified cosignature line for ``wanted``."""
        proof: list[bytes] = []
        if 0 < known < wanted.size:
            proof = await asyncio.to_thread(self._tiles.consistency_proof, known, wanted.size)
        lines = await witness.caller.add_checkpoint(known, proof, wanted.note)
        return verified_line(witness.key, wanted.note, lines)


def verified_line(key: VerifierKey, checkpoint_note: bytes, lines: bytes) -> bytes:
    """The one cosignature line by ``key`` out of a witness's answer, verified over the note.

    Lines by other keys are ignored, and one without a time is none, as tlog-witness demands.
    MalformedError or SignatureError.
    """
    text = note.parse(checkpoint_note).text
    for line in note.parse_signatures(lines):
        if line.is_by(key):
            if cosignature.verify(note.Note(text=text, signatures=(line,)), key) == 0:
                raise SignatureError(f"{key.name} cosigned without a time")
            return line.line()
    raise SignatureError(f"no cosignature by {key.name}")


def read_published(
    published_note: bytes, log_key: VerifierKey, witnesses: Sequence[VerifierKey]
) -> Signed:
    """A published checkpoint as it was found on disk, with the cosignatures that still count.

    MalformedError, or SignatureError when it is not this log's.
    """
    checkpoint = open_checkpoint(published_note, log_key)
    parsed = note.parse(published_note)
    lines: dict[str, bytes] = {}
    for key in witnesses:
        mine = [line for line in parsed.signatures if line.is_by(key)]
        if mine:
            cosignature.verify(parsed, key)
            lines[str(key)] = mine[-1].line()
    by_log = parsed.signatures_by(log_key)[:1]
    return Signed(size=checkpoint.size, note=note.format(parsed.text, by_log), lines=lines)
