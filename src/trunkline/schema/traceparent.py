"""The header ``traceparent`` (W3C Trace Context, Recommendation of 23 November 2021, level 1).

It says which trace a call belongs to, and under which span. Anybody may send anything: what is not
well-formed is as good as absent. ``tracestate`` is neither read nor passed on: it may say anything
of the app, and nodes belong to others.
"""

import re
from typing import Final

import msgspec

TRACEPARENT: Final = "traceparent"
TRACE_BYTES: Final = 16
SPAN_BYTES: Final = 8
_SAMPLED: Final = 1
_FORM: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_CHARS_MAX: Final = 128
_VERSION: Final = "00"
_INVALID_VERSION: Final = "ff"


class TraceParent(msgspec.Struct, frozen=True, kw_only=True):
    """A place in a trace."""

    trace: str
    """32 lower-case hexadecimal digits, not all zero."""
    span: str
    """16 lower-case hexadecimal digits, not all zero."""
    sampled: bool
    """Whoever sent it may have recorded it."""

    def header(self) -> str:
        """The header's value."""
        return f"{_VERSION}-{self.trace}-{self.span}-{int(self.sampled):02x}"


def read_traceparent(value: str | None) -> TraceParent | None:
    """The header's value; None where there is none or it is not well-formed."""
    if value is None or len(value) > _CHARS_MAX:
        return None
    found = _FORM.fullmatch(value.strip())
    if found is None:
        return None
    version, trace, span, flags, more = found.groups()
    # A later version may append fields; this one may not.
    if version == _INVALID_VERSION or (more is not None and version == _VERSION):
        return None
    if not trace.strip("0") or not span.strip("0"):
        return None
    return TraceParent(trace=trace, span=span, sampled=bool(int(flags, 16) & _SAMPLED))
