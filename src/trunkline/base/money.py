"""Money: whole millionths of a US dollar. Read from decimal text, never from binary fractions.

A price per million tokens in the same unit is, digit for digit, one in millionths of a millionth of
a dollar per token: products of prices and token counts are exact until they are rounded, once.
"""

import re
from typing import Final

from trunkline.base.errors import MalformedError

MICRO_PER_USD: Final = 1_000_000
USD_MAX: Final = 1_000_000_000
_USD: Final = re.compile(r"(?P<whole>0|[1-9][0-9]{0,9})(?:\.(?P<fraction>[0-9]{1,6}))?")


class MicroUsd(int):
    """An amount, or a price, in millionths of a US dollar."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> "MicroUsd":
        """Read ``"1.25"``: not below 0, at most six places. Raises :class:`MalformedError`."""
        found = _USD.fullmatch(text)
        if found is None:
            raise MalformedError(
                'an amount in US dollars is expected, in quotes, with at most six places: "1.25"'
            )
        fraction = (found["fraction"] or "").ljust(6, "0")
        amount = cls(int(found["whole"]) * MICRO_PER_USD + int(fraction))
        if amount > USD_MAX * MICRO_PER_USD:
            raise MalformedError(f"an amount of at most {USD_MAX} US dollars is expected")
        return amount

    def text(self) -> str:
        """The amount as decimal text, without trailing zeros: what :meth:`parse` reads."""
        whole, fraction = divmod(self, MICRO_PER_USD)
        places = f"{fraction:06d}".rstrip("0")
        return f"{whole}.{places}" if places else str(whole)
