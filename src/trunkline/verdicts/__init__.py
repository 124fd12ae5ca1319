"""Signed records about audits: self-tests, terms, draws, demands, commitments, verdicts,
calibrations.

Pure: no I/O, no clock, no keys of its own. Specified in ``docs/spec/verdict.md``.
"""

from trunkline.verdicts.calibration import CALIBRATION_TYPE, Calibration
from trunkline.verdicts.chain import (
    CHAIN_ENTRIES,
    SEED_BYTES,
    Bound,
    Chain,
    bound,
    chain_of,
    follow,
)
from trunkline.verdicts.commitment import COMMITMENT_TYPE, Commitment
from trunkline.verdicts.conduct import Conduct, examine
from trunkline.verdicts.demand import DEMAND_TYPE, Demand, demanded_digest, open_demand
from trunkline.verdicts.draw import (
    DRAW_TYPE,
    DRAWN_ENTRIES_MAX,
    OPINIONS,
    RATE_PPM_MAX,
    Draw,
    check_draw,
    drawn,
    opinions,
    plain_checkpoint,
    randomness,
    range_end,
)
from trunkline.verdicts.record import Record, decimal
from trunkline.verdicts.reveal import (
    REVEAL_AFTER_MS,
    Logged,
    are_independent,
    check_reveal,
    may_reveal,
)
from trunkline.verdicts.self_test import SELF_TEST_TYPE, SelfTest
from trunkline.verdicts.sequence import Fault, check_sequence
from trunkline.verdicts.terms import TERMS_TYPE, Terms, in_force, too_small
from trunkline.verdicts.verdict import (
    VERDICT_TYPE,
    Check,
    Drawn,
    Kind,
    Regime,
    Result,
    Standing,
    StandingEvidence,
    Subject,
    Verdict,
)

__all__ = [
    "CALIBRATION_TYPE",
    "CHAIN_ENTRIES",
    "COMMITMENT_TYPE",
    "DEMAND_TYPE",
    "DRAWN_ENTRIES_MAX",
    "DRAW_TYPE",
    "OPINIONS",
    "RATE_PPM_MAX",
    "REVEAL_AFTER_MS",
    "SEED_BYTES",
    "SELF_TEST_TYPE",
    "TERMS_TYPE",
    "VERDICT_TYPE",
    "Bound",
    "Calibration",
    "Chain",
    "Check",
    "Commitment",
    "Conduct",
    "Demand",
    "Draw",
    "Drawn",
    "Fault",
    "Kind",
    "Logged",
    "Record",
    "Regime",
    "Result",
    "SelfTest",
    "Standing",
    "StandingEvidence",
    "Subject",
    "Terms",
    "Verdict",
    "are_independent",
    "bound",
    "chain_of",
    "check_draw",
    "check_reveal",
    "check_sequence",
    "decimal",
    "demanded_digest",
    "drawn",
    "examine",
    "follow",
    "in_force",
    "may_reveal",
    "open_demand",
    "opinions",
    "plain_checkpoint",
    "randomness",
    "range_end",
    "too_small",
]
