"""What goes wrong in a run, drawn from the seed: the network's weather, disks, engines, crashes.

A seed has its own climate (how often each thing happens), so that some runs see one kind of fault
often and others everything at once. :meth:`Weather.brew` begins it and
:meth:`Weather.clear` ends all of it.
"""

from collections.abc import Sequence
from random import Random
from typing import Final

import msgspec

from trunkline.remote import transport as port
from trunkline.schema.attempt import ATTEMPT_PATH
from trunkline.sim.disk import Fate
from trunkline.sim.network import UNBROKEN_BYTES, Passage
from trunkline.sim.roles import GATEWAY
from trunkline.sim.upstream import FAULTS, Fault

REFUSALS: Final = (port.REFUSED, port.DNS_FAILED, port.TLS_FAILED)
STORM_S_MIN, STORM_S_MAX = 15.0, 45.0


class Climate(msgspec.Struct, frozen=True, kw_only=True):
    """How often each fault strikes: shares of exchanges, writes and tokens."""

    refused: float
    slow_connect: float
    slow_head: float
    cut: float
    stall: float
    doubled: float
    rubbish: float
    disk: float
    died_at_disk: float
    engine: float
    log: float
    upstream: float
    token_s: float
    """Time to a token, where no node is slower still."""
    spread: float
    """Share of the storm over which calls are spread: small for a rush."""
    calm_s: float
    """Mean time between two disasters (crash, slow node, log down)."""

    @classmethod
    def draw(cls, random: Random) -> "Climate":
        def rate(most: float) -> float:
            return random.choice((0.0, most / 4, most))

        return cls(
            refused=rate(0.2),
            slow_connect=rate(0.1),
            slow_head=rate(0.1),
            cut=rate(0.4),
            stall=rate(0.25),
            doubled=rate(0.15),
            rubbish=rate(0.15),
            disk=rate(0.1),
            died_at_disk=rate(0.05),
            engine=rate(0.01),
            log=rate(0.4),
            upstream=rate(0.3),
            token_s=random.choice((0.005, 0.02, 0.15)),
            spread=random.choice((0.05, 0.5, 1.0)),
            calm_s=random.choice((1.0, 4.0, 15.0)),
        )


class Weather:
    """The source of faults."""

    def __init__(self, random: Random, *, flips: bool = False) -> None:
        """``flips``: letters of answers change on the way, unseen by any framing."""
        self.climate = Climate.draw(random)
        self.storm_s = random.uniform(STORM_S_MIN, STORM_S_MAX)
        self._random = random
        self._flips = flips
        self._stormy = False

    def brew(self) -> None:
        """From now on things go wrong."""
        self._stormy = True

    def clear(self) -> None:
        """From now on nothing goes wrong."""
        self._stormy = False

    def strikes(self, rate: float) -> bool:
        """Whether something that happens to this share of cases happens now."""
        return self._stormy and self._random.random() < rate

    def passage(self, host: str, path: str) -> Passage:
        """The way of one exchange. Between apps and their gateway it is always good."""
        if not self._stormy or host == GATEWAY:
            return Passage()
        random, climate = self._random, self.climate
        attempt = path == ATTEMPT_PATH
        return Passage(
            refused=random.choice(REFUSALS) if self.strikes(climate.refused) else None,
            connect_s=random.uniform(0.5, 3.0) if self.strikes(climate.slow_connect) else 0.002,
            head_s=random.uniform(0.5, 4.0) if self.strikes(climate.slow_head) else 0.002,
            frame_s=random.choice((0.0005, 0.01, 0.1)),
            piece_bytes=random.choice((UNBROKEN_BYTES, UNBROKEN_BYTES, 300, 30)),
            cut_at=random.randint(0, 8000) if self.strikes(climate.cut) else None,
            stall_at=random.randint(0, 8000) if self.strikes(climate.stall) else None,
            stall_s=random.choice((0.3, 1.5, 5.0, 60.0)),
            doubled=random.randint(0, 30) if attempt and self.strikes(climate.doubled) else None,
            rubbish=random.randint(0, 30) if attempt and self.strikes(climate.rubbish) else None,
            deaf_s=random.choice((0.0, 0.0, 0.5, 20.0)),
            flipped=random.randint(0, 10) if attempt and self._flips and self._stormy else None,
        )

    def disk_fate(self) -> Fate:
        """What becomes of one write."""
        if self.strikes(self.climate.died_at_disk):
            return self._random.choice((Fate.DIED_BEFORE, Fate.DIED_AFTER))
        if self.strikes(self.climate.disk):
            return self._random.choice((Fate.FAILED, Fate.FAILED_BUT_STORED))
        return Fate.STORED

    def engine_dies(self) -> bool:
        """Asked before each token."""
        return self.strikes(self.climate.engine)

    def upstream_fault(self) -> Fault | None:
        """Asked at each call of a provider."""
        return self._random.choice(FAULTS) if self.strikes(self.climate.upstream) else None

    def log_loses(self) -> bool:
        """Asked at each call of the log."""
        return self.strikes(self.climate.log)

    def pause_s(self) -> float:
        """Until the next disaster."""
        return min(self._random.expovariate(1 / self.climate.calm_s), 60.0)

    def outage_s(self) -> float:
        """How long one lasts."""
        return self._random.choice((0.1, 1.0, 5.0)) * self._random.uniform(0.5, 1.5)

    def pick(self, of: Sequence[str]) -> str:
        """Which disaster, or whom it meets."""
        return self._random.choice(of)
