"""Documents against schemas: what is certainly wrong is refused, and nothing else."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.gateway.core.json_schema import satisfies

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "minLength": 1}, "born": {"type": "integer"}},
    "required": ["name"],
    "additionalProperties": False,
}
TREE = {
    "$defs": {"node": {"properties": {"next": {"$ref": "#/$defs/node"}, "n": {"type": "number"}}}},
    "$ref": "#/$defs/node",
}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(allow_nan=False)
    | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "enum", "const", "properties", "required", "items", "anyOf", "allOf",
                 "$ref", "minimum", "maxLength", "additionalProperties", "prefixItems", "a"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "document", "good"),
    [
        (PERSON, {"name": "Ada", "born": 1815}, True),
        (PERSON, {"name": "Ada", "born": 1815.0}, True),
        (PERSON, {"name": "Ada", "born": 1815.5}, False),
        (PERSON, {"name": "Ada", "born": True}, False),
        (PERSON, {"born": 1815}, False),
        (PERSON, {"name": ""}, False),
        (PERSON, {"name": "Ada", "died": 1852}, False),
        (PERSON, [], False),
        (TREE, {"next": {"next": {"n": 1}}}, True),
        (TREE, {"next": {"next": {"n": "1"}}}, False),
        ({"$ref": "#"}, {"a": 1}, True),
        ({"$ref": "https://elsewhere.example/schema"}, 1, True),
        ({"enum": ["a", 1, None, {"b": [1]}]}, {"b": [1]}, True),
        ({"enum": [1]}, True, False),
        ({"const": 1}, 1.0, True),
        ({"type": ["string", "null"]}, None, True),
        ({"type": ["string", "null"]}, 0, False),
        ({"type": "something new"}, 0, True),
        ({"items": {"type": "string"}, "maxItems": 2}, ["a", "b"], True),
        ({"items": {"type": "string"}, "maxItems": 2}, ["a", "b", "c"], False),
        ({"prefixItems": [{"type": "null"}], "items": {"type": "string"}}, [None, "a"], True),
        ({"prefixItems": [{"type": "null"}], "items": {"type": "string"}}, ["a", "a"], False),
        ({"anyOf": [{"type": "string"}, {"minimum": 3}]}, 4, True),
        ({"anyOf": [{"type": "string"}, {"minimum": 3}]}, 2, False),
        ({"allOf": [{"minimum": 3}, {"exclusiveMaximum": 4}]}, 4, False),
        ({"patternProperties": {"^x": {}}, "additionalProperties": False}, {"xy": 1}, True),
        (False, 1, False),
        (True, 1, True),
        ({}, 1, True),
    ],
)
def test_judgements(schema: object, document: object, good: bool) -> None:
    assert satisfies(document, schema) is good


@given(json_values, json_values)
def test_any_schema_gives_a_judgement(document: object, schema: object) -> None:
    assert satisfies(document, schema) in (True, False)


@given(json_values)
def test_a_document_equals_itself(document: object) -> None:
    again: object = msgspec.json.decode(msgspec.json.encode(document))
    assert satisfies(again, {"const": document})
    assert satisfies(again, {"enum": ["other", document]})
