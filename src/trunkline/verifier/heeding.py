"""What other verifiers say, held against what this one says, and against what they said before.

Two that contradict each other about one receipt cannot both be right: a third is asked, where the
draw finds this verifier next in line, and the dispute is written down in any case. A verdict that
is not the one that was committed to is written down as a lie.
"""

from typing import Final

import msgspec

from trunkline.base.ports import Clock
from trunkline.crypto import note as notes
from trunkline.crypto.keys import VerifierKey
from trunkline.runtime.store import Connection, Database
from trunkline.verdicts import Commitment, Draw, Verdict, opinions
from trunkline.verifier import chains, ledger, queue, store
from trunkline.verifier.core.entry import StatementEntry
from trunkline.verifier.withdrawing import Withdrawer

ROUND: Final = 200


class Heeder:
    """Reads the other verifiers' statements as they come in the log."""

    def __init__(
        self,
        database: Database,
        *,
        keys: dict[str, VerifierKey],
        verifiers: dict[str, str],
        name: str,
        opinions_count: int,
        withdrawer: Withdrawer,
        clock: Clock,
    ) -> None:
        """``keys``: the others' by vkey; ``verifiers``: the operator of each by its key's name,
        this one's included; ``name``: this one's key's; ``withdrawer``: knows of plants."""
        self._database = database
        self._keys = keys
        self._verifiers = verifiers
        self._name = name
        self._opinions = opinions_count
        self._withdrawer = withdrawer
        self._clock = clock

    async def step(self) -> bool:
        """Conclude what can be from what was followed. Whether there was anything."""
        return await self._database.write(self._step)

    def _step(self, connection: Connection) -> bool:
        commitments = store.unseen(connection, "commitment", ROUND)
        store.mark_seen(connection, [one.index for one in commitments])
        since_ms = self._clock.unix_ms() - ledger.KEPT_BACK_MS_MAX
        found = store.unheeded(connection, ROUND, since_ms=since_ms)
        for statement in found:
            # Who is configured no longer has no say.
            if statement.key in self._keys:
                self._heed(connection, statement)
        store.mark_seen(connection, [one.index for one in found])
        return bool(commitments or found)

    def _heed(self, connection: Connection, statement: StatementEntry) -> None:
        verdict = Verdict.parse(notes.parse(statement.note).text)
        committed = store.said(connection, "commitment", verdict.receipt)
        drawn = not isinstance(verdict.drawn, msgspec.UnsetType)
        for one in committed if drawn else ():
            if one.key == statement.key and one.index < statement.index:
                commitment = Commitment.parse(notes.parse(one.note).text)
                if not commitment.binds(statement.note):
                    self._alert(connection, "lying", statement, "not what it had committed to")
        self._withdrawer.compare(connection, verdict.receipt)
        if verdict.result not in ("pass", "fail"):
            return
        others = [
            Verdict.parse(notes.parse(one.note).text)
            for one in store.said(connection, "verdict", verdict.receipt)
            if one.key != statement.key
        ]
        own = ledger.revealed(connection, verdict.receipt)
        if own is not None:
            others.append(Verdict.parse(notes.parse(own).text))
        against = [other for other in others if {other.result, verdict.result} == {"pass", "fail"}]
        if against:
            self._dispute(connection, statement, verdict, against)

    def _dispute(
        self,
        connection: Connection,
        statement: StatementEntry,
        verdict: Verdict,
        against: list[Verdict],
    ) -> None:
        said = ", ".join(f"{VerifierKey.parse(one.key).name}: {one.result}" for one in against)
        self._alert(connection, "dispute", statement, f"says {verdict.result}; {said}")
        for one in (verdict, *against):
            if ledger.find(connection, verdict.receipt) is None:
                self._decide(connection, one)

    def _decide(self, connection: Connection, verdict: Verdict) -> None:
        """Audit it too, where this verifier is the next in line for it."""
        drawn = verdict.drawn
        if not isinstance(drawn, msgspec.UnsetType):
            row = connection.execute(
                "SELECT number, note FROM draws WHERE digest = ?", (drawn.draw,)
            ).fetchone()
            batch = store.batch_at(connection, drawn.entry)
            if row is None or batch is None:
                return
            draw = Draw.parse(notes.parse(bytes(row[1])).text)
            chance = draw.chance(drawn.entry)
            chosen = opinions(
                chance,
                bytes.fromhex(verdict.receipt),
                self._verifiers,
                VerifierKey.parse(draw.key).name,
                self._opinions + 1,
            )
            fair = chains.chance_at(connection, batch, draw, chance)
            among = draw.chosen(drawn.entry, batch.drawable, chance=fair)
            if self._name in chosen and drawn.index in among:
                queue.enqueue(
                    connection,
                    root=batch.root,
                    positions=(drawn.index,),
                    entry=drawn.entry,
                    node=batch.node,
                    draw=row[0],
                    third=True,
                )

    def _alert(
        self, connection: Connection, kind: str, statement: StatementEntry, detail: str
    ) -> None:
        store.alert(
            connection,
            unix_ms=self._clock.unix_ms(),
            kind=kind,
            about=self._keys[statement.key].name,
            receipt=statement.about,
            detail=detail,
        )
