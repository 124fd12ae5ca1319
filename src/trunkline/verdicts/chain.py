"""Chains: the chance that a verifier's draws are made by, fixed before the entries that it is for.

Specified in ``docs/spec/verdict.md``, "Chains". A verifier announces the end of a chain of hashes
in the log, ahead of the entries that it will draw from, and shows a value for each of them
afterwards. So it has nothing to choose from: neither the checkpoint nor where a draw ends changes
what is drawn. Nobody else can foresee it. It refuses values that do not lead to what was announced.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import msgspec

from trunkline.base.errors import MalformedError
from trunkline.crypto.digest import sha256
from trunkline.verdicts.record import Count, Hex32

CHAIN_ENTRIES: Final = 16_384
"""Entries of the log that one chain is for."""
SEED_BYTES: Final = 32

_BLOCK: Final = 128
"""Steps that are remembered as one. Divides ``CHAIN_ENTRIES``."""
_BLOCKS_MAX: Final = 8_192
"""Blocks remembered: the chains of 64 verifiers, in 2 MB."""
_STEP: Final = b"trunkline.draw-chain/v1\n"
_CHANCE: Final = b"trunkline.draw-chance/v1\n"


class Chain(msgspec.Struct, frozen=True, kw_only=True):
    """One that was announced: for ``CHAIN_ENTRIES`` entries from ``first``."""

    anchor: Hex32
    """The value before the first entry's."""
    first: Count

    @property
    def end(self) -> int:
        return self.first + CHAIN_ENTRIES

    def covers(self, first: int, last: int) -> bool:
        """Whether it is for any of the entries ``[first, last)``."""
        return self.first < last and first < self.end


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """What a draw shows of a chain."""

    anchor: Hex32
    first: Count
    link: Hex32
    """The value for the last of the draw's entries that the chain is for."""

    @property
    def chain(self) -> Chain:
        return Chain(anchor=self.anchor, first=self.first)


def chain_of(seed: bytes, first: int) -> Chain:
    """The chain whose last value is ``seed``, ``SEED_BYTES`` that nobody else knows."""
    return Chain(anchor=_back(seed, CHAIN_ENTRIES, CHAIN_ENTRIES).hex(), first=first)


def bound(seed: bytes, first: int, to: int) -> Bound:
    """What a draw that ends before entry ``to`` shows of the chain from ``first``."""
    chain = chain_of(seed, first)
    link = _back(seed, CHAIN_ENTRIES, max(0, chain.end - to))
    return Bound(anchor=chain.anchor, first=first, link=link.hex())


def chances(shown: Bound, from_: int, to: int) -> dict[int, bytes]:
    """The chance (32 bytes) of each entry of a draw ``[from_, to)`` that the chain is for.

    Raises :class:`MalformedError` where the chain is for none, or ``link`` does not lead to the
    anchor."""
    chain = shown.chain
    if not chain.covers(from_, to):
        raise MalformedError("a draw shows a chain for none of its entries")
    last = min(to, chain.end) - 1
    found: dict[int, bytes] = {}
    value = bytes.fromhex(shown.link)
    begin = max(from_, chain.first)
    for entry in range(last, begin - 1, -1):
        found[entry] = sha256(_CHANCE + value)
        value = sha256(_STEP + value)
    before = begin - chain.first
    if _back(value, before, before).hex() != chain.anchor:
        raise MalformedError("a draw's value is not of the chain that it names")
    return found


def follow(
    known: Sequence[Chain],
    shown: Sequence[Chain],
    announced: Chain | None,
    *,
    entries: tuple[int, int],
    position: int,
) -> tuple[tuple[Chain, ...], str]:
    """The chains that hold after one more draw of a verifier, and what is wrong with it, if
    anything.

    ``known``: those announced in time by its draws before; ``shown`` and ``announced``: by this
    one, which is from ``entries`` (first, end) and is the log's entry ``position``.
    """
    held = [chain for chain in known if chain.end > entries[1]]
    doubled = False
    if announced is not None and announced not in known:
        doubled = any(announced.covers(chain.first, chain.end) for chain in known)
        # One that came too late is void: its verifier could have known the entries that it is for.
        if not doubled and position < announced.first:
            held.append(announced)
    if any(chain not in known for chain in shown):
        return tuple(held), "by a chain that was not announced before the entries that it is for"
    if any(chain.covers(*entries) and chain not in shown for chain in known):
        return tuple(held), "otherwise than by the chain that was announced for its entries"
    if doubled:
        return tuple(held), "and announced a second chain for entries that one is for"
    return tuple(held), ""


def _back(value: bytes, at: int, steps: int) -> bytes:
    """The value ``steps`` before ``value``, which is ``at`` steps after its chain's anchor.

    Every draw by a chain, and every reading of one, walks the same steps again: so whole blocks of
    them, counted from the anchor, are remembered.
    """
    to = at - steps
    while at > to:
        if at % _BLOCK or at - to < _BLOCK:
            value, at = sha256(_STEP + value), at - 1
        else:
            value, at = _block_back(value), at - _BLOCK
    return value


@lru_cache(maxsize=_BLOCKS_MAX)
def _block_back(value: bytes) -> bytes:
    """The value ``_BLOCK`` steps before."""
    for _ in range(_BLOCK):
        value = sha256(_STEP + value)
    return value
