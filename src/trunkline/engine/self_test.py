"""What this engine computes, bit for bit, as one digest: equal ones on two machines mean that they
compute alike.

A fixed script of tokens is run through the same batcher as everybody's work: as one piece, then one
token at a time alone, then twice so in company. The digest is over the float32 logits after each
token. If the four do not agree among themselves, the engine's promise (``batcher.py``) does not
hold on this machine, and there is no digest: an error says so.

It tells builds, weights and instruction sets apart. It does not tell who runs the script: a node
that passes it can compute an answer some other way, which is what audits are for.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trunkline.base.errors import Error, UpstreamError
from trunkline.inference.ports import NOT_SHARED

TOKENS = 16
"""Length of the script. With ``STEPS``, what keeps a test of 135 million parameters under a second
of CPU."""

STEPS = 4
"""How many of them come one at a time."""

STAGES: tuple[tuple[int, ...], ...] = ((0,), (STEPS,), (STEPS, STEPS))
"""Probes of each stage, by how many of their tokens come one at a time; a stage's run together."""

PROBES = sum(len(stage) for stage in STAGES)


def script(vocabulary_size: int) -> tuple[int, ...]:
    """The tokens: spread over the vocabulary, the same wherever it has the same size."""
    return tuple((40_503 * (at + 1)) % vocabulary_size for at in range(TOKENS))


class Probe:
    """``batcher.Job``: the script once, its last ``steps`` tokens one at a time."""

    def __init__(self, id_: int, tokens: Sequence[int], *, steps: int) -> None:
        self.id = id_
        self.sharing = NOT_SHARED
        self._script = tokens
        self.tokens = list(tokens[: len(tokens) - steps])
        self.ended = False

    @property
    def reusable(self) -> int:
        # Not even a cache that holds just this: what is tested is computing it.
        return 0

    def wants_logits(self, position: int) -> bool:
        return True

    def take(self, position: int, logits: NDArray[np.float32]) -> list[bytes]:
        """SHA-256 of the logits' bits, little-endian."""
        if position + 1 == len(self._script):
            self.ended = True
        elif position + 1 == len(self.tokens):
            self.tokens.append(self._script[position + 1])
        return [hashlib.sha256(np.ascontiguousarray(logits, dtype="<f4").tobytes()).digest()]

    def close(self) -> None:
        """Nothing is held."""


class SelfTest:
    """One run of the test: a stage's probes are added together, the next when all have ended."""

    def __init__(self, id_: int, vocabulary_size: int) -> None:
        self.id = id_
        """Of the call that asked for it."""
        self._script = script(vocabulary_size)
        self._stages = iter(STAGES)
        self._found: dict[int, list[bytes]] = {}

    def stage(self) -> list[Probe]:
        """The next stage's probes, none after the last. Their ids are negative, and its own."""
        probes = [
            Probe(-(self.id * PROBES + at), self._script, steps=steps)
            for at, steps in enumerate(next(self._stages, ()), start=len(self._found))
        ]
        self._found |= {probe.id: [] for probe in probes}
        return probes

    @property
    def probes(self) -> tuple[int, ...]:
        """Ids of all probes so far."""
        return tuple(self._found)

    def owns(self, probe_id: int) -> bool:
        return probe_id in self._found

    def note(self, probe_id: int, digests: Sequence[bytes]) -> bool:
        """Take a probe's digests; whether all of its stage have ended."""
        self._found[probe_id] += digests
        return all(len(found) == len(self._script) for found in self._found.values())

    def result(self) -> str | Error:
        """``sha256:<hex>``, or the error that these logits depend on how they are computed."""
        first, *others = self._found.values()
        if any(other != first for other in others):
            return UpstreamError(
                "the engine's logits depend on how its work is cut: it is not exact here",
                code="engine_not_exact",
                retryable=False,
            )
        return f"sha256:{hashlib.sha256(b''.join(first)).hexdigest()}"
