"""The newest entries' places, held in memory until the index on disk has taken them part by part.

Leaf hashes are random, so the entries of one round lie on as many pages of a large index as there
are entries, and writing them at once costs more the larger the log is. Here a round writes the
entries of one *part* of all keys only, those that the last ``PARTS`` rounds left in it: neighbours,
on few pages. A round's own keys go to a journal, one row for all of them, in which they can be read
again after a crash; ``PARTS`` rounds later the index holds them all, and the row can go.
"""

from collections.abc import Iterable, Sequence
from typing import Final

KEY_BYTES: Final = 16
"""Of a leaf hash, as the index keeps it. Nobody finds two entries that share so much of one; who
did would be told the first one's place for the second, and could not prove it there."""
PARTS: Final = 256
"""A key's first byte is its part, so they are equally large."""


class Recent:
    """Places of the entries that the index on disk does not hold yet.

    At most ``PARTS`` rounds of them, whatever the log's size.
    """

    __slots__ = ("_parts", "_round")

    def __init__(self, journal: Iterable[tuple[int, int, bytes]] = ()) -> None:
        """``journal``: its rows, ascending: (round, index of its first entry, keys joined)."""
        rows = list(journal)
        self._parts: list[dict[bytes, int]] = [{} for _ in range(PARTS)]
        self._round = rows[-1][0] + 1 if rows else 0
        for number, first, joined in rows:
            for offset, key in enumerate(split_keys(joined)):
                # The rounds after it each wrote one part; is this key's among them?
                if (key[0] - number - 1) % PARTS >= self._round - 1 - number:
                    self._parts[key[0]][key] = first + offset

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts)

    @property
    def round(self) -> int:
        """Number of the next round."""
        return self._round

    @property
    def journaled_from(self) -> int:
        """Journal rows before this round are superfluous once the next round is stored."""
        return self._round - PARTS + 1

    def get(self, key: bytes) -> int | None:
        """The entry's place, if it is one of these."""
        return self._parts[key[0]].get(key)

    def due(self) -> list[tuple[bytes, int]]:
        """What the next round writes to the index: (key, place), ascending."""
        return sorted(self._parts[self._round % PARTS].items())

    def advance(self, first: int, keys: Sequence[bytes]) -> None:
        """The next round is stored: what was due is in the index, and ``keys`` in the journal."""
        self._parts[self._round % PARTS].clear()
        for offset, key in enumerate(keys):
            self._parts[key[0]][key] = first + offset
        self._round += 1


def split_keys(joined: bytes) -> list[bytes]:
    """The keys of a journal row."""
    return [joined[at : at + KEY_BYTES] for at in range(0, len(joined), KEY_BYTES)]
