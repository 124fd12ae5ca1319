"""What a node reads from outside: any bytes give a value, or a refusal with a stable code."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.node.harness import attempt, chat

from trunkline.base.errors import BadResponseError, RequestError, TruncatedError
from trunkline.inference import grammar, toolcalls
from trunkline.node.core import envelope
from trunkline.node.core.upstream import (
    StreamCheck,
    check_completion,
    with_model,
)
from trunkline.node.core.vectors import check_embeddings
from trunkline.schema.parsing import top_level

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
)
keywords = st.sampled_from(
    ["type", "properties", "required", "additionalProperties", "items", "minItems", "maxLength",
     "enum", "const", "anyOf", "$ref", "$defs", "title", "pattern"]
)  # fmt: skip
kinds = st.sampled_from(["object", "array", "string", "number", "null", "wat"])
schemas = st.recursive(
    st.booleans() | kinds | st.integers(-1, 300) | st.sampled_from(["#", "#/$defs/a"]),
    lambda inner: (
        st.dictionaries(keywords | st.sampled_from(["a", "b"]), inner, max_size=4)
        | st.lists(inner, max_size=3)
    ),
    max_leaves=15,
)
WHOLE = msgspec.json.encode(attempt(chat()))


@given(st.binary(max_size=200))
def test_any_bytes_are_an_envelope_or_refused(data: bytes) -> None:
    try:
        envelope.parse(data)
    except RequestError as error:
        assert error.error_code == "invalid_attempt"


@given(st.sampled_from(sorted(msgspec.json.decode(WHOLE))), json_values)
def test_any_value_of_any_field_is_taken_or_refused(name: str, value: object) -> None:
    body = msgspec.json.encode(msgspec.json.decode(WHOLE) | {name: value})
    try:
        parsed = envelope.parse(body)
    except RequestError as error:
        assert error.error_code == "invalid_attempt"
    else:
        assert envelope.is_id(parsed.attempt)
        assert parsed.deadline_ms > 0


def test_the_envelope_keeps_the_requests_own_bytes() -> None:
    spaced = WHOLE.replace(b'"request":{', b'"request":{ ', 1)

    assert bytes(envelope.parse(spaced).request).startswith(b'{ "model"')


@given(schemas)
def test_any_schema_makes_a_bounded_grammar_or_is_refused(schema: object) -> None:
    try:
        made = grammar.document(msgspec.json.encode(schema), "s")
    except RequestError as error:
        assert error.error_code == "unsupported_parameter"
        assert str(error.param).startswith("s")
    else:
        assert len(made.encode()) <= grammar.GRAMMAR_BYTES_MAX
        defined = {line.partition(" ::= ")[0] for line in made.splitlines()}
        assert {"root", "string", "any"} <= defined


@given(st.text(max_size=60))
def test_any_block_is_calls_or_none(block: str) -> None:
    calls = toolcalls.read(block, frozenset({"f"}))

    assert calls is None or all(call.name == "f" for call in calls)


@given(st.dictionaries(st.text(max_size=6).filter(lambda k: k != "model"), json_values, max_size=6))
def test_only_the_model_is_replaced(members: dict[str, object]) -> None:
    raw = msgspec.json.encode(members | {"model": "here"})
    try:
        before = top_level(raw)
    except RequestError:
        return
    after = top_level(with_model(raw, "there"))

    assert bytes(after.pop("model")) == b'"there"'
    before.pop("model")
    assert {k: bytes(v) for k, v in after.items()} == {k: bytes(v) for k, v in before.items()}


@given(st.lists(st.binary(max_size=60) | json_values.map(msgspec.json.encode), max_size=6))
def test_any_stream_is_an_answer_or_an_error(events: list[bytes]) -> None:
    check = StreamCheck(1)
    try:
        relayed = [line for data in events for line in check.feed(data)]
        said = check.end()
    except (BadResponseError, TruncatedError):
        return
    assert said.finish
    assert all(b"\n" not in line for line in relayed)


@given(st.binary(max_size=80) | json_values.map(msgspec.json.encode))
def test_any_body_is_an_answer_or_an_error(body: bytes) -> None:
    for check in (lambda data: check_completion(data, 1), check_embeddings):
        try:
            check(body)
        except (BadResponseError, TruncatedError) as error:
            assert error.retryable
