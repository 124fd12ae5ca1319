"""Writes bundles of audits, and what they lead to, as vectors of the spec.

    python -m tests.unit.audit.make_vectors     writes docs/spec/bundle-vectors.json

Everything is a function of counted bytes; a test holds the file against this script.
"""

import json
from pathlib import Path

import msgspec
from tests.support import audit_records as make
from tests.support.auditing import exact

from trunkline.audit import bundle
from trunkline.audit.bundle import Bundle, Compared, logprobs_check, replay_check
from trunkline.audit.calibration import encode
from trunkline.audit.findings import passed, total
from trunkline.audit.judge import moved
from trunkline.audit.standing import State, encode_state
from trunkline.audit.trials import Trials
from trunkline.verdicts import Check, Subject

VECTORS = Path(__file__).parents[3] / "docs" / "spec" / "bundle-vectors.json"
CALIBRATION = exact()
TOKENS = 36
BOUND = passed("response", "as signed")
ALIKE = Compared(differing=0, tokens=TOKENS)
OTHERS = Compared(differing=2, tokens=TOKENS)


def replayed(mismatches: int = 0) -> Trials:
    return Trials(bins=(), ends=(), margins=(), mismatches=mismatches, tokens=TOKENS)


def made(trials: Trials, compared: Compared | None = None) -> Bundle:
    """The bundle of the first answer of a subject."""
    checks: list[Check] = [BOUND, replay_check(trials, "exact", "replay", "")]
    if compared is not None:
        checks.append(logprobs_check(compared))
    before = State.start(CALIBRATION)
    after = moved(before, CALIBRATION, trials, checks, picked=False)
    subject = Subject(
        configuration="",
        key=str(make.NODE.vkey),
        model="tiny",
        node=make.NODE.vkey.name,
        numerics="numerics-1",
        operator="alpha.example",
        weights=make.digest_of("weights"),
    )
    return Bundle(
        calibration=CALIBRATION.digest,
        checks=tuple(checks),
        evidence=after.evidence,
        kind="replay",
        logprobs=msgspec.UNSET if compared is None else compared,
        picked=False,
        previous=encode_state(before).decode(),
        receipt=make.hash32("receipt").hex(),
        regime="exact",
        result=total(checks),
        standing=after.standing,
        subject=subject,
        trials=trials,
    )


def good() -> dict[str, Bundle]:
    return {
        "honest": made(replayed()),
        "one_token_is_not_the_models": made(replayed(1)),
        "log_probabilities": made(replayed(), ALIKE),
        "other_log_probabilities": made(replayed(), OTHERS),
    }


def refused() -> dict[str, Bundle]:
    """Bundles whose numbers do not lead to what they say."""
    honest, lying = made(replayed(), ALIKE), made(replayed(), OTHERS)
    change = msgspec.structs.replace
    return {
        "log_probabilities_that_differ_pass": change(honest, logprobs=OTHERS),
        "log_probabilities_that_agree_fail": change(lying, logprobs=ALIKE),
        "log_probabilities_pass_without_numbers": change(honest, logprobs=msgspec.UNSET),
        "log_probabilities_without_a_check": change(honest, checks=honest.checks[:2]),
        "more_differ_than_there_are": change(lying, logprobs=change(OTHERS, tokens=1)),
        "a_mismatch_passes": change(honest, trials=replayed(1)),
    }


def document() -> str:
    """The vectors file's text."""
    bundles = [
        {
            "name": name,
            "bundle": bundle.encode(one).decode(),
            "result": one.result,
            "standing": one.standing,
        }
        for name, one in good().items()
    ]
    whole = {
        "spec": "docs/spec/audit-bundle.md",
        "calibration": encode(CALIBRATION).decode(),
        "bundles": bundles,
        "refused": [
            {"name": name, "bundle": bundle.encode(one).decode()} for name, one in refused().items()
        ],
    }
    return json.dumps(whole, indent=1) + "\n"


if __name__ == "__main__":
    VECTORS.write_text(document())
