"""Which calibration a pair of engines is held against: shipped ones, and an operator's own.

A calibration is for one set of weights, one regime, and a class of numerics on either side: the
beginning of their fingerprints, or all of it. The most particular one counts. Where none is, scores
mean nothing and faults alone count.
"""

from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Final, Literal

from trunkline.audit.calibration import (
    CALIBRATION_BYTES_MAX,
    Calibration,
    Parties,
    decode,
    unmeasured,
)
from trunkline.base.errors import ConfigError, MalformedError

FOLDER: Final = "calibrations"
FILES_MAX: Final = 256


def load(folder: Path | None) -> tuple[Calibration, ...]:
    """The shipped calibrations and those in ``folder``. Raises ConfigError. Blocks."""
    found = list(_read(_shipped()))
    if folder is not None:
        if not folder.is_dir():
            raise ConfigError(f"key calibrations: {folder}: no such folder")
        found += _read(sorted(folder.glob("*.json"))[:FILES_MAX])
    return tuple(found)


def choose(
    known: Iterable[Calibration],
    *,
    regime: Literal["exact", "noisy"],
    weights: str,
    model: str,
    node: str,
    verifier: str,
) -> Calibration:
    """The calibration for these weights between an engine with the numerics ``node`` and one with
    ``verifier``; one that measures nothing where there is none."""
    fitting = [
        one
        for one in known
        if one.regime == regime
        and one.parties.weights == weights
        and node.startswith(one.parties.node)
        and verifier.startswith(one.parties.verifier)
    ]
    if not fitting:
        return unmeasured(
            Parties(configuration="", model=model, node=node, verifier=verifier, weights=weights)
        )
    # The later of two alike: an operator's own comes after the shipped ones.
    return max(
        enumerate(fitting),
        key=lambda each: (len(each[1].parties.node) + len(each[1].parties.verifier), each[0]),
    )[1]


def _shipped() -> list[Path]:
    with resources.as_file(resources.files("trunkline.audit")) as room:
        return sorted((room / FOLDER).glob("*.json"))


def _read(paths: Iterable[Path]) -> Iterable[Calibration]:
    for path in paths:
        try:
            with path.open("rb") as file:
                yield decode(file.read(CALIBRATION_BYTES_MAX + 1))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
        except MalformedError as error:
            raise ConfigError(f"{path}: {error.message}") from None
