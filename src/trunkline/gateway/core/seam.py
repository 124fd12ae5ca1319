"""Does a text go on after the one shown, or begin it again? Asked before any of it is shown.

A model that was not really given the text so far says it again, all of it or its end. Then nothing
is shown and the attempt has failed. What counts as that, of what comes first:

1. the whole text so far, however short it is;
2. its first ``BEGINNING`` characters;
3. its last characters, ``REPEAT`` of them or more, unless they stood there twice already: a text
   that repeats itself may go on doing so.

A repeat of fewer characters is let through: words do come twice. The other way round, a text that
means to say its last line again is refused where it was said once; then another deployment is
asked, and at worst the end is explicit. Rather that than damage. Pure; holds at most ``LOOK``
characters back, and in most texts none.
"""

from typing import Final

from trunkline.base.errors import MalformedError

REPEAT: Final = 16
BEGINNING: Final = 64
LOOK: Final = 2048
"""How far back a repeat is looked for."""
BAD_SEAM: Final = "upstream_bad_seam"


class SeamError(MalformedError):
    """What came does not go on where the answer was."""

    code = BAD_SEAM


class Seam:
    """Watches the first characters that come after ``shown``."""

    __slots__ = ("_again", "_beginning", "_came", "_shown")

    def __init__(self, shown: str) -> None:
        self._shown = shown
        self._came = ""
        self._beginning = shown[:BEGINNING]
        starts = range(max(0, len(shown) - LOOK), len(shown) - REPEAT + 1)
        self._again = [self._beginning, *(shown[at:] for at in starts)]
        """What it could be saying again: the beginning, and every end of the text."""

    @property
    def passed(self) -> bool:
        """Nothing that is said again begins like this."""
        return not self._again

    def take(self, text: str) -> None:
        """More of what comes. Raises :class:`SeamError`."""
        if not text or self.passed:
            return
        self._came += text
        came = self._came
        if any(came.startswith(again) and self._wrong(again) for again in self._again):
            raise SeamError("the answer begins again instead of going on")
        self._again = [again for again in self._again if again.startswith(came) and again != came]

    def _wrong(self, again: str) -> bool:
        """An end that stands there twice in a row is the text's own way."""
        return again == self._beginning or not self._shown.endswith(again * 2)
