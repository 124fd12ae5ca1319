"""Whether the scores of an answer are news: the same answer again says nothing more of its subject.

In the noisy regime an honest token differs now and then, where two were nearly level. That two
engines part there hangs on the prompt, the tokens before, and the noise; where all of them are the
same, so is the score. A request at temperature 0 that comes again and again (a health check, a
test, a job that is tried again) would have one such token bet on each time, until an honest node
has failed by it. So the scores of an answer count once a subject. In the exact regime no honest
token differs, and each answer counts.
"""

import hashlib
from collections.abc import Iterable
from typing import Final

import msgspec

from trunkline.audit import repeated
from trunkline.audit.findings import not_applicable
from trunkline.audit.replay import Measured
from trunkline.receipts import Receipt
from trunkline.schema.audit import OpenedContent
from trunkline.verdicts import Check

AGAIN: Final = "again"
"""There only where the same scores have counted before."""
COUNTED: Final = not_applicable(AGAIN, "the same answer to the same prompt has counted before")
DOMAIN: Final = b"trunkline.counted/v1\n"


def fingerprint(
    receipt: Receipt, content: OpenedContent | None, measured: Measured | None
) -> bytes | None:
    """What the scores of an answer follow from, 32 bytes; None: nothing was opened.

    The seed is part of it, unless no token of the answer hung on its noise: the verifier's model
    leaves each a single choice.
    """
    if content is None:
        return None
    scores = () if measured is None else measured.scores
    drawn = any(score.entropy > 0 for choice in scores for score in choice)
    parts = (
        receipt.sampling.seed if drawn else "",
        content.prompt,
        content.tokens,
        receipt.response.resumed,
        content.vectors,
    )
    return hashlib.sha256(DOMAIN + msgspec.json.encode(parts)).digest()


def counts(checks: Iterable[Check]) -> bool:
    """Whether the scores of an answer with these checks are evidence on its subject."""
    return all(check.name not in (repeated.CACHED, AGAIN) for check in checks)
