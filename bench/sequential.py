"""How many scores a verdict takes, beside the least that any test needs, and who is wrongly failed.

    python bench/sequential.py [--streams N] [--seed N]

Coins, because for them the limit is known: no test whose false alarms stay under α needs fewer than
ln(1/α)/KL(true, μ₀) on average, and only one that knew the true mean beforehand comes near. The
first table has one row per null and truth; false alarms are streams that failed among 1,000 honest
ones of 1,000 scores each (10⁶ scores), which at α = 10⁻³ may be one on average. The second has
other ways to bet, the third alarms for change. docs/adr/0009-sequential-tests.md records it.
"""

import argparse
import math
import time

import numpy as np
from numpy.typing import NDArray

from trunkline.sequential import (
    FRACTIONS,
    ChangeTest,
    MeanTest,
    Wealth,
    first_failures,
    run_lengths,
)

ALPHA = 1e-3
CASES = (
    (0.001, 0.01),
    (0.001, 0.1),
    (0.01, 0.02),
    (0.01, 0.05),
    (0.01, 0.3),
    (0.05, 0.1),
    (0.05, 0.5),
    (0.2, 0.3),
    (0.2, 0.8),
    (0.5, 0.6),
    (0.5, 0.9),
)
BETS = {
    "default": FRACTIONS,
    "halves to 1/64": tuple(2.0**-j for j in range(1, 7)),
    "halves to 1/256": tuple(2.0**-j for j in range(1, 9)),
    "root halves, 16": tuple(2.0 ** (-j / 2) for j in range(1, 17)),
    "quarters": (0.9375, 0.5, 0.125, 1 / 32, 1 / 128),
}
HONEST_STREAMS = HONEST_SCORES = 1000
CHANGE_AT = 2000
NEVER = 10**9


def divergence(p: float, q: float) -> float:
    """KL divergence between coins, nats."""
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def coins(
    rng: np.random.Generator, streams: int, length: int, mean: float | NDArray[np.float64]
) -> NDArray[np.float64]:
    return (rng.random((streams, length)) < mean).astype(np.float64)


def median(counts: NDArray[np.int64]) -> float:
    return float(np.median(np.where(counts == 0, NEVER, counts)))


def limit(mu0: float, mean: float) -> float:
    return math.log(1 / ALPHA) / divergence(mean, mu0)


def ratio(
    rng: np.random.Generator, streams: int, mu0: float, mean: float, bets: tuple[float, ...]
) -> tuple[float, float]:
    """Median scores to a verdict, and that over the limit."""
    test = MeanTest(mu0=mu0, alpha=ALPHA, fractions=bets)
    length = int(4 * limit(mu0, mean)) + 20
    found = median(first_failures(test, coins(rng, streams, length, mean)))
    return found, found / limit(mu0, mean)


def verdicts(rng: np.random.Generator, streams: int) -> None:
    print(f"alpha {ALPHA}, {streams} streams a row")
    print("  mu0    mean   median    limit  ratio  knowing-mean  false alarms of 1,000 x 1,000")
    false: dict[float, int] = {}
    for mu0, mean in CASES:
        if mu0 not in false:
            honest = coins(rng, HONEST_STREAMS, HONEST_SCORES, mu0)
            failures = first_failures(MeanTest(mu0=mu0, alpha=ALPHA), honest)
            false[mu0] = int((failures > 0).sum())
        found, over = ratio(rng, streams, mu0, mean, FRACTIONS)
        best = (mean - mu0) / (1 - mu0)
        _, known = ratio(rng, streams, mu0, mean, (best,))
        print(
            f"{mu0:6.3f} {mean:6.3f} {found:8.0f} {limit(mu0, mean):8.1f} {over:6.2f}"
            f" {known:13.2f} {false[mu0]:6d}",
            flush=True,
        )


def other_bets(rng: np.random.Generator, streams: int) -> None:
    print("\nratio to the limit, by bets")
    print(f"{'':16s} bets   mean  worst")
    for name, bets in BETS.items():
        ratios = [ratio(rng, streams, *case, bets)[1] for case in CASES]
        print(f"{name:16s} {len(bets):4d} {np.mean(ratios):6.2f} {max(ratios):6.2f}", flush=True)


def changes(rng: np.random.Generator, streams: int) -> None:
    print(f"\nchange after {CHANGE_AT} honest scores, mu0 0.05; alarm lengths in scores")
    print("kind             stated  honest mean   delay to 0.10  to 0.50")
    for stated in (1e3, 1e5):
        for kind in ("shiryaev_roberts", "cusum"):
            test = ChangeTest(mu0=0.05, run_length=stated, kind=kind)  # type: ignore[arg-type]
            length = 4000
            alarms = run_lengths(test, coins(rng, streams, length, 0.05))
            honest = float(np.where(alarms == 0, length, alarms).mean())
            # Cut off at the length simulated: then only a lower bound.
            mark = ">" if bool((alarms == 0).any()) else " "
            delays = []
            for mean in (0.1, 0.5):
                rate = np.where(np.arange(CHANGE_AT + 1500) < CHANGE_AT, 0.05, mean)
                found = run_lengths(test, coins(rng, streams, rate.size, rate))
                late = found[(found == 0) | (found > CHANGE_AT)]
                seen = median(late) - CHANGE_AT if late.size else math.nan
                delays.append(f"{seen:8.0f} ({late.size})")
            print(
                f"{kind:16s} {stated:6.0f} {mark}{honest:11.0f}   {'  '.join(delays)}", flush=True
            )
    print("in brackets: streams without an alarm before the change")


def speed(rng: np.random.Generator) -> None:
    scores = coins(rng, 1, 100_000, 0.01)[0]
    started = time.perf_counter()
    Wealth.start(MeanTest(mu0=0.01, alpha=ALPHA)).observe(scores)
    print(f"\n{scores.size / (time.perf_counter() - started):,.0f} scores a second, one stream")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    verdicts(rng, arguments.streams)
    other_bets(rng, arguments.streams)
    changes(rng, arguments.streams)
    speed(rng)


if __name__ == "__main__":
    main()
