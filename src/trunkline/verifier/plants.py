"""This verifier's plants: asked like any question, drawn by whoever draws, opened afterwards.

``docs/spec/verdict.md``, "Plants". A plant is opened as soon as those that audit it are bound to
their verdicts, and before these are shown: so its node never loses anything by it. What nobody drew
is forgotten once nobody can have it opened by its node, and so is a known-good one that nobody
failed. It refuses to plant at nodes of its own operator's, known-bad ones where one wrong token
would be no proof, and more than it has room for: none is forgotten for another.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from trunkline.base.ports import Clock, Randomness
from trunkline.crypto import note as notes
from trunkline.crypto.signer import Signer, sign_note
from trunkline.receipts import receipt_leaf
from trunkline.runtime.store import Connection, Database
from trunkline.verdicts import (
    Expected,
    Plant,
    PlantAccepted,
    PlantOpening,
    Result,
    Verdict,
    plant_digest,
)
from trunkline.verifier import asking, plant_store, store
from trunkline.verifier.demanding import KnownNode
from trunkline.verifier.plant_store import Waiting
from trunkline.verifier.publishing import Publisher

PATIENCE_MS: Final = 60_000
"""After the first that is bound to a verdict, others have had their time."""
BEHIND_MS: Final = 10 * PATIENCE_MS
"""For how long a known-good one waits after that for the verdicts of all that audit it, this
verifier's included: with much to do one is behind, and who fails everything would be in luck."""
KEEP_S_MAX: Final = 30 * 86_400
"""The longest that a node can be set to keep what opens its receipts; one that states more is as
if it stated this."""
AUDITED_S: Final = 86_400
"""From when a verifier has an opening to when the log has what it is bound to, at the latest: it
may be short of engines, restarted, or without a log meanwhile."""
ANSWERED_MS: Final = 3600 * 1000
"""A plant without an answer by then is one that this verifier died on."""
PER_NODE_MAX: Final = 1_000
"""Plants kept of one node's; there are no more at it before some are over."""


class Plants:
    """One verifier's."""

    def __init__(
        self,
        database: Database,
        signer: Signer,
        publisher: Publisher,
        *,
        operator: str,
        peers: Mapping[str, str],
        opinions: int,
        reveal_after_ms: int,
        clock: Clock,
        randomness: Randomness,
    ) -> None:
        """``peers``: operators of the other verifiers, by vkey; ``opinions``: how many audit each
        receipt that is drawn; ``reveal_after_ms``: for how long a verdict is kept back for others,
        and so a known-bad plant: it would be held against its node until it is opened."""
        self._database = database
        self._signer = signer
        self._publisher = publisher
        self._operator = operator
        self._opinions = min(opinions, 1 + len(peers))
        self._patience_ms = min(reveal_after_ms, PATIENCE_MS)
        self._clock = clock
        self._randomness = randomness

    async def plant(self, node: KnownNode, model: str, *, expect: Expected) -> None:
        """Ask ``node`` a question whose answer is known to be wrong, or right. Raises
        UpstreamErrors, and MalformedError or VerificationError for a bad receipt or acceptance, or
        for more than an opening holds."""
        if node.operator == self._operator:
            return
        if expect == "fail" and not await self._database.read(
            lambda c: _is_exact(c, str(node.key))
        ):
            return
        vkey, now_ms = str(node.key), self._clock.unix_ms()
        kept, until_ms = await self._database.read(lambda c: _room(c, vkey, now_ms))
        if kept >= PER_NODE_MAX:
            return
        words = await asking.words(node, model, clock=self._clock, randomness=self._randomness)
        attempt = asking.new_attempt(self._randomness)
        note = self._sign(node, attempt, expect)
        accepted = b""
        if expect == "fail":
            accepted = await node.caller.plant(note)
            PlantAccepted.open_note(accepted, node.key)
        await self._database.write(
            lambda c: plant_store.add(
                c,
                attempt=attempt,
                node=vkey,
                expect=expect,
                note=note,
                accepted=accepted,
                now_ms=now_ms,
                until_ms=until_ms,
            )
        )
        asked = await asking.ask(
            node,
            model,
            clock=self._clock,
            randomness=self._randomness,
            plant=asking.Bound(attempt=attempt, digest=plant_digest(note), words=words),
        )
        leaf = receipt_leaf(asked.signed.receipt.encode()).hex()
        signed, content = msgspec.json.encode(asked.signed), msgspec.json.encode(asked.content)
        # Its node may answer more than was asked for. What can not be opened then is not kept, so
        # that it is in no other plant's way.
        self._opening(note, accepted, signed, content)
        await self._database.write(
            lambda c: plant_store.answered(c, attempt, leaf=leaf, signed=signed, content=content)
        )

    async def open_due(self) -> bool:
        """Open what others are bound by. Whether there was anything."""
        return await self._database.write(self._open_due)

    def _sign(self, node: KnownNode, attempt: str, expect: Expected) -> bytes:
        plant = Plant(
            attempt=attempt,
            expect=expect,
            key=str(self._signer.vkey),
            node=str(node.key),
            operator=self._operator,
            unix_ms=self._clock.unix_ms(),
        )
        return sign_note(plant.text(), self._signer)

    def _open_due(self, connection: Connection) -> bool:
        now_ms = self._clock.unix_ms()
        opened = [self._look(connection, one, now_ms) for one in plant_store.waiting(connection)]
        plant_store.forget_over(connection, now_ms, unanswered_ms=now_ms - ANSWERED_MS)
        return any(opened)

    def _look(self, connection: Connection, plant: Waiting, now_ms: int) -> bool:
        """Open it, wait, or forget it. Whether it was opened."""
        bound = _bound(connection, plant.leaf)
        if plant.noticed_ms is None:
            plant_store.notice(connection, plant.attempt, now_ms)
        waited_ms = now_ms - (plant.noticed_ms or now_ms)
        if plant.expect == "pass":
            return self._contradict(connection, plant, bound, waited_ms)
        if bound < self._opinions and waited_ms < self._patience_ms:
            return False
        self._open(connection, plant)
        return True

    def _contradict(
        self, connection: Connection, plant: Waiting, bound: int, waited_ms: int
    ) -> bool:
        """Open a known-good one that was failed, where this verifier found it good itself."""
        own, others = _shown(connection, plant.leaf)
        if own == "pass" and any(result == "fail" for _, result in others):
            self._open(connection, plant)
            return True
        voices = len({key for key, _ in others}) + bool(own)
        shown = own and voices >= max(bound, self._opinions)
        if own == "fail" or waited_ms >= (PATIENCE_MS if shown else BEHIND_MS):
            plant_store.forget(connection, plant.attempt)
        return False

    def _open(self, connection: Connection, plant: Waiting) -> None:
        opening = self._opening(plant.note, plant.accepted, plant.signed, plant.content)
        # A crash before the commit: it is opened again. After it: the outbox delivers it.
        self._publisher.statement(connection, opening)
        plant_store.forget(connection, plant.attempt)

    def _opening(self, note: bytes, accepted: bytes, signed: bytes, content: bytes) -> bytes:
        opening = PlantOpening(
            accepted=accepted.decode(),
            content=content.decode(),
            key=str(self._signer.vkey),
            operator=self._operator,
            plant=note.decode(),
            signed=signed.decode(),
            unix_ms=self._clock.unix_ms(),
        )
        return sign_note(opening.text(), self._signer)


def _is_exact(connection: Connection, vkey: str) -> bool:
    """Whether what a node answers was found to be computed to the bit as here."""
    row = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM subjects WHERE json_extract(subject, '$.key') = ? "
        "AND json_extract(state, '$.regime') = 'exact')",
        (vkey,),
    ).fetchone()
    return bool(row[0])


def _room(connection: Connection, vkey: str, now_ms: int) -> tuple[int, int]:
    """How many plants of a node's are kept, and until when one is that it answers now: who has
    drawn it has it opened within the node's terms, and audits it then."""
    terms = store.terms_at(connection, vkey, store.NEWEST)
    keep_s = 0 if terms is None else min(terms.keep_s, KEEP_S_MAX)
    return plant_store.count(connection, vkey), now_ms + (keep_s + AUDITED_S) * 1000


def _bound(connection: Connection, leaf: str) -> int:
    """How many verifiers are bound to a verdict on a receipt, this one included."""
    others = {one.key for one in store.said(connection, "commitment", leaf)}
    row = connection.execute(
        "SELECT count(*) FROM verdicts WHERE leaf = ? AND picked = 0 AND committed_ms IS NOT NULL",
        (leaf,),
    ).fetchone()
    return len(others) + int(row[0])


def _shown(connection: Connection, leaf: str) -> tuple[str, set[tuple[str, Result]]]:
    """The result of this verifier's verdict, and those of the others that are public, with whose
    they are."""
    row = connection.execute(
        "SELECT result FROM verdicts WHERE leaf = ? AND picked = 0", (leaf,)
    ).fetchone()
    others = {
        (one.key, Verdict.parse(notes.parse(one.note).text).result)
        for one in store.said(connection, "verdict", leaf)
    }
    return ("" if row is None else str(row[0])), others
