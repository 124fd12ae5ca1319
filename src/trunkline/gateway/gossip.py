"""Checkpoints, passed on: a log that shows each reader another tree must fear that they compare.

Now and then the gateway asks every witness of the policy what it has cosigned, submits to it what
itself has seen, and swaps its largest checkpoint with other gateways and whoever else asks
(``POST /trunkline/v1/checkpoint``). It believes none of them: what they bring counts only with a
log's own signature. Beside the answers, never in their way.
"""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from trunkline.base.errors import Error, RequestError, UpstreamError, VerificationError
from trunkline.crypto.keys import VerifierKey
from trunkline.gateway.sightings import LogSighting, Sightings, SplitViewError
from trunkline.remote.log import LogCaller
from trunkline.remote.peer import CHECKPOINT_PATH, PeerCaller
from trunkline.remote.status import NOT_FOUND
from trunkline.remote.transport import Transport
from trunkline.remote.witness import WitnessCaller, WitnessConflictError
from trunkline.runtime.http import JSON_TYPE, TEXT_TYPE, Call, Router
from trunkline.runtime.logger import Logger
from trunkline.tlog.checkpoint import CHECKPOINT_NOTE_BYTES_MAX, open_checkpoint
from trunkline.tlog.policy import Policy

ROUND_S_MAX: Final = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GossipLog:
    """A log that is talked about."""

    key: VerifierKey
    caller: LogCaller | None


def logs_of(policy: Policy, transport: Transport, log_url: str) -> tuple[GossipLog, ...]:
    """The policy's logs, and whom to ask for proofs: ``log_url`` where there is one log only, else
    the URLs in the policy. MalformedError for a URL that is none."""
    only = len(policy.logs) == 1
    found = []
    for log in policy.logs:
        url = log_url if only else log.url
        found.append(
            GossipLog(key=log.key, caller=None if url is None else LogCaller(transport, url))
        )
    return tuple(found)


def proofs(logs: Sequence[GossipLog]) -> Mapping[VerifierKey, LogCaller | None]:
    """As :class:`Sightings` takes them."""
    return {log.key: log.caller for log in logs}


class Gossip:
    """Asks around every ``every_s``; ``start`` it, ``stop`` it. 0: only answers who asks."""

    def __init__(
        self,
        sightings: Sightings,
        logs: Sequence[GossipLog],
        policy: Policy,
        peers: Sequence[str],
        transport: Transport,
        *,
        every_s: float,
        logger: Logger,
    ) -> None:
        """``peers``: base URLs of other gateways. MalformedError for a URL that is none."""
        self._sightings = sightings
        self._logs = logs
        self._witnesses = [
            (one.name, WitnessCaller(transport, one.url))
            for one in policy.witnesses
            if one.url is not None
        ]
        self._peers = [(url, PeerCaller(transport, url)) for url in peers]
        self._every_s = every_s
        self._logger = logger
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read what was seen before, and begin."""
        await asyncio.to_thread(self._sightings.load)
        if self._every_s:
            self._task = asyncio.create_task(self._run(), name="gossip")

    async def stop(self) -> None:
        """Stop asking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def status(self) -> tuple[LogSighting, ...]:
        """What is seen of each log."""
        return self._sightings.status()

    def add_routes(self, router: Router) -> None:
        """Register what others may ask."""
        router.add("POST", CHECKPOINT_PATH, self._swap)

    async def _swap(self, call: Call) -> None:
        """Take a checkpoint, give the largest one seen of the same log; or, with 409, the evidence
        that it contradicted itself."""
        theirs = await call.body(CHECKPOINT_NOTE_BYTES_MAX)
        try:
            origin = await self._sightings.observe(theirs, "caller")
        except SplitViewError as condemned:
            await call.reply(409, self._sightings.evidence(condemned.origin) or b"", JSON_TYPE)
        except VerificationError as error:
            raise RequestError(error.message, code=error.error_code) from None
        else:
            await call.reply(200, self._sightings.largest(origin) or b"", TEXT_TYPE)

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(ROUND_S_MAX):
                    await self.round()
            except TimeoutError:
                self._logger.warning("gossip.slow")
            except Exception as error:  # noqa: BLE001 - it must go on for as long as we do
                self._logger.crashed("gossip.failed", error)
            await asyncio.sleep(self._every_s)

    async def round(self) -> None:
        """Ask everybody once, at the same time. What fails is left for the next round."""
        async with asyncio.TaskGroup() as group:
            for log in self._logs:
                for name, witness in self._witnesses:
                    group.create_task(self._quietly(name, self._ask(name, witness, log)))
                for url, peer in self._peers:
                    group.create_task(self._quietly(url, self._trade(url, peer, log)))

    async def _quietly(self, name: str, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except Error as error:
            self._logger.info("gossip.unanswered", source=name, error=error.error_code)

    async def _ask(self, name: str, witness: WitnessCaller, log: GossipLog) -> None:
        """What has the witness cosigned? And submit what is larger here."""
        size = 0
        try:
            theirs = await witness.latest(log.key.name)
        except UpstreamError as error:
            if error.error_code != NOT_FOUND:
                raise
        else:
            await self._sightings.observe(theirs, name)
            size = open_checkpoint(theirs, log.key).size
        ours = self._sightings.largest(log.key.name)
        if ours is None or log.caller is None:
            return
        larger = open_checkpoint(ours, log.key).size
        if larger > size:
            proof = await log.caller.consistency_proof(size, larger) if size else ()
            with suppress(WitnessConflictError):
                # Moved on meanwhile: somebody else submitted.
                await witness.add_checkpoint(size, proof, ours)

    async def _trade(self, name: str, peer: PeerCaller, log: GossipLog) -> None:
        """Swap largest checkpoints with another gateway."""
        ours = self._sightings.largest(log.key.name)
        if ours is None:
            return
        theirs, is_evidence = await peer.swap(ours)
        if is_evidence:
            await self._sightings.adopt(theirs, name)
        else:
            await self._sightings.observe(theirs, name)
