"""The verifier's crash points (:mod:`trunkline.runtime.crash`): one between any two steps of an
audit that a crash could tear apart."""

from typing import Final

ENTRIES_FOLLOWED: Final = "entries.followed"
DRAW_STORED: Final = "draw.stored"
OPENING_STORED: Final = "opening.stored"
ANSWER_SCORED: Final = "answer.scored"
VERDICT_STORED: Final = "verdict.stored"
STATEMENT_LOGGED: Final = "statement.logged"
VERDICT_REVEALED: Final = "verdict.revealed"

CRASH_POINTS: Final = (
    ENTRIES_FOLLOWED,
    DRAW_STORED,
    OPENING_STORED,
    ANSWER_SCORED,
    VERDICT_STORED,
    STATEMENT_LOGGED,
    VERDICT_REVEALED,
)
"""Every point, in the order an audit passes them."""
