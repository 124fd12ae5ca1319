"""Times as people type them: a date, a date and a time, or how long ago."""

from datetime import UTC, datetime, timedelta, tzinfo
from re import compile as regex
from typing import Final

from trunkline.base.errors import ConfigError

_AGO: Final = regex(r"([0-9]{1,6})([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def unix_ms(text: str, now: datetime) -> int:
    """Unix milliseconds of ``2026-11-21``, ``2026-11-21T13:05``, or ``90m`` (``s m h d``) before
    ``now``. What has no offset is in the time zone of ``now``, which has one. Before 1970 is 0:
    nothing is older.

    Raises :class:`ConfigError` for anything else.
    """
    ago = _AGO.fullmatch(text)
    try:
        if ago is not None:
            moment = now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        else:
            moment = _with_zone(datetime.fromisoformat(text), now.tzinfo or UTC)
        return max(0, int(moment.timestamp() * 1000))
    except (ValueError, OverflowError):
        raise ConfigError(
            f"{text!r} is no time: say 2026-11-21, 2026-11-21T13:05 or 90m (s, m, h, d)"
        ) from None


def _with_zone(moment: datetime, zone: tzinfo) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)
