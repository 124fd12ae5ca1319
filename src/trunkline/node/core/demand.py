"""Whether a demand for openings is honoured, and what each receipt demanded gets for an answer.

``docs/spec/audit.md``, "Demand" and "Openings". Pure: keys and facts are handed in. It refuses
whoever is not named in the configuration, and whatever no draw has drawn.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NewType

import msgspec

from trunkline.base.errors import MalformedError, RateLimitedError, RequestError, VerificationError
from trunkline.crypto.digest import sha256
from trunkline.crypto.keys import VerifierKey
from trunkline.receipts import Receipt
from trunkline.schema import audit
from trunkline.schema.audit import DEMAND_BYTES_MAX, DEMANDED_MAX, Reason, WantedReceipt
from trunkline.tlog.checkpoint import open_checkpoint
from trunkline.verdicts import Draw, drawn, open_demand

FRESH_MS: Final = 5 * 60 * 1000
"""How far a demand's time may be from the node's."""

DemandId = NewType("DemandId", tuple[str, str, int])
"""What a demand is told from others by: signer, digest, time."""

_DECODER: Final = msgspec.json.Decoder(audit.Demand)


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What the node's terms allow."""

    node: str
    """Name of the node's own key."""
    log: VerifierKey
    """The log that the node submits to."""
    verifiers: tuple[VerifierKey, ...]
    rate_ppm_max: int
    since_ms: int
    """When this process began: it does not know which older demands were used."""
    unchained: bool = False
    """Terms in force do not speak of chains: what a checkpoint's signatures draw is drawn too."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A demand that a configured verifier signed."""

    id: DemandId
    unix_ms: int
    draw: str
    """The draw's note."""
    wanted: tuple[WantedReceipt, ...]

    @property
    def verifier(self) -> str:
        return self.id[0]


class Chance(msgspec.Struct, frozen=True, kw_only=True):
    """A draw that is honoured, ready to be asked which receipts it has drawn."""

    verifier: str
    """Who drew."""
    first: int
    after: int
    digest: bytes
    """Of the draw's note."""
    rate_ppm: int
    randomness: bytes
    """Where there is no chain, and in any case if ``unchained``."""
    chances: Mapping[int, bytes]
    """By entry, where there is one."""
    unchained: bool

    def has(self, entry: int, leaf: int) -> bool:
        """Whether receipt ``leaf`` of the batch at ``entry`` is drawn."""
        if not self.first <= entry < self.after:
            return False
        either = {self.chances.get(entry, self.randomness)}
        if self.unchained:
            either.add(self.randomness)
        return any(drawn(chance, self.rate_ppm, entry, leaf) for chance in either)


def read(body: bytes) -> audit.Demand:
    """The demand in a body; nothing in it is verified. Raises :class:`RequestError`."""
    if len(body) > DEMAND_BYTES_MAX:
        raise _invalid()
    try:
        demand = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _invalid() from None
    places = {(wanted.batch, wanted.index) for wanted in demand.receipts}
    if not 1 <= len(demand.receipts) <= DEMANDED_MAX or len(places) != len(demand.receipts):
        raise _invalid()
    return demand


def asked(demand: audit.Demand, rules: Rules, now_ms: int) -> Asked:
    """Who demands it. Raises :class:`RequestError`: ``invalid_demand``, ``demand_refused``,
    ``demand_stale``."""
    for key in rules.verifiers:
        try:
            signed = open_demand(demand, key, rules.node)
        except MalformedError:
            raise _invalid() from None
        except VerificationError:
            continue
        if abs(now_ms - signed.unix_ms) > FRESH_MS or signed.unix_ms < rules.since_ms:
            raise _refused("demand_stale", "the demand is not fresh: sign it again")
        return Asked(
            id=DemandId((str(key), signed.digest, signed.unix_ms)),
            unix_ms=signed.unix_ms,
            draw=demand.draw,
            wanted=demand.receipts,
        )
    raise _refused("demand_refused", "no verifier that may ask this node signed the demand")


def chance(draw_note: str, rules: Rules) -> Chance:
    """The draw, if it is one that the node honours. Raises :class:`RequestError`:
    ``invalid_demand``, ``draw_refused``. Drawn at a higher rate than the node's, it is one at the
    node's: a receipt that the lower rate draws, the higher does too."""
    # It was encoded before, when the demand's digest was computed.
    data = draw_note.encode()
    draw = _draw(data, rules.verifiers)
    try:
        open_checkpoint(draw.checkpoint.encode(), rules.log)
    except (MalformedError, VerificationError):
        raise _refused("draw_refused", "the draw is not from the node's log") from None
    return Chance(
        verifier=draw.key,
        first=draw.from_,
        after=draw.to,
        digest=sha256(data),
        rate_ppm=min(draw.rate_ppm, rules.rate_ppm_max),
        randomness=draw.randomness(),
        chances=draw.chances(),
        unchained=rules.unchained,
    )


def _draw(data: bytes, verifiers: Sequence[VerifierKey]) -> Draw:
    for key in verifiers:
        try:
            return Draw.open_note(data, key)
        except MalformedError:
            raise _invalid() from None
        except VerificationError:
            continue
    raise _refused("draw_refused", "no verifier of this node signed the draw")


def closed(receipt: Receipt, *, kept: bool, age_ms: int, keep_ms: int) -> Reason | None:
    """Why a drawn receipt is not opened; None: it is. ``kept``: what opens it is there;
    ``age_ms``: since it was signed."""
    if not receipt.policy.audit or receipt.policy.mode == "private":
        return "not_audited"
    if kept:
        return None
    return "expired" if age_ms >= keep_ms else "not_kept"


class Once:
    """Remembers which demands were used, for as long as they are fresh."""

    __slots__ = ("_used",)

    def __init__(self) -> None:
        self._used: dict[DemandId, int] = {}

    def check(self, demand: Asked) -> None:
        """Raises :class:`RequestError` ``demand_replayed`` for one that was used."""
        if demand.id in self._used:
            raise RequestError(
                "the demand was used before: sign it again", code="demand_replayed", status=409
            )

    def use(self, demand: Asked, now_ms: int) -> None:
        """From now on it was used."""
        # In the order in which they came, which is nearly that of their times.
        for id_, unix_ms in list(self._used.items()):
            if now_ms - unix_ms <= FRESH_MS:
                break
            del self._used[id_]
        self._used[demand.id] = demand.unix_ms


class Pace:
    """How often each verifier may ask: ``per_s``, and as many again at once."""

    __slots__ = ("_left", "_per_s")

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, verifier: str, now_s: float) -> None:
        """Raises :class:`RateLimitedError` ``demands_rate_limited``."""
        burst = max(1.0, 2 * self._per_s)
        left, since_s = self._left.get(verifier, (burst, now_s))
        left = min(burst, left + (now_s - since_s) * self._per_s)
        if left < 1:
            self._left[verifier] = (left, now_s)
            raise RateLimitedError(
                "too many demands",
                code="demands_rate_limited",
                retry_after_s=(1 - left) / self._per_s,
            )
        self._left[verifier] = (left - 1, now_s)


def _invalid() -> RequestError:
    return RequestError("the body is no demand of version 1", code="invalid_demand")


def _refused(code: str, why: str) -> RequestError:
    return RequestError(why, code=code, status=403)
