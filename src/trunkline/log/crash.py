"""The log's crash points (:mod:`trunkline.runtime.crash`): where a round may be cut off."""

from typing import Final

from trunkline.runtime.crash import CRASH_VARIABLE, CrashHook, crash_hook, no_crash

__all__ = ["CRASH_POINTS", "CRASH_VARIABLE", "CrashHook", "crash_hook", "no_crash"]

ROUND_PLANNED: Final = "round.planned"
TILES_PARTLY_WRITTEN: Final = "tiles.partly_written"
TILES_WRITTEN: Final = "tiles.written"
CHECKPOINT_SWAPPED: Final = "checkpoint.swapped"
CHECKPOINT_PUBLISHED: Final = "checkpoint.published"
ROUND_ACKNOWLEDGED: Final = "round.acknowledged"
COSIGNATURE_RECEIVED: Final = "cosignature.received"
PUBLICATION_STAGED: Final = "publication.staged"
COSIGNED_PUBLISHED: Final = "cosigned.published"

CRASH_POINTS: Final = (
    ROUND_PLANNED,
    TILES_PARTLY_WRITTEN,
    TILES_WRITTEN,
    CHECKPOINT_SWAPPED,
    CHECKPOINT_PUBLISHED,
    ROUND_ACKNOWLEDGED,
    COSIGNATURE_RECEIVED,
    PUBLICATION_STAGED,
    COSIGNED_PUBLISHED,
)
"""Every point, in the order a round passes them."""
