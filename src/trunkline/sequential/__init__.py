"""Statistics that may be looked at after every score: tests of means, alarms for change, bounds.

Answers are never judged alone. A check's bounded scores accumulate, per node, model and
configuration, as wealth in a bet against "this node does what it claims"; a verdict falls when the
wealth would be a 1/α miracle. Everything here is pure, deterministic to the last bit, and proved by
simulation in its tests; docs/adr/0009-sequential-tests.md says why it is this and not another.

It knows nothing of tokens, nodes or verdicts, and calibrates nothing: μ₀ comes from outside.
"""

from trunkline.sequential.betting import FRACTIONS, Side
from trunkline.sequential.confidence import ConfidenceSequence, confidence_sequence
from trunkline.sequential.detector import ChangeTest, Detector, run_lengths
from trunkline.sequential.exact import (
    clean_trials_needed,
    mismatch_chance_if_alike,
    mismatch_chance_max,
    mismatch_rate_max,
)
from trunkline.sequential.multiple import average, e_bh, e_from_p, e_from_p_mixed, p_from_e
from trunkline.sequential.saved import (
    decode_detector,
    decode_wealth,
    encode_detector,
    encode_wealth,
)
from trunkline.sequential.wealth import MeanTest, Wealth, first_failures, trajectories

__all__ = [
    "FRACTIONS",
    "ChangeTest",
    "ConfidenceSequence",
    "Detector",
    "MeanTest",
    "Side",
    "Wealth",
    "average",
    "clean_trials_needed",
    "confidence_sequence",
    "decode_detector",
    "decode_wealth",
    "e_bh",
    "e_from_p",
    "e_from_p_mixed",
    "encode_detector",
    "encode_wealth",
    "first_failures",
    "mismatch_chance_if_alike",
    "mismatch_chance_max",
    "mismatch_rate_max",
    "p_from_e",
    "run_lengths",
    "trajectories",
]
