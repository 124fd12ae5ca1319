"""Records about audits: any bytes, any values; and a draw that favours nobody."""

import json
from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support import audit_records as make
from tests.support import planting

from trunkline.base.errors import Error, MalformedError
from trunkline.verdicts import (
    Record,
    SelfTest,
    check_sequence,
    decimal,
    drawn,
    opinions,
)

RECORDS: tuple[Record, ...] = (
    make.self_test(),
    make.draw(),
    make.calibration(),
    make.commitment(b"a verdict"),
    make.verdict(),
    make.demand(),
    planting.PLANT,
    planting.ACCEPTED,
    planting.OPENED,
)
TYPES = tuple(type(record) for record in RECORDS)
records = st.sampled_from(RECORDS)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.sampled_from(TYPES), st.binary())
def test_any_bytes_are_a_record_or_malformed(kind: type[Record], data: bytes) -> None:
    for text in (data, kind.TYPE.encode() + b"\n" + data):
        with pytest.raises(MalformedError):
            kind.parse(text)


@given(records, st.data())
def test_a_member_of_any_value_is_read_as_written_or_refused(
    record: Record, data: st.DataObject
) -> None:
    head, line, _ = record.text().split(b"\n")
    value = json.loads(line)
    value[data.draw(st.sampled_from(sorted(value)))] = data.draw(json_values)
    try:
        spelled = msgspec.json.encode(value, order="sorted")
    except UnicodeEncodeError:
        return
    text = head + b"\n" + spelled + b"\n"
    try:
        read = type(record).parse(text)
    except MalformedError:
        return
    assert read.text() == text


@given(records, st.data())
def test_a_changed_byte_is_never_believed(record: Record, data: st.DataObject) -> None:
    signer = make.NODE if isinstance(record, SelfTest) else make.VERIFIER
    note = make.signed(record, signer)
    at = data.draw(st.integers(0, len(note) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda one: one != note[at]))
    changed = note[:at] + bytes((byte,)) + note[at + 1 :]
    with pytest.raises(Error):
        type(record).open_note(changed, signer.vkey)


@given(st.floats(min_value=0, allow_nan=False, allow_infinity=False))
def test_a_number_is_read_back_to_the_last_bit(value: float) -> None:
    assert float(decimal(abs(value))) == value


def test_every_receipt_is_drawn_as_often_as_every_other() -> None:
    """χ² over places in batches, places in the log, and checkpoints, at a fixed seed.

    Each count is of 64,000 receipts at one in 20. At 15 degrees of freedom 37.7 is passed once in
    a thousand seeds, and this is one seed.
    """
    rate_ppm, buckets = 50_000, 16
    by_leaf, by_entry, by_draw = Counter[int](), Counter[int](), Counter[int]()
    for draw in range(buckets):
        chance = make.hash32(f"checkpoint {draw}")
        for entry in range(1000):
            for leaf in range(64):
                if drawn(chance, rate_ppm, entry, leaf):
                    by_leaf[leaf % buckets] += 1
                    by_entry[entry % buckets] += 1
                    by_draw[draw] += 1
    receipts = 1000 * 64
    for counts, sizes in (
        (by_leaf, [receipts] * buckets),
        (by_entry, [64 * buckets * len(range(at, 1000, buckets)) for at in range(buckets)]),
        (by_draw, [receipts] * buckets),
    ):
        rate = rate_ppm / 1e6
        chi_squared = sum(
            (counts[at] - size * rate) ** 2 / (size * rate * (1 - rate))
            for at, size in enumerate(sizes)
        )
        assert 4 < chi_squared < 37.7


@given(st.integers(0, 1_000_000), st.binary(min_size=32, max_size=32), st.integers(0, 2**40))
def test_what_is_drawn_at_a_rate_is_drawn_at_every_higher_one(
    rate_ppm: int, chance: bytes, entry: int
) -> None:
    """So a verifier can not lose a receipt by auditing more."""
    if drawn(chance, rate_ppm, entry, 3):
        assert drawn(chance, min(1_000_000, rate_ppm + 1), entry, 3)


@given(
    st.dictionaries(st.text(min_size=1, max_size=8), st.sampled_from("abc"), min_size=1),
    st.integers(1, 5),
    st.binary(min_size=32, max_size=32),
)
def test_the_drawer_first_nobody_twice_and_order_of_configuration_does_not_matter(
    verifiers: dict[str, str], count: int, chance: bytes
) -> None:
    leaf = make.hash32("leaf")
    for by in verifiers:
        names = opinions(chance, leaf, verifiers, by, count)
        assert names[0] == by
        assert len(set(names)) == len(names) == min(count, len(verifiers))
        assert set(names) <= set(verifiers)
        backwards = dict(reversed(verifiers.items()))
        assert opinions(chance, leaf, backwards, by, count) == names


sizes = st.lists(st.integers(1, 50), min_size=1, max_size=6).map(
    lambda steps: [sum(steps[: at + 1]) for at in range(len(steps))]
)


@given(sizes, st.data())
def test_ranges_without_a_gap_cover_the_log_and_any_other_shows(
    ends: list[int], data: st.DataObject
) -> None:
    draws = [make.draw(start, end) for start, end in zip([0, *ends], ends, strict=False)]
    assert check_sequence(draws) == ()
    for entry in range(ends[-1]):
        assert sum(draw.from_ <= entry < draw.to for draw in draws) == 1
    if len(draws) > 2:
        lost = data.draw(st.integers(1, len(draws) - 2))
        faults = check_sequence(draws[:lost] + draws[lost + 1 :])
        assert [(fault.kind, fault.start, fault.end) for fault in faults] == [
            ("skipped", ends[lost - 1], ends[lost])
        ]
    twice = data.draw(st.integers(0, len(draws) - 1))
    again = make.draw(draws[twice].from_, ends[twice], at_s=make.NOW_MS // 1000 + 1)
    faults = check_sequence([*draws[: twice + 1], again])
    assert [fault.kind for fault in faults] == ["again"]
