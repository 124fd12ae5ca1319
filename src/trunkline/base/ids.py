"""Identifiers: short, URL-safe, and typed so that one can not be passed for another."""

from base64 import b32encode
from typing import NewType

AnswerId = NewType("AnswerId", str)
"""One answer to one call of the app, whatever number of attempts it took. ``ans_…``"""

AttemptId = NewType("AttemptId", str)
"""One try at one deployment. ``att_…``"""

NodeName = NewType("NodeName", str)
"""A node's key name: ``<node>.<operator>``, no spaces, no plus signs (C2SP signed-note)."""

ModelName = NewType("ModelName", str)

ID_RANDOM_BYTES = 15
"""120 bits: 24 characters of base32, no padding."""


def _spell(prefix: str, random: bytes) -> str:
    if len(random) != ID_RANDOM_BYTES:
        raise ValueError(f"an id takes {ID_RANDOM_BYTES} random bytes, not {len(random)}")
    return prefix + b32encode(random).decode("ascii").lower()


def answer_id(random: bytes) -> AnswerId:
    """Spell an answer's id from ``ID_RANDOM_BYTES`` random bytes."""
    return AnswerId(_spell("ans_", random))


def attempt_id(random: bytes) -> AttemptId:
    """Spell an attempt's id from ``ID_RANDOM_BYTES`` random bytes."""
    return AttemptId(_spell("att_", random))
