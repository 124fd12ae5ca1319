"""Clock and randomness of a simulated machine."""

import asyncio
from random import Random
from typing import Final

from trunkline.base.ports import Randomness
from trunkline.receipts import Nonce

BEGAN_UNIX_MS: Final = 1_780_000_000_000


class SimClock:
    """:class:`trunkline.base.ports.Clock` by the virtual loop. Wall clocks may be off."""

    __slots__ = ("_skew_ms",)

    def __init__(self, skew_ms: int = 0) -> None:
        self._skew_ms = skew_ms

    def unix_ms(self) -> int:
        """Wall time, milliseconds since the Unix epoch."""
        return BEGAN_UNIX_MS + self._skew_ms + int(self.monotonic_s() * 1000)

    def monotonic_s(self) -> float:
        """Virtual seconds."""
        return asyncio.get_running_loop().time()


class SimRandomness:
    """:class:`trunkline.base.ports.Randomness` by seed. Good for simulations alone."""

    __slots__ = ("_random",)

    def __init__(self, seed: str) -> None:
        self._random = Random(seed)

    def token(self, size_bytes: int) -> bytes:
        """``size_bytes`` bytes."""
        return self._random.randbytes(size_bytes)


class SimNonces:
    """:class:`trunkline.node.nonces.NonceSource` that commits to nothing."""

    __slots__ = ("_randomness",)

    def __init__(self, randomness: Randomness) -> None:
        self._randomness = randomness

    async def take(self) -> Nonce:
        """A fresh one."""
        return Nonce(value=self._randomness.token(32), root=bytes(32), index=0)
