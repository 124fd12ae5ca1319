"""The bounds that are checked before decoding agree with a decoder's own count."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.base.errors import RequestError
from trunkline.schema import parsing

TRICKY = st.text(st.sampled_from('"\\[]{},: a\n'), max_size=8)
VALUE = st.recursive(
    st.none() | st.integers() | TRICKY,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TRICKY, inner, max_size=3),
    max_leaves=12,
)


def wrapped(value: Any, depth: int) -> Any:
    for level in range(depth):
        value = [value] if level % 2 else {"x": value}
    return value


@given(st.dictionaries(TRICKY, VALUE, max_size=5), st.sampled_from([None, 1]))
def test_members_are_those_of_the_decoder(value: dict[str, Any], indent: int | None) -> None:
    raw = json.dumps(value, indent=indent).encode()
    assert list(parsing.top_level(raw)) == list(value)


@given(st.dictionaries(TRICKY, VALUE, min_size=1, max_size=4), st.data())
def test_a_member_given_twice_is_refused(value: dict[str, Any], data: st.DataObject) -> None:
    again = data.draw(st.sampled_from(sorted(value)))
    members = [*value.items(), (again, data.draw(VALUE))]
    raw = ",".join(f"{json.dumps(name)}:{json.dumps(member)}" for name, member in members)
    with pytest.raises(RequestError):
        parsing.top_level(b"{%b}" % raw.encode())


@given(st.integers(0, 2 * parsing.DEPTH_MAX), TRICKY)
def test_depth_is_bounded_exactly(depth: int, text: str) -> None:
    filler = [[] for _ in range(parsing.DEPTH_MAX)]
    raw = json.dumps({"deep": wrapped(text, depth), "filler": filler, "text": text}).encode()
    try:
        parsing.top_level(raw)
    except RequestError as error:
        assert error.error_code == "too_deep"
        assert depth + 1 > parsing.DEPTH_MAX
    else:
        assert depth + 1 <= parsing.DEPTH_MAX
