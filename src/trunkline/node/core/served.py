"""Is the model that an upstream says it served the one that it was asked for?

A name may come back more precise than it went (``m`` as ``m-2026-05-01``), with a maker's or a
folder's name before it, in other letters. Anything else is another model, and no answer to what
was asked; unless the name asked for moves by its nature (``m-latest``), or the configuration says
what to expect. Silence is no sign of anything.
"""

import re
from collections.abc import Sequence
from typing import Final

from trunkline.base.errors import BadResponseError

WRONG_MODEL: Final = "upstream_wrong_model"
ANYTHING: Final = "*"
"""As an expected name: whatever the upstream says."""

_MOVING: Final = re.compile(r"(^|[-:/])(latest|auto|preview|default)$")
_VERSION: Final = re.compile(r"([-@:](v?\d[\d.-]*|latest|free))+$")


class ServedName:
    """Follows the names of one answer: each must fit, and a stream names one model only."""

    __slots__ = ("_expected", "_moving", "name")

    def __init__(self, expected: Sequence[str]) -> None:
        """``expected``: every name that is right for the model; none of them: anything is."""
        self._moving = not expected or any(
            name == ANYTHING or _MOVING.search(name.lower()) for name in expected
        )
        self._expected = frozenset(_bare(name) for name in expected)
        self.name = ""
        """What the upstream called it first."""

    def note(self, name: str) -> None:
        """One more mention. Raises BadResponseError ``upstream_wrong_model``."""
        if not name or name == self.name:
            return
        if self.name:
            raise BadResponseError("the stream changes from one model to another", code=WRONG_MODEL)
        if not self._moving and _bare(name) not in self._expected:
            raise BadResponseError(
                "another model answered; if its name is right, say so in served_names",
                code=WRONG_MODEL,
            )
        self.name = name


def same_model(before: str, after: str, expected: Sequence[str]) -> bool:
    """Whether a stream whose model was called ``before`` may go on with one called ``after``.

    ``expected`` as above. Two versions of a model are two models; one version and no word of it are
    not. Beyond that, both names have to be right ones for the model that was asked for.
    """
    if not before or not after or before == after:
        return True
    if _bare(before) == _bare(after):
        return _last(before) == _last(after) or not (_versioned(before) and _versioned(after))
    right = {_bare(name) for name in expected if not _MOVING.search(name.lower())}
    return _bare(before) in right and (ANYTHING in expected or _bare(after) in right)


def _last(name: str) -> str:
    return name.lower().rstrip("/").rpartition("/")[2]


def _versioned(name: str) -> bool:
    return _last(name) != _bare(name)


def _bare(name: str) -> str:
    last = _last(name)
    # A name that is nothing but a version is left as it is.
    return _VERSION.sub("", last) or last
