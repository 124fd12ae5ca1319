"""What gateways of one machine tell each other of the limits that they share: plain records.

Each tells what it did, and takes what the others did as if it had happened to itself. So all of
them count the same, and one that starts later reads what it missed.
"""

import msgspec

from trunkline.gateway.core.quota import Cost
from trunkline.gateway.core.route import Place
from trunkline.gateway.core.slots import End
from trunkline.schema.attempt import Limits


class Began(msgspec.Struct, frozen=True, kw_only=True, tag="began"):
    """An attempt took a place."""

    number: int
    """The teller's own."""
    place: Place
    tenant: str | None
    """Whose own limits it counts against; None: nobody's, its answer was counted before."""
    cost: Cost
    payer: str = ""
    """Who asked, with its weight, for the model and kind that it asked for."""
    weight: int = 1
    domain: tuple[str, str] = ("", "")


class Left(msgspec.Struct, frozen=True, kw_only=True, tag="left"):
    """It left it."""

    number: int
    end: End


class Stated(msgspec.Struct, frozen=True, kw_only=True, tag="stated"):
    """A provider said something of its limits."""

    place: Place
    limits: Limits


Fact = Began | Left | Stated


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """A fact as it was read."""

    teller: int
    at_s: float
    """When it happened, on the reader's monotonic clock."""
    fact: Fact
