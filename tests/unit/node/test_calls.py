"""Tool calls of providers that number or name them in their own way."""

import msgspec
import pytest

from trunkline.node.core.calls import CallNumbers


def chunk(*parts: dict[str, object], choice: int = 0) -> bytes:
    body = {"id": "c", "choices": [{"index": choice, "delta": {"tool_calls": list(parts)}}]}
    return msgspec.json.encode(body)


def part(
    arguments: str, *, index: int | None = None, call: str = "", name: str = ""
) -> dict[str, object]:
    function = {"arguments": arguments} | ({"name": name} if name else {})
    made: dict[str, object] = {"function": function}
    made |= {} if index is None else {"index": index}
    return made | ({"id": call, "type": "function"} if call else {})


def put_together(numbers: CallNumbers, *chunks: bytes) -> dict[int, tuple[str, str]]:
    """By index, id and arguments: as an app does it."""
    calls: dict[int, tuple[str, str]] = {}
    for data in chunks:
        for found in msgspec.json.decode(numbers.tidy(data))["choices"][0]["delta"]["tool_calls"]:
            id_, arguments = calls.get(found["index"], ("", ""))
            said = arguments + found["function"]["arguments"]
            calls[found["index"]] = (id_ or found.get("id", ""), said)
    return calls


@pytest.mark.parametrize(
    "data",
    [
        chunk(part("", index=0, call="a", name="f")),
        b'{"choices": [{"index": 0, "delta": {"content": "\\"tool_calls\\""}}]}',
        b'{"choices": 7, "tool_calls": 8}',
        b'{"tool_calls"',
    ],
)
def test_what_lacks_nothing_is_kept_byte_for_byte(data: bytes) -> None:
    assert CallNumbers("s").tidy(data) == data


def test_parts_in_the_formats_own_way_are_kept() -> None:
    numbers = CallNumbers("s")
    chunks = [
        chunk(part("", index=0, call="a", name="f"), part("", index=1, call="b", name="g")),
        chunk(part("{}", index=1), part('{"x"', index=0)),
        chunk(part(":1}", index=0)),
    ]
    assert [numbers.tidy(data) for data in chunks] == chunks


@pytest.mark.parametrize("index", [None, 0])
def test_calls_that_share_an_index_or_have_none_are_told_apart_by_their_ids(
    index: int | None,
) -> None:
    found = put_together(
        CallNumbers("s"),
        chunk(part('{"a"', index=index, call="a", name="f")),
        chunk(part(":1}", index=index)),
        chunk(part('{"b":2}', index=index, call="b", name="f")),
    )
    assert found == {0: ("a", '{"a":1}'), 1: ("b", '{"b":2}')}


def test_a_call_without_an_id_is_given_one_of_its_own() -> None:
    found = put_together(
        CallNumbers("salt"),
        chunk(part("{}", index=0, name="f")),
        chunk(part("{}", index=0, name="g")),
    )
    assert found == {0: ("call_salt_0_0", "{}"), 1: ("call_salt_0_1", "{}")}


def test_an_id_that_is_said_again_begins_nothing_new() -> None:
    found = put_together(
        CallNumbers("s"),
        chunk(part("{", index=0, call="a", name="f")),
        chunk(part("}", index=0, call="a", name="f")),
    )
    assert found == {0: ("a", "{}")}
