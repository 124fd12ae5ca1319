"""Records as bytes, so that a test goes on after a restart and a verdict can carry its state.

JSON with sorted keys and without floats: a float is written in hexadecimal (C99 ``%a``), which is
exact, so the bytes fit into canonical JSON and one record has one spelling. Reading checks that the
parts can belong together; it cannot check that they came from the scores claimed. For that,
observe the scores again and compare bytes.
"""

from typing import Literal, TypeVar

import msgspec

from trunkline.base.errors import MalformedError
from trunkline.sequential.betting import FRACTIONS_MAX
from trunkline.sequential.detector import ChangeTest, Detector
from trunkline.sequential.wealth import MeanTest, Wealth

RECORD_BYTES_MAX = 16 * 1024
_INTEGER_MAX = 2**53 - 1


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    fractions: tuple[str, ...]
    mu0: str
    samples: int
    side: Literal["above", "below", "either"]


class _Wealth(_Record, frozen=True, kw_only=True):
    alpha: str
    exponents: tuple[int, ...]
    failed_at: int
    """0 for never."""
    mantissas: tuple[str, ...]
    peak: str
    type: Literal["trunkline.wealth/v1"] = "trunkline.wealth/v1"


class _Detector(_Record, frozen=True, kw_only=True):
    alarmed_at: int
    """0 for never."""
    kind: Literal["shiryaev_roberts", "cusum"]
    levels: tuple[str, ...]
    run_length: str
    type: Literal["trunkline.detector/v1"] = "trunkline.detector/v1"


_R = TypeVar("_R", bound=_Record)


def encode_wealth(wealth: Wealth) -> bytes:
    """``wealth`` as bytes, at most ``RECORD_BYTES_MAX``."""
    test = wealth.test
    return _encode(
        _Wealth(
            alpha=test.alpha.hex(),
            exponents=wealth.exponents,
            failed_at=wealth.failed_at or 0,
            fractions=_hex(test.fractions),
            mantissas=_hex(wealth.mantissas),
            mu0=test.mu0.hex(),
            peak=wealth.peak.hex(),
            samples=wealth.samples,
            side=test.side,
        )
    )


def decode_wealth(data: bytes) -> Wealth:
    """The record that ``data`` spells. Raises :class:`MalformedError`."""
    saved = _decode(data, _Wealth)
    try:
        test = MeanTest(
            mu0=_float(saved.mu0),
            alpha=_float(saved.alpha),
            side=saved.side,
            fractions=_floats(saved.fractions),
        )
    except ValueError as error:
        raise MalformedError("not a test that can be made") from error
    wealth = Wealth(
        test=test,
        samples=saved.samples,
        mantissas=_floats(saved.mantissas),
        exponents=saved.exponents,
        peak=_float(saved.peak),
        failed_at=saved.failed_at or None,
    )
    if not _possible(wealth) or encode_wealth(wealth) != data:
        raise MalformedError("not a wealth that a test can reach, or not its one spelling")
    return wealth


def encode_detector(detector: Detector) -> bytes:
    """``detector`` as bytes, at most ``RECORD_BYTES_MAX``."""
    test = detector.test
    return _encode(
        _Detector(
            alarmed_at=detector.alarmed_at or 0,
            fractions=_hex(test.fractions),
            kind=test.kind,
            levels=_hex(detector.levels),
            mu0=test.mu0.hex(),
            run_length=float(test.run_length).hex(),
            samples=detector.samples,
            side=test.side,
        )
    )


def decode_detector(data: bytes) -> Detector:
    """The record that ``data`` spells. Raises :class:`MalformedError`."""
    saved = _decode(data, _Detector)
    try:
        test = ChangeTest(
            mu0=_float(saved.mu0),
            run_length=_float(saved.run_length),
            side=saved.side,
            kind=saved.kind,
            fractions=_floats(saved.fractions),
        )
    except ValueError as error:
        raise MalformedError("not a watch that can be kept") from error
    levels = _floats(saved.levels)
    detector = Detector(
        test=test, samples=saved.samples, levels=levels, alarmed_at=saved.alarmed_at or None
    )
    fits = len(levels) == test.fresh().size and all(0 <= level < 1e300 for level in levels)
    # Nothing is taken after an alarm, so an alarm stands at the last score.
    if not fits or saved.alarmed_at not in (0, saved.samples) or encode_detector(detector) != data:
        raise MalformedError("not a state that a detector can reach, or not its one spelling")
    return detector


def _possible(wealth: Wealth) -> bool:
    """Whether a test could have come to this."""
    count = wealth.test.bettors
    return (
        len(wealth.mantissas) == len(wealth.exponents) == count
        and all(0.5 <= mantissa < 1 for mantissa in wealth.mantissas)
        and wealth.peak >= max(1.0, wealth.e_value)
        and (wealth.failed_at is not None) == (wealth.peak >= wealth.test.threshold)
        and (wealth.failed_at or 0) <= wealth.samples
    )


def _encode(record: _Record) -> bytes:
    return msgspec.json.encode(record, order="sorted")


def _decode(data: bytes, kind: type[_R]) -> _R:
    if len(data) > RECORD_BYTES_MAX:
        raise MalformedError(f"a record of {len(data)} bytes is too long")
    try:
        record = msgspec.json.decode(data, type=kind)
    except (ValueError, RecursionError) as error:
        raise MalformedError("not a saved record") from error
    if not 0 <= record.samples <= _INTEGER_MAX:
        raise MalformedError("a number of scores is out of range")
    if isinstance(record, _Wealth) and any(abs(e) > 2**60 for e in record.exponents):
        raise MalformedError("an exponent is out of range")
    return record


def _hex(values: tuple[float, ...]) -> tuple[str, ...]:
    return tuple(value.hex() for value in values)


def _float(text: str) -> float:
    try:
        return float.fromhex(text)
    except (ValueError, OverflowError) as error:
        raise MalformedError("not a hexadecimal float") from error


def _floats(texts: tuple[str, ...]) -> tuple[float, ...]:
    if len(texts) > 2 * FRACTIONS_MAX:
        raise MalformedError("more bettors than a test has")
    return tuple(_float(text) for text in texts)
