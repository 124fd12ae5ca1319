"""Outliers: deployments that do noticeably worse than others that serve the same model.

A breaker sees failures in a row; this sees every third call fail, or tokens that begin to take ten
times as long as they used to. The rules follow Envoy's outlier detection (a success rate under the
mean less a multiple of the deviation; a least volume; a largest share that may be ejected; an
ejection that lasts longer each time and is forgiven while all is well), with two differences. Each
deployment is held against the *others*, so that it works with two of them, where Envoy wants five.
And slowness counts only if others are faster and the deployment itself used to be.

Pure: who is to be ejected, from what was counted. The shell says when.
"""

import math
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

Reason = Literal["success_rate", "latency"]


class OutlierPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When to eject, for how long, and whom to leave alone."""

    sweep_s: float = 10.0
    """Between two looks."""
    half_life_s: float = 60.0
    """An attempt counts half as much after so long."""
    volume_min: float = 10.0
    """Attempts, as they count by then, of everybody who is judged or judged by."""
    deviations: float = 1.9
    """How many standard deviations under the others' mean a success rate must be,"""
    margin: float = 0.2
    """and at least this much: two others may agree by chance."""
    slower: float = 3.0
    """How many times the others' median, and its own usual, the first token must take,"""
    slower_s: float = 1.0
    """and at least this much longer."""
    ejected_share_max: float = 0.5
    """Of a model's deployments; unavailable ones count as ejected."""
    base_s: float = 30.0
    """An ejection lasts this long times how often it has happened,"""
    longest_s: float = 300.0
    """at most this long."""


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """What counts of one deployment of a model."""

    name: str
    attempts: float = 0.0
    """As they count by now, failed ones included."""
    failures: float = 0.0
    first_token_s: float | None = None
    """Lately."""
    usual_s: float | None = None
    """The median of its time to the first token; None: not known yet."""
    available: bool = True
    """Neither ejected nor benched by its breaker."""

    @property
    def success_rate(self) -> float:
        return 1 - self.failures / self.attempts if self.attempts else 1.0


def outliers(peers: Sequence[Peer], policy: OutlierPolicy) -> tuple[tuple[str, Reason], ...]:
    """Names of those to eject now, worst first, out of all deployments of one model."""
    available = [peer for peer in peers if peer.available]
    room = int(len(peers) * policy.ejected_share_max) - (len(peers) - len(available))
    room = min(room, len(available) - 1)
    judged = [peer for peer in available if peer.attempts >= policy.volume_min]
    found: list[tuple[float, str, Reason]] = []
    for peer in judged:
        others = [other for other in judged if other is not peer]
        if not others:
            continue
        if _fails(peer, others, policy):
            found.append((peer.success_rate, peer.name, "success_rate"))
        elif _lags(peer, others, policy):
            # After all that fail: a slow answer is still one.
            found.append((1 + peer.success_rate, peer.name, "latency"))
    return tuple((name, reason) for _, name, reason in sorted(found)[: max(room, 0)])


def ejection_s(times: int, policy: OutlierPolicy) -> float:
    """How long the ejection lasts that is the deployment's ``times``-th in short order."""
    return min(policy.base_s * max(times, 1), policy.longest_s)


def _fails(peer: Peer, others: Sequence[Peer], policy: OutlierPolicy) -> bool:
    rates = [other.success_rate for other in others]
    mean = sum(rates) / len(rates)
    deviation = math.sqrt(sum((rate - mean) ** 2 for rate in rates) / len(rates))
    return peer.success_rate < mean - max(policy.deviations * deviation, policy.margin)


def _lags(peer: Peer, others: Sequence[Peer], policy: OutlierPolicy) -> bool:
    lately = sorted(other.first_token_s for other in others if other.first_token_s is not None)
    if not lately or peer.first_token_s is None or peer.usual_s is None:
        return False
    reference_s = max(lately[len(lately) // 2], peer.usual_s)
    return peer.first_token_s > max(policy.slower * reference_s, reference_s + policy.slower_s)


class Tally:
    """Recent attempts of one deployment, fading with time."""

    __slots__ = ("_at_s", "_attempts", "_failures", "_half_life_s", "times")

    def __init__(self, half_life_s: float) -> None:
        self._half_life_s: Final = half_life_s
        self._at_s = 0.0
        self._attempts = 0.0
        self._failures = 0.0
        self.times = 0
        """Ejections in short order."""

    def add(self, now_s: float, *, failed: bool) -> None:
        """One attempt."""
        self._fade(now_s)
        self._attempts += 1
        self._failures += failed

    def counts(self, now_s: float) -> tuple[float, float]:
        """Attempts and failures, as they count now."""
        self._fade(now_s)
        return self._attempts, self._failures

    def ejected(self) -> None:
        """What led to it is not held against it again."""
        self.times += 1
        self._attempts = self._failures = 0.0

    def well(self) -> None:
        """A sweep found nothing wrong with it."""
        self.times = max(self.times - 1, 0)

    def _fade(self, now_s: float) -> None:
        share = 0.5 ** (max(now_s - self._at_s, 0.0) / self._half_life_s)
        self._attempts *= share
        self._failures *= share
        self._at_s = now_s
