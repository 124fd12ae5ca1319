"""What a judge says."""

import msgspec


class Violation(msgspec.Struct, frozen=True):
    """One thing that must never be."""

    check: str
    detail: str
