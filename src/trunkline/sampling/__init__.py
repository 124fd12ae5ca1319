"""Sampling that anyone can repeat: keyed noise, the rule that turns logits into a token, and seeds.

Pure: values in, values out. The engine chooses with it, the verifier checks with it, and neither
can differ from the other in how.
"""

from trunkline.sampling.choice import Params, choose, ranked
from trunkline.sampling.logprobs import LogProbabilities
from trunkline.sampling.noise import SEED_BYTES, gumbels, uniforms
from trunkline.sampling.score import Scored, score
from trunkline.sampling.seeds import answer_seed, choice_seed, seed_from_caller

__all__ = [
    "SEED_BYTES",
    "LogProbabilities",
    "Params",
    "Scored",
    "answer_seed",
    "choice_seed",
    "choose",
    "gumbels",
    "ranked",
    "score",
    "seed_from_caller",
    "uniforms",
]
