"""``traceparent``: what W3C Trace Context takes and refuses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.schema.traceparent import TraceParent, read_traceparent

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


def test_it_is_read_and_written_as_it_was() -> None:
    value = f"00-{TRACE}-{SPAN}-01"
    found = read_traceparent(value)
    assert found == TraceParent(trace=TRACE, span=SPAN, sampled=True)
    assert found is not None
    assert found.header() == value


def test_a_later_version_may_say_more() -> None:
    found = read_traceparent(f"cc-{TRACE}-{SPAN}-02-what-the-future-brings")
    assert found == TraceParent(trace=TRACE, span=SPAN, sampled=False)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"cc-{TRACE}-{SPAN}-01-{'x' * 200}",
    ],
)
def test_what_is_not_well_formed_is_as_good_as_absent(value: str | None) -> None:
    assert read_traceparent(value) is None


@given(st.text())
def test_any_text_gives_a_place_or_none(value: str) -> None:
    found = read_traceparent(value)
    assert found is None or read_traceparent(found.header()) == found
