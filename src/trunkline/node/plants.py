"""Plants: wrong answers on purpose, to a verifier that asks for one and to nobody else.

``docs/spec/verdict.md``, "Plants". A verifier that the operator named sends its signed plant
beforehand (``POST /v1/plants``), and gets this node's signed word that it agrees. The attempt that
the plant names is then computed from another seed than its receipt says. It is refused unless the
attempt itself binds the plant, as no attempt of a gateway can: so nobody is ever given a wrong
answer who did not ask for it, and whoever opens the plant shows that this one was.
"""

from dataclasses import dataclass
from typing import Final

from trunkline.base.errors import MalformedError, RateLimitedError, RequestError, VerificationError
from trunkline.base.ports import Clock
from trunkline.crypto.digest import digest, sha256
from trunkline.crypto.keys import VerifierKey
from trunkline.crypto.signer import Signer, sign_note
from trunkline.receipts import Hiding
from trunkline.runtime.http import TEXT_TYPE, Call
from trunkline.schema.attempt import Attempt
from trunkline.verdicts import PLANT_BYTES_MAX, Plant, PlantAccepted, plant_digest

FRESH_MS: Final = 5 * 60 * 1000
"""How far a plant's time may be from the node's, and how long its attempt is waited for."""
DAY_MS: Final = 86_400_000
_WRONG: Final = b"trunkline.planted-seed/v1\n"


@dataclass(frozen=True, slots=True)
class _Agreed:
    """A plant whose attempt has not come yet."""

    digest: str
    """What the attempt binds."""
    until_ms: int


class PlantDesk:
    """What this node has agreed to. Belongs to one event loop; a new process knows of nothing."""

    def __init__(
        self, signer: Signer, verifiers: tuple[VerifierKey, ...], *, per_day: int, clock: Clock
    ) -> None:
        """``verifiers``: who may plant, each so often in 24 hours."""
        self._signer = signer
        self._verifiers = verifiers
        self._per_day = per_day
        self._clock = clock
        self._agreed: dict[str, _Agreed] = {}
        self._taken_ms: dict[str, list[int]] = {}

    async def handle(self, call: Call) -> None:
        """``POST /v1/plants``: one plant's note; the answer is the node's."""
        note = self.agree(await call.body(PLANT_BYTES_MAX))
        await call.reply(200, note, TEXT_TYPE)

    def agree(self, note: bytes) -> bytes:
        """This node's note that it agrees. Raises :class:`RequestError`: ``invalid_plant``,
        ``plant_refused``, ``plant_stale``; :class:`RateLimitedError`: ``plants_rate_limited``."""
        plant = self._read(note)
        now_ms = self._clock.unix_ms()
        if plant.node != str(self._signer.vkey) or plant.expect != "fail":
            raise _refused("plant_refused", "this is nothing that this node answers wrongly")
        if abs(now_ms - plant.unix_ms) > FRESH_MS:
            raise _refused("plant_stale", "the plant is not fresh: sign another")
        self._agreed = {
            attempt: one for attempt, one in self._agreed.items() if one.until_ms >= now_ms
        }
        if plant.attempt in self._agreed:
            raise _refused("plant_refused", "there is a plant on this attempt already")
        self._take(plant.key, now_ms)
        self._agreed[plant.attempt] = _Agreed(plant_digest(note), now_ms + FRESH_MS)
        accepted = PlantAccepted(key=str(self._signer.vkey), plant=digest(note), unix_ms=now_ms)
        return sign_note(accepted.text(), self._signer)

    def seed(self, attempt: Attempt, seed: bytes, *, temperature: float) -> bytes:
        """The seed to compute the answer from: ``seed``, unless a plant names the attempt.

        Raises :class:`RequestError` where it does, and the attempt is not its planter's, or would
        be answered rightly all the same.
        """
        agreed = self._agreed.pop(attempt.attempt, None)
        if agreed is None or agreed.until_ms < self._clock.unix_ms():
            return seed
        hiding = Hiding(attempt.blinding, answer=attempt.answer, attempt=attempt.attempt)
        bound = hiding.bind("request.client", agreed.digest)
        if bound != attempt.client_request_digest or not attempt.blinding:
            raise _refused("plant_refused", "the attempt does not bind its plant")
        if temperature == 0 or attempt.seed is not None or attempt.cache or not attempt.audit:
            raise _refused("plant_refused", "no such attempt can be planted")
        return sha256(_WRONG + seed)

    def _read(self, note: bytes) -> Plant:
        for key in self._verifiers:
            try:
                return Plant.open_note(note, key)
            except MalformedError:
                raise RequestError("the body is no plant", code="invalid_plant") from None
            except VerificationError:
                continue
        raise _refused("plant_refused", "no verifier of this node signed the plant")

    def _take(self, vkey: str, now_ms: int) -> None:
        taken = [at_ms for at_ms in self._taken_ms.get(vkey, ()) if at_ms > now_ms - DAY_MS]
        if len(taken) >= self._per_day:
            raise RateLimitedError(
                "too many plants",
                code="plants_rate_limited",
                retry_after_s=(DAY_MS + (taken or [now_ms])[0] - now_ms) / 1000,
            )
        self._taken_ms[vkey] = [*taken, now_ms]


def _refused(code: str, why: str) -> RequestError:
    return RequestError(why, code=code, status=403)
