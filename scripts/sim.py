"""Plays seeds of the simulation and says which broke a promise.

Usage: ``sim.py [--seeds N] [--seed S] [--jobs J] [--trace]``. Without ``--seed`` the first seed is
fresh, and printed; seeds count up from it. ``--trace`` prints the last events of each seed that
failed. A seed and a commit together repeat a run to its last event.
"""

# ruff: noqa: T201, S603 -- a script: it prints, and asks git for the commit

import argparse
import multiprocessing
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from trunkline.sim.world import Verdict, play

ROOT = Path(__file__).resolve().parent.parent
TOLD_EVERY: Final = 1000


def main() -> int:
    """1 if any seed failed, else 0."""
    parser = argparse.ArgumentParser(description="play seeds of the simulation")
    parser.add_argument("--seeds", type=int, default=20, help="how many (20)")
    parser.add_argument("--seed", type=int, help="the first; without it a fresh one")
    parser.add_argument("--jobs", type=int, default=1, help="in so many processes (1)")
    parser.add_argument("--trace", action="store_true", help="show the last events of a failure")
    asked = parser.parse_args()
    first: int = secrets.randbelow(1 << 32) if asked.seed is None else asked.seed
    commit = _commit()
    print(f"seeds {first} to {first + asked.seeds - 1} at {commit}", flush=True)
    begun = time.monotonic()
    verdicts: list[Verdict] = []
    for verdict in _played(range(first, first + asked.seeds), asked.jobs):
        verdicts.append(verdict)
        if verdict.violations:
            _tell(verdict, commit, trace=asked.trace)
        if len(verdicts) % TOLD_EVERY == 0:
            print(f"{len(verdicts)} seeds played", flush=True)
    _sum_up(verdicts, time.monotonic() - begun)
    return 1 if any(verdict.violations for verdict in verdicts) else 0


def _played(seeds: range, jobs: int) -> Iterator[Verdict]:
    if jobs == 1:
        yield from map(play, seeds)
        return
    with multiprocessing.Pool(jobs) as pool:
        yield from pool.imap(play, seeds, chunksize=8)


def _tell(verdict: Verdict, commit: str, *, trace: bool) -> None:
    print(f"FAILED seed {verdict.seed} at {commit}")
    for violation in verdict.violations:
        print(f"  {violation.check}: {violation.detail}")
    if trace:
        print("\n".join(f"    {line}" for line in verdict.newest))
    print(f"  again: python scripts/sim.py --seeds 1 --seed {verdict.seed} --trace", flush=True)


def _sum_up(verdicts: list[Verdict], took_s: float) -> None:
    def total(name: str) -> int:
        return sum(int(getattr(verdict, name)) for verdict in verdicts)

    broken = sum(bool(verdict.violations) for verdict in verdicts)
    print(
        f"{len(verdicts)} seeds, {broken} failed: {total('calls')} calls, {total('succeeded')} "
        f"whole ({total('taken_over')} by more than one attempt), {total('failed')} explicit "
        f"errors, {total('crashes')} crashes, {total('virtual_s')} virtual s in {took_s:.1f} s"
    )


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "an unknown commit"
    return f"commit {found.stdout.strip()}"


if __name__ == "__main__":
    sys.exit(main())
