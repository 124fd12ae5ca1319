"""The chains that draws are made by: this verifier's own, and what others announced.

A chain is announced by a draw, and holds if the log has that draw before the first entry that the
chain is for (``trunkline.verdicts.chain``). The seeds of this verifier's are in its store and leave
it link by link. It refuses to draw from entries that a chain may be for, while it is not known yet
whether it holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from trunkline.crypto import note as notes
from trunkline.runtime.store import Connection
from trunkline.verdicts import CHAIN_ENTRIES, Bound, Chain, Draw, bound, follow
from trunkline.verifier import store
from trunkline.verifier.core.entry import BatchEntry

AHEAD_ENTRIES: Final = 16
"""How far ahead of the log's end a chain begins: what the log takes in until it has the draw that
announces it. Too short, it is announced again, further ahead."""
LATE_FACTOR: Final = 4
LEAD_ENTRIES: Final = 4_096
"""How long before the end of one chain the next is announced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """What one draw does about this verifier's chains."""

    bound: tuple[Bound, ...]
    ahead: int
    """Where the next chain may begin, counted from the log's end."""


def own(connection: Connection, first: int, last: int) -> Own | None:
    """What a draw from ``[first, last)`` shows. None: the log has not said yet whether a chain for
    these entries holds."""
    connection.execute("DELETE FROM own_chains WHERE first + ? <= ?", (CHAIN_ENTRIES, first))
    shown: list[Bound] = []
    ahead = AHEAD_ENTRIES
    rows = connection.execute(
        "SELECT own_chains.first, seed, draws.entry, draws.note FROM own_chains "
        "JOIN draws ON draws.number = own_chains.draw ORDER BY own_chains.first"
    ).fetchall()
    for begins, seed, entry, note in rows:
        if entry is not None and entry >= begins:
            connection.execute("DELETE FROM own_chains WHERE first = ?", (begins,))
            # Not from where its draw ended: one that catches up ends far behind the log.
            size = Draw.parse(notes.parse(bytes(note)).text).tree().size
            ahead = max(ahead, LATE_FACTOR * (entry + 1 - size))
        elif begins < last:
            if entry is None:
                return None
            shown.append(bound(bytes(seed), begins, last))
    return Own(bound=tuple(shown), ahead=ahead)


def wanted(connection: Connection, last: int, earliest: int) -> int | None:
    """First entry of the chain that a draw up to ``last`` should announce, not before ``earliest``;
    None: there is one that goes on for long enough."""
    row = connection.execute("SELECT max(first) FROM own_chains").fetchone()
    end = 0 if row[0] is None else int(row[0]) + CHAIN_ENTRIES
    return None if end - LEAD_ENTRIES > last else max(end, earliest)


def announced(connection: Connection, first: int, seed: bytes, draw: int) -> None:
    """Write down what a draw (its number) announces."""
    connection.execute("INSERT INTO own_chains VALUES (?, ?, ?)", (first, seed, draw))


def look(connection: Connection, draw: Draw, position: int) -> str:
    """Take in another verifier's draw, the log's entry ``position``. What is wrong with it; empty:
    nothing."""
    row = connection.execute(
        "SELECT known, believed FROM chain_views WHERE key = ?", (draw.key,)
    ).fetchone()
    shown, entries = draw.shown(), (draw.from_, draw.to)
    if row is None:
        known, believed = shown, position + CHAIN_ENTRIES
    else:
        known, believed = msgspec.json.decode(row[0], type=tuple[Chain, ...]), int(row[1])
        known += tuple(one for one in shown if _is_older(one, known, draw.from_, believed))
    known, problem = follow(known, shown, draw.announced(), entries=entries, position=position)
    connection.execute(
        "INSERT INTO chain_views VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
        "known = excluded.known",
        (draw.key, msgspec.json.encode(known), believed),
    )
    return problem


def _is_older(chain: Chain, known: Sequence[Chain], first: int, believed: int) -> bool:
    """Whether a chain may have been announced before its verifier's first draw that was seen, and
    begins only now, with a draw from ``first``: what can not be known is believed."""
    begins = first <= chain.first < believed
    return begins and not any(chain.covers(one.first, one.end) for one in known)


def chance_at(connection: Connection, batch: BatchEntry, draw: Draw, chance: bytes) -> bytes:
    """What is drawn with from a batch: ``chance``, the draw's for that entry, unless the batch's
    node had not said that it knows of chains."""
    terms = store.terms_at(connection, batch.node, batch.index)
    return chance if terms is not None and terms.chains is True else draw.randomness()
