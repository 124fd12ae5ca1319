"""The log as the finalizer sees it: add an entry, get back a proof that the policy accepts."""

from trunkline.base.errors import ConfigError, MalformedError
from trunkline.base.ports import Clock
from trunkline.gateway.sightings import Sightings
from trunkline.remote.log import LogCaller
from trunkline.remote.transport import Transport
from trunkline.tlog import proof as tlog_proof
from trunkline.tlog.policy import Policy


class LogProver:
    """:class:`trunkline.gateway.evidence.Prover` over one log's HTTP interface."""

    def __init__(
        self,
        transport: Transport,
        url: str,
        policy: str,
        *,
        clock: Clock,
        sightings: Sightings | None = None,
    ) -> None:
        """``policy``: a C2SP tlog-policy text. Raises :class:`ConfigError` for one that is none.

        ``sightings``, if given, sees every checkpoint before it is used, and may condemn the log.
        """
        observe = None if sightings is None else sightings.observe
        try:
            self._policy = Policy.parse(policy)
            self._log = LogCaller(transport, url, observe=observe)
        except MalformedError as error:
            raise ConfigError(f"log_url or policy_file: {error.message}") from None
        self._clock = clock

    async def prove(self, entry: bytes, timeout_s: float) -> str:
        """Add ``entry`` and return its verified tlog-proof text.

        Raises an :class:`Error` of the network, of the log, or of a proof that does not hold.
        """
        due_s = self._clock.monotonic_s() + timeout_s
        index = await self._log.add(entry)
        left_s = max(due_s - self._clock.monotonic_s(), 0.1)
        proof = await self._log.fetch_inclusion(entry, index, self._policy, timeout_s=left_s)
        return tlog_proof.format(proof).decode()
