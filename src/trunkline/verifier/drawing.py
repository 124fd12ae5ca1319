"""Draws receipts, and takes part in the draws of others.

A draw is signed and queued for the log in the transaction that starts it, and nothing is demanded
under it before the log has it (``queue``). Ranges follow each other without a gap, whatever
crashes. It refuses to draw where nothing could be drawn: statements about draws would else feed
on each other.
"""

from typing import Final

from msgspec import UNSET

from trunkline.base.errors import Error, VerificationError
from trunkline.base.ports import Clock, Randomness
from trunkline.crypto import note as notes
from trunkline.crypto.digest import digest
from trunkline.crypto.keys import VerifierKey
from trunkline.crypto.signer import Signer, sign_note
from trunkline.runtime.crash import CrashHook
from trunkline.runtime.store import Connection, Database
from trunkline.tlog.checkpoint import Checkpoint
from trunkline.tlog.policy import Policy
from trunkline.verdicts import (
    DRAWN_ENTRIES_MAX,
    RATE_PPM_MAX,
    SEED_BYTES,
    Draw,
    chain_of,
    check_draw,
    drawn,
    plain_checkpoint,
    range_end,
    too_small,
)
from trunkline.verifier import chains, crash, queue, store
from trunkline.verifier.core.entry import BatchEntry, StatementEntry
from trunkline.verifier.publishing import Publisher

KEPT_BACK_MS: Final = 900_000
"""For so long after its batch was seen in the log a drawn receipt is told to nobody who asks: those
that drew it have found something by then, and who is bound later is so late that it shows."""
FIRST_DRAW_MS: Final = 600_000
"""A verifier's first draw begins with the first batch that is not older."""
ROUND: Final = 100


class Drawer:
    """The draws of one verifier."""

    def __init__(
        self,
        database: Database,
        signer: Signer,
        policy: Policy,
        publisher: Publisher,
        *,
        operator: str,
        rate_ppm: int,
        peers: dict[str, VerifierKey],
        clock: Clock,
        randomness: Randomness,
        reach: CrashHook,
    ) -> None:
        """``peers``: the other verifiers' keys by vkey."""
        self._database = database
        self._signer = signer
        self._policy = policy
        self._publisher = publisher
        self._operator = operator
        self._rate_ppm = rate_ppm
        self._peers = peers
        self._clock = clock
        self._randomness = randomness
        self._reach = reach
        self.left_out = 0
        """Drawn receipts that found no place in the queue, since this process started."""

    async def draw(self) -> bool:
        """Draw from what was followed since the last draw. Whether there was anything."""
        head = await self._database.read(store.read_head)
        if head is None or not self._rate_ppm:
            return False
        plain = plain_checkpoint(head.checkpoint, self._policy)
        size = Checkpoint.parse(notes.parse(plain).text).size
        followed = head.frontier.size
        drawn = await self._database.write(lambda c: self._draw(c, plain, size, followed))
        if drawn:
            self._reach(crash.DRAW_STORED)
        return drawn

    def _draw(self, connection: Connection, plain: bytes, size: int, followed: int) -> bool:
        now_ms = self._clock.unix_ms()
        first = self._first(connection, now_ms, followed)
        last = range_end(first, size)
        batches = store.batches_between(connection, first, last)
        if last > followed or not (batches or last - first == DRAWN_ENTRIES_MAX):
            return False
        own = chains.own(connection, first, last)
        if own is None:
            return False
        begins = chains.wanted(connection, last, size + own.ahead)
        seed = self._randomness.token(SEED_BYTES)
        record = Draw(
            bound=own.bound or UNSET,
            checkpoint=plain.decode(),
            from_=first,
            to=last,
            key=str(self._signer.vkey),
            next=UNSET if begins is None else chain_of(seed, begins),
            operator=self._operator,
            rate_ppm=self._rate_ppm,
            unix_ms=now_ms,
        )
        note = sign_note(record.text(), self._signer)
        self._publisher.draw(connection, note)
        number = self._enlist(connection, record, note, entry=None)
        if begins is not None:
            chains.announced(connection, begins, seed, number)
        return True

    def _first(self, connection: Connection, now_ms: int, followed: int) -> int:
        own = str(self._signer.vkey)
        row = connection.execute("SELECT max(last) FROM draws WHERE key = ?", (own,)).fetchone()
        if row[0] is not None:
            return int(row[0])
        row = connection.execute(
            "SELECT min(entry) FROM batches WHERE unix_ms >= ?", (now_ms - FIRST_DRAW_MS,)
        ).fetchone()
        return followed if row[0] is None else int(row[0])

    def _enlist(self, connection: Connection, draw: Draw, note: bytes, *, entry: int | None) -> int:
        """Write a draw down, and what it has drawn. Its number here."""
        number = connection.execute(
            "INSERT INTO draws (key, first, last, digest, note, entry) VALUES (?, ?, ?, ?, ?, ?)",
            (draw.key, draw.from_, draw.to, digest(note), note, entry),
        ).lastrowid
        found, otherwise = draw.chances(), draw.randomness()
        for batch in store.batches_between(connection, draw.from_, draw.to):
            chance = found.get(batch.index, otherwise)
            positions = draw.chosen(
                batch.index,
                batch.drawable,
                rate_ppm_max=self._allowed_ppm(connection, batch, draw),
                chance=chains.chance_at(connection, batch, draw, chance),
            )
            self.left_out += queue.enqueue(
                connection,
                root=batch.root,
                positions=positions,
                entry=batch.index,
                node=batch.node,
                draw=number or 0,
            )
        return number or 0

    def _allowed_ppm(self, connection: Connection, batch: BatchEntry, draw: Draw) -> int:
        """The rate at which the batch's node lets itself be drawn from. Where its terms are too
        small to verify it, as if they were not: the verdicts say that then."""
        terms = store.terms_at(connection, batch.node, batch.index)
        why = too_small(terms, (str(self._signer.vkey), draw.key))
        allowed_ppm = RATE_PPM_MAX if terms is None or why else terms.rate_ppm
        if not why and allowed_ppm < self._rate_ppm:
            why = f"the node's terms let {allowed_ppm} of a million be drawn, not {self._rate_ppm}"
        if why:
            store.tell_terms(
                connection,
                unix_ms=self._clock.unix_ms(),
                node=VerifierKey.parse(batch.node).name,
                detail=why,
            )
        return allowed_ppm

    async def has_drawn(self, node: str, root: bytes, position: int) -> bool:
        """Whether a draw that the log has, or one of this verifier's own, has chosen the receipt at
        a place of a batch of a node's (vkey), which was seen in the log a short while ago. Also one
        that nobody should follow: nodes look at less before they open a receipt under it."""
        since_ms = self._clock.unix_ms() - KEPT_BACK_MS
        return await self._database.read(
            lambda c: self._has_drawn(c, node, root, position, since_ms)
        )

    def _has_drawn(
        self, connection: Connection, node: str, root: bytes, position: int, since_ms: int
    ) -> bool:
        entry = store.entry_of(connection, node, root)
        if entry is None or not store.was_seen_since(connection, entry, since_ms):
            return False
        own = connection.execute(
            "SELECT note FROM draws WHERE key = ? AND first <= ? AND last > ?",
            (str(self._signer.vkey), entry, entry),
        )
        found = [bytes(row[0]) for row in own]
        for key in self._peers:
            theirs = store.draws_from(connection, key, entry)
            if len(theirs) == store.DRAWS_MAX:
                # No verifier draws so often from one entry but to hide one of these.
                return True
            found += theirs
        draws = (Draw.parse(notes.parse(note).text) for note in found)
        return any(_chooses(draw, entry, position) for draw in draws)

    async def join(self) -> bool:
        """Take up what other verifiers drew. Whether there was anything."""
        head = await self._database.read(store.read_head)
        if head is None:
            return False
        size = head.frontier.size
        return await self._database.write(lambda c: self._join(c, size))

    def _join(self, connection: Connection, followed: int) -> bool:
        found = store.unseen(connection, "draw", ROUND)
        for statement in found:
            # Who is configured no longer has no say.
            if statement.key in self._peers:
                self._join_one(connection, statement, followed)
        store.mark_seen(connection, [statement.index for statement in found])
        return bool(found)

    def _join_one(self, connection: Connection, statement: StatementEntry, followed: int) -> None:
        draw = Draw.open_note(statement.note, self._peers[statement.key])
        try:
            check_draw(draw, self._policy)
            if draw.to > followed:
                raise VerificationError("a draw from entries that are not in the log yet")
        except Error as error:
            self._accuse(connection, draw.key, f"entry {statement.index}: {error.message}")
            return
        row = connection.execute(
            "SELECT max(last) FROM draws WHERE key = ?", (draw.key,)
        ).fetchone()
        if row[0] is not None and int(row[0]) != draw.from_:
            self._accuse(
                connection,
                draw.key,
                f"entry {statement.index}: its draw begins with entry {draw.from_}, and the one "
                f"before ended with {row[0]}",
            )
            if draw.from_ < int(row[0]):
                return
        if problem := chains.look(connection, draw, statement.index):
            # Nobody gives a second opinion on what it may have chosen.
            self._accuse(connection, draw.key, f"entry {statement.index}: it drew {problem}")
            return
        self._enlist(connection, draw, statement.note, entry=statement.index)

    def _accuse(self, connection: Connection, key: str, detail: str) -> None:
        store.alert(
            connection,
            unix_ms=self._clock.unix_ms(),
            kind="gap",
            about=self._peers[key].name,
            receipt="",
            detail=detail,
        )


def _chooses(draw: Draw, entry: int, position: int) -> bool:
    """Whether a draw has chosen a receipt, by any of what nodes go by."""
    if not draw.from_ <= entry < draw.to:
        return False
    chances = {draw.randomness(), draw.chance(entry)}
    return any(drawn(chance, draw.rate_ppm, entry, position) for chance in chances)
