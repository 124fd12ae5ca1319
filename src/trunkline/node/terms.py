"""The node's terms: which audits its operator lets be made, signed and logged before the answers.

``docs/spec/verdict.md``, "Terms". Said at the start of every process that has others to say, and
once a day, so that who reads only the newer part of the log knows them too. What was said holds for
what was answered under it: the node goes on keeping to terms for their ``keep_s`` after it has
stated others.
"""

import asyncio
from typing import Final

import msgspec

from trunkline.base.ports import Clock
from trunkline.crypto import note as notes
from trunkline.crypto.digest import sha256
from trunkline.crypto.signer import Signer, sign_note
from trunkline.inference.rules import RULES
from trunkline.node import terms_store
from trunkline.node.config import AuditsConfig, verifier_keys
from trunkline.node.dates import Dates
from trunkline.node.publish import TERMS_KEY
from trunkline.node.signing import Enqueue
from trunkline.runtime.store import Connection, Database
from trunkline.verdicts import Terms, in_force

AGAIN_S: Final = 86_400.0


class StatedTerms:
    """What the node has stated. Belongs to one event loop."""

    def __init__(
        self,
        config: AuditsConfig | None,
        signer: Signer,
        database: Database,
        *,
        operator: str,
        clock: Clock,
        dates: Dates,
        enqueue: Enqueue,
    ) -> None:
        """``config``: None for a node that nobody audits, which it says. Raises ConfigError."""
        keys = () if config is None else verifier_keys(config)
        self._terms = Terms(
            chains=True,
            counts=True,
            demands_per_min=0 if config is None else int(config.demands_per_s * 60),
            keep_s=0 if config is None else int(config.keep_s),
            key=str(signer.vkey),
            operator=operator,
            rate_ppm=0 if config is None else round(config.rate_max * 1_000_000),
            rules=RULES,
            unix_ms=0,
            verifiers=tuple(map(str, keys)),
            whole=True,
        )
        self._signer = signer
        self._database = database
        self._clock = clock
        self._dates = dates
        self._enqueue = enqueue
        self._stated: tuple[Terms, ...] = ()

    def in_force(self) -> tuple[Terms, ...]:
        """What the node has to keep to now."""
        return in_force(self._stated, self._clock.unix_ms())

    async def state(self) -> None:
        """Sign the terms and queue them for the log, unless they were said and not long ago."""
        fresh = msgspec.structs.replace(self._terms, unix_ms=self._dates.next_ms())
        now_ms = self._clock.unix_ms()
        self._stated = await self._database.write(lambda c: self._state(c, fresh, now_ms))

    async def run(self) -> None:
        """Go on saying them, until cancelled."""
        while True:
            await asyncio.sleep(AGAIN_S)
            await self.state()

    def _state(self, connection: Connection, fresh: Terms, now_ms: int) -> tuple[Terms, ...]:
        rows = terms_store.stated(connection)
        stated = tuple(Terms.parse(notes.parse(note).text) for _, note in rows)
        if stated and _still(stated[-1], fresh, now_ms):
            return stated
        note = sign_note(fresh.text(), self._signer)
        # A crash before the commit: nothing was said. After it: the outbox delivers it.
        self._enqueue(connection, TERMS_KEY + sha256(note).hex(), note)
        terms_store.insert(connection, note)
        held = in_force((*stated, fresh), now_ms)
        over = (row[0] for row, said in zip(rows, stated, strict=True) if said not in held)
        terms_store.delete(connection, over)
        return held


def _still(said: Terms, fresh: Terms, now_ms: int) -> bool:
    """Whether what was ``said`` is what is to be said now, and need not be said again."""
    same = msgspec.structs.replace(said, unix_ms=fresh.unix_ms) == fresh
    return same and 0 <= now_ms - said.unix_ms < AGAIN_S * 1000
