"""Slips in a provider's chunks: put right where nothing is lost, and nothing else is touched."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.base.errors import BadResponseError
from trunkline.node.core.mending import mended
from trunkline.node.core.upstream import StreamCheck, check_completion, readable

DELTA = {"content": "snow"}
CHOICE = {"index": 0, "delta": DELTA, "finish_reason": None}
CHUNK = {"id": "up", "created": 17, "model": "m", "choices": [CHOICE]}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}

json = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "delta", "index", "usage", "id", "finish_reason", "content"]
            ),
            inner,
        )
    ),
)


def chunk(choice: dict[str, object] | None = None, **more: object) -> bytes:
    changed = CHUNK | more | ({} if choice is None else {"choices": [CHOICE | choice]})
    return msgspec.json.encode(changed)


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        (chunk({"delta": None}), chunk({"delta": {}})),
        (chunk({"index": None}), chunk()),
        (chunk({"index": "0"}), chunk()),
        (chunk({"index": 0.0}), chunk()),
        (chunk().replace(b'"index":0,', b""), chunk()),
        (chunk({"finish_reason": ""}), chunk()),
        (chunk({"finish_reason": "STOP"}), chunk({"finish_reason": "stop"})),
        (chunk({"finish_reason": "eos_token"}), chunk({"finish_reason": "stop"})),
        (chunk({"finish_reason": "max_tokens"}), chunk({"finish_reason": "length"})),
        (chunk(id=None), chunk(id="")),
        (chunk(model=None), chunk(model="")),
        (chunk(created="17"), chunk()),
        (chunk(choices=None, usage=USAGE), chunk(choices=[], usage=USAGE)),
        (chunk(usage=False), chunk(usage=None)),
        (chunk(usage=USAGE | {"completion_tokens": 2.0}), chunk(usage=USAGE)),
        (chunk(usage=USAGE | {"total_tokens": "5"}), chunk(usage=USAGE)),
        (chunk(usage=USAGE | {"completion_tokens": -2}), chunk(usage=None)),
        (chunk(usage=USAGE | {"completion_tokens": 10**30}), chunk(usage=None)),
        (chunk(usage=USAGE | {"completion_tokens": 2.5}), chunk(usage=None)),
        (chunk(usage=[USAGE]), chunk(usage=None)),
        (chunk(usage=USAGE | {"prompt_tokens_details": []}), chunk(usage=None)),
        (chunk({"finish_reason": "SAFETY"}), chunk({"finish_reason": "content_filter"})),
        (chunk({"finish_reason": "COMPLETE"}), chunk({"finish_reason": "stop"})),
        (chunk({"finish_reason": "null"}), chunk()),
        (chunk().replace(b'"delta":{"content":"snow"},', b""), chunk({"delta": {}})),
    ],
)  # fmt: skip
def test_a_slip_reads_as_what_was_meant(slip: bytes, meant: bytes) -> None:
    check = StreamCheck(1)
    check.feed(chunk())
    (line,) = check.feed(slip)
    assert msgspec.json.decode(line) == msgspec.json.decode(meant)


@pytest.mark.parametrize(
    "bad",
    [
        chunk({"delta": {"content": 5}}),
        chunk({"delta": {"content": ["snow"]}}),
        chunk({"delta": "snow"}),
        chunk({"index": "first"}),
        chunk({"index": 0.5}),
        chunk(choices="none"),
        b"{}",
        b"[]",
        b'{"code": "Busy", "message": "x"}',
    ],
)
def test_what_may_hold_text_is_not_guessed_at(bad: bytes) -> None:
    check = StreamCheck(1)
    check.feed(chunk())
    with pytest.raises(BadResponseError) as caught:
        check.feed(bad)
    assert caught.value.error_code == "upstream_bad_chunk"


def test_a_good_chunk_keeps_its_bytes() -> None:
    odd = chunk().replace(b":", b": ").replace(b"}", b',"unknown": 2.50}')
    assert StreamCheck(1).feed(odd) == [odd]


def test_an_index_of_a_call_is_none_of_its_choice() -> None:
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
    slip = chunk({"delta": {"tool_calls": [call]}}).replace(b'"index":0,', b"", 1)
    (line,) = StreamCheck(1).feed(slip)
    assert msgspec.json.decode(line)["choices"][0]["index"] == 0


def test_a_whole_answer_is_mended_alike() -> None:
    body = {"model": "m", "choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}
    mended_body = readable(msgspec.json.encode(body))
    assert msgspec.json.decode(mended_body)["choices"][0]["index"] == 0
    assert check_completion(mended_body, 1).finish == ("stop",)


@given(json)
def test_mending_twice_changes_nothing_more(value: object) -> None:
    once = mended(msgspec.json.encode(value))
    assert mended(once) == once


@given(st.binary(max_size=60))
def test_what_is_no_json_is_handed_back(data: bytes) -> None:
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        assert mended(data) == data
