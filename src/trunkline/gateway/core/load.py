"""What the queue and the places look like, for whoever asks: plain records, no content.

It reads the scheduler's own counts and changes nothing.
"""

import msgspec

from trunkline.gateway.core.quota import Meter
from trunkline.gateway.core.route import Place
from trunkline.gateway.core.slots import Slot, Slots


class WindowLoad(msgspec.Struct, frozen=True, kw_only=True):
    """A limit over time."""

    unit: str
    window_ms: int | None
    """None: nobody said how long it is."""
    limit: int
    left: int


class PlaceLoad(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment that was asked since the process started."""

    node: str
    model: str
    running: int
    """By this gateway."""
    elsewhere: int
    """By others that share their limits with it."""
    places: int
    """How many may run at once."""
    places_stated: bool
    """By its provider or an operator; else found by trying."""
    closed_ms: int
    """Until it may be asked again, by its own word; 0: now."""
    rate_found: float | None
    """Requests a second that refusals taught; None: no such limit is known."""
    windows: tuple[WindowLoad, ...]
    """Of the deployment and of the account behind it."""


class QueueLoad(msgspec.Struct, frozen=True, kw_only=True):
    """The queue."""

    waiting: int
    waiting_bytes: int
    places: tuple[PlaceLoad, ...]


def place_loads(slots: Slots, now_s: float) -> tuple[PlaceLoad, ...]:
    """All deployments, by name."""
    return tuple(_place(place, slots.at(place), now_s) for place in sorted(slots.places()))


def _place(place: Place, slot: Slot, now_s: float) -> PlaceLoad:
    concurrency = slot.concurrency
    node, model = place
    return PlaceLoad(
        node=node,
        model=model,
        running=concurrency.running,
        elsewhere=concurrency.elsewhere,
        places=concurrency.limit,
        places_stated=concurrency.stated is not None,
        closed_ms=round(max(slot.meter.closed_s - now_s, 0.0) * 1000),
        rate_found=slot.meter.pace_s(now_s),
        windows=(*_windows(slot.meter, now_s), *_windows(slot.account, now_s)),
    )


def _windows(meter: Meter, now_s: float) -> tuple[WindowLoad, ...]:
    return tuple(
        WindowLoad(
            unit=unit,
            window_ms=None if window_s is None else round(window_s * 1000),
            limit=window.limit,
            left=window.room(now_s),
        )
        for (unit, window_s), window in meter.windows.items()
    )
