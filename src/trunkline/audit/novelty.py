"""Whether the scores of an answer are news: the same answer again says nothing more of its subject.

In the noisy regime an honest token differs now and then, where two were nearly level. That two
engines part there hangs on the prompt, the tokens before, and the noise; where all of them are the
same, so is the score. A request at temperature 0 that comes again and again (a health check, a
test, a job that is tried again) would have one such token bet on each time, until an honest node
has failed by it. So the scores of an answer count once a subject. In the exact regime no honest
token differs, and each answer counts.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from trunkline.audit import repeated
from trunkline.audit.findings import not_applicable
from trunkline.audit.replay import Measured
from trunkline.crypto.digest import sha256
from trunkline.receipts import Receipt
from trunkline.schema.audit import OpenedContent
from trunkline.verdicts import Check, Regime

AGAIN: Final = "again"
"""There only where the same scores have counted before."""
COUNTED: Final = not_applicable(AGAIN, "the same answer to the same prompt has counted before")
DOMAIN: Final = b"trunkline.counted/v1\n"
TEMPERATURE_MIN: Final = 0.05
"""Below it, which of two is chosen that are nearly level hangs on the engine more than on noise."""
ENTROPY_MIN: Final = 1e-6
"""Nats; below it nothing was left to the noise."""
NOT_SCORED: Final = frozenset(
    {
        "messages", "metadata", "model", "prompt_cache_key", "safety_identifier", "seed",
        "service_tier", "store", "stream", "stream_options", "user",
    }
)  # fmt: skip
"""Members of a request that scores do not hang on, or that are told by the prompt's tokens and by
the receipt's seed. What comes again may have others of these each time."""


def fingerprint(
    receipt: Receipt, content: OpenedContent | None, measured: Measured | None
) -> bytes | None:
    """What the scores of an answer follow from beside the models, 32 bytes; None: nothing was
    opened.

    The seed is part of it, unless no token of the answer hung on its noise: the verifier's model
    leaves each a single choice, or the temperature is next to nothing.
    """
    if content is None:
        return None
    try:
        asked = msgspec.json.decode(content.request, type=dict[str, msgspec.Raw])
        temperature = msgspec.json.decode(asked.get("temperature", b"null"), type=float | None)
    except msgspec.MsgspecError:
        return None
    scores = () if measured is None else measured.scores
    cold = temperature is not None and temperature < TEMPERATURE_MIN
    drawn = any(score.entropy > ENTROPY_MIN for choice in scores for score in choice) and not cold
    parts = (
        {name: value for name, value in asked.items() if name not in NOT_SCORED},
        receipt.sampling.seed if drawn else "",
        content.prompt,
        content.tokens,
        receipt.response.resumed,
        content.vectors,
    )
    return sha256(DOMAIN + msgspec.json.encode(parts, order="deterministic"))


def counts(checks: Iterable[Check]) -> bool:
    """Whether the scores of an answer with these checks are evidence on its subject."""
    return all(check.name not in (repeated.CACHED, AGAIN) for check in checks)


def is_sound(checks: Iterable[Check], regime: Regime, *, scored: bool) -> bool:
    """Whether a check that leaves scores out stands where it may."""
    found = [check for check in checks if check.name == AGAIN]
    return not found or (found == [COUNTED] and regime == "noisy" and scored)
