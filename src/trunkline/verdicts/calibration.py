"""Calibrations: what honest noise looks like, signed and logged before anything is held against it.

Specified in ``docs/spec/verdict.md``. The artefact itself is ``trunkline.audit.calibration``'s:
here it is a text with a digest, by which verdicts name it. A verifier that logs its calibration
first can not choose a threshold after it has seen the scores.
"""

from typing import Annotated, ClassVar, Literal

import msgspec

from trunkline.base.errors import MalformedError
from trunkline.crypto.digest import digest
from trunkline.tlog.tile import ENTRY_BYTES_MAX
from trunkline.verdicts.record import Count, Digest, Key, Name, Record

CALIBRATION_TYPE = "trunkline.calibration/v1"
ARTEFACT_CHARS_MAX = 48 * 1024


class Calibration(Record, frozen=True, kw_only=True):
    """A verifier uses this artefact."""

    TYPE: ClassVar[str] = CALIBRATION_TYPE
    NOTE_BYTES_MAX: ClassVar[int] = ENTRY_BYTES_MAX

    artefact: Annotated[str, msgspec.Meta(min_length=2, max_length=ARTEFACT_CHARS_MAX)]
    """Its bytes, which are canonical JSON, as text."""
    digest: Digest
    """Of those bytes: what a verdict's ``calibration`` says."""
    key: Key
    operator: Name
    type: Literal["trunkline.calibration/v1"] = "trunkline.calibration/v1"
    unix_ms: Count

    def check(self) -> None:
        super().check()
        if digest(self.artefact.encode()) != self.digest:
            raise MalformedError("a calibration's digest is not that of its artefact")
