"""Grammars made from schemas, walked at random with the real grammar engine.

Whatever a grammar admits must be JSON that satisfies the schema.
"""

import json
import random
import re
from collections.abc import Iterator

import numpy as np
import pytest

from trunkline.base.errors import RequestError
from trunkline.engine.llama import Grammar, Library, Model, library_path
from trunkline.engine.weights import locate
from trunkline.inference import grammar
from trunkline.inference.grammar import FunctionGrammar
from trunkline.inference.textpipe import ChoicePipe, PipeSettings
from trunkline.inference.toolcalls import Call

STEPS_MAX = 2_000
SCHEMAS: list[dict[str, object]] = [
    {"type": "object"},
    {"type": "object", "properties": {"a": {"type": "string"}}},
    {
        "type": "object",
        "properties": {
            "a": {"type": "integer"},
            "b": {"type": ["string", "null"]},
            "c": {"enum": ["x", 1, None, True, 'q"\\', "é"]},
        },
        "required": ["b"],
        "additionalProperties": False,
    },
    {
        "type": "object",
        "properties": {
            "list": {
                "type": "array",
                "items": {"type": "number"},
                "minItems": 2,
                "maxItems": 4,
            },
            "few": {"type": "array", "maxItems": 1},
            "none": {"type": "array", "maxItems": 0},
            "word": {"type": "string", "minLength": 2, "maxLength": 3},
            "map": {"type": "object", "additionalProperties": {"type": "boolean"}},
            "nothing": {"type": "object", "additionalProperties": False},
        },
        "required": ["list", "few", "none", "word", "map", "nothing"],
    },
    {
        "type": "object",
        "properties": {"shape": {"anyOf": [{"const": "dot"}, {"$ref": "#/$defs/circle"}]}},
        "required": ["shape"],
        "$defs": {
            "circle": {
                "type": "object",
                "properties": {"r": {"type": "number"}},
                "required": ["r"],
            }
        },
    },
    {
        "type": "object",
        "properties": {
            "value": {"type": "null"},
            "next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
        },
        "required": ["next"],
    },
]


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    loaded = Model(Library(library_path(), log=lambda line: None), locate(""))
    yield loaded
    loaded.close()


class Walker:
    """Takes random admitted tokens, drawn from those that spell one ASCII character or a tag."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._ends = np.array(model.end_tokens(), dtype=np.int32)
        self.pieces = model.pieces()
        self._alphabet = np.array(
            [
                number
                for number, piece in enumerate(self.pieces)
                if len(piece) == 1 and (b" " <= piece <= b"~" or piece in b"\xc3\xa9")
            ],
            dtype=np.int32,
        )

    def walk(self, source: str, seed: int, text: str = "", until: str | None = None) -> list[int]:
        """The tokens taken: those of ``text`` first, then random ones until nothing but the end is
        admitted, or they end with ``until``, where the end must be admitted too."""
        draw = random.Random(seed)  # noqa: S311 - repeatable on purpose
        taken: list[int] = []
        constraint = Grammar(self._model, source)
        try:
            for char in text:
                token = self.pieces.index(char.encode())
                assert constraint.admitted(np.array([token], dtype=np.int32)).all(), text
                constraint.accept(token)
                taken.append(token)
            for step in range(STEPS_MAX):
                if until is not None and self.text(taken).endswith(until):
                    assert constraint.admitted(self._ends).any()
                    return taken
                admitted = self._alphabet[constraint.admitted(self._alphabet)].tolist()
                if not admitted:
                    assert constraint.admitted(self._ends).any()
                    return taken
                token = self._pick(draw, admitted, hurry=step > 200)
                constraint.accept(token)
                taken.append(token)
        finally:
            constraint.close()
        raise AssertionError("the grammar never came to an end")

    def text(self, tokens: list[int]) -> str:
        return b"".join([self.pieces[token] for token in tokens]).decode("utf-8", "replace")

    def _pick(self, draw: random.Random, admitted: list[int], *, hurry: bool) -> int:
        closing = [token for token in admitted if self.pieces[token] in (b'"', b"}", b"]")]
        if closing and (hurry or draw.random() < 0.3):
            return draw.choice(closing)
        return draw.choice(admitted)


@pytest.fixture(scope="module")
def walker(model: Model) -> Walker:
    return Walker(model)


def satisfies(value: object, schema: dict[str, object], root: dict[str, object]) -> bool:
    """A small judge, written apart from the code it judges."""
    if "$ref" in schema:
        name = str(schema["$ref"])
        found = root if name == "#" else root["$defs"][name.removeprefix("#/$defs/")]  # type: ignore[index]
        return satisfies(value, found, root)
    if "anyOf" in schema:
        return any(satisfies(value, each, root) for each in schema["anyOf"])  # type: ignore[attr-defined]
    if "const" in schema:
        return value == schema["const"]
    if "enum" in schema:
        return any(value == each and type(value) is type(each) for each in schema["enum"])  # type: ignore[attr-defined]
    kinds = schema.get("type")
    if kinds is None:
        return True
    if isinstance(kinds, list):
        return any(satisfies(value, schema | {"type": kind}, root) for kind in kinds)
    match kinds:
        case "object":
            properties: dict[str, dict[str, object]] = schema.get("properties", {})  # type: ignore[assignment]
            extra = schema.get("additionalProperties", True)
            if not isinstance(value, dict) or set(schema.get("required", ())) - set(value):  # type: ignore[call-overload]
                return False
            for name, member in value.items():
                rule = properties.get(name, extra)
                if rule is False or (isinstance(rule, dict) and not satisfies(member, rule, root)):
                    return False
            return True
        case "array":
            items = schema.get("items", {})
            return (
                isinstance(value, list)
                and int(schema.get("minItems", 0)) <= len(value)  # type: ignore[call-overload]
                and len(value) <= int(schema.get("maxItems", 10**9))  # type: ignore[call-overload]
                and all(satisfies(item, items, root) for item in value)  # type: ignore[arg-type]
            )
        case "string":
            return (
                isinstance(value, str)
                and int(schema.get("minLength", 0)) <= len(value)  # type: ignore[call-overload]
                and len(value) <= int(schema.get("maxLength", 10**9))  # type: ignore[call-overload]
            )
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "boolean":
            return isinstance(value, bool)
        case _:
            return value is None


@pytest.mark.parametrize("number", range(len(SCHEMAS)))
def test_what_a_schemas_grammar_admits_satisfies_the_schema(walker: Walker, number: int) -> None:
    schema = SCHEMAS[number]
    source = grammar.document(json.dumps(schema).encode(), "schema")
    for seed in range(15):
        tokens = walker.walk(source, seed)
        text = b"".join(walker.pieces[token] for token in tokens).decode()
        assert satisfies(json.loads(text), schema, schema), text


def test_the_text_pipeline_sees_the_end_where_the_grammar_has_it(walker: Walker) -> None:
    for seed in range(15):
        tokens = walker.walk(grammar.any_object(), seed)
        pipe = ChoicePipe(PipeSettings(tokens_max=STEPS_MAX + 1, document=True), walker.pieces)
        for token in tokens:
            assert not pipe.finish
            pipe.push(token)
        assert pipe.finish == "stop"


@pytest.mark.parametrize("several", [False, True])
def test_what_the_grammar_of_calls_admits_are_calls(walker: Walker, several: bool) -> None:
    functions = [
        FunctionGrammar(name="f", parameters=b"", strict=False, param="f"),
        FunctionGrammar(
            name='odd"name',
            parameters=json.dumps(SCHEMAS[2]).encode(),
            strict=True,
            param="g",
        ),
    ]
    source = grammar.calls(functions, several=several)
    counts = set()
    for seed in range(15):
        tokens = walker.walk(source, seed)
        pipe = ChoicePipe(
            PipeSettings(
                tokens_max=STEPS_MAX + 1, tools=frozenset({"f", 'odd"name'}), one_block=True
            ),
            walker.pieces,
        )
        released = [part for token in tokens for part in pipe.push(token)]
        assert pipe.finish == "tool_calls"
        assert all(isinstance(part, Call) for part in released)
        for call in released:
            assert isinstance(call, Call)
            arguments = json.loads(call.arguments)
            schema = SCHEMAS[0] if call.name == "f" else SCHEMAS[2]
            assert satisfies(arguments, schema, schema)
        counts.add(len(released))
    assert (max(counts) > 1) == several


@pytest.mark.parametrize(
    ("schema", "param"),
    [
        ({"type": "array"}, "s.type"),
        ({"type": "object", "properties": {"a": {"oneOf": []}}}, "s.properties.a.oneOf"),
        ({"type": "object", "properties": {"a": {"type": "string", "format": "date"}}}, None),
        ({"type": "object", "properties": {"a": {"$ref": "#/$defs/b"}}}, "s.properties.a.$ref"),
        ({"type": "object", "properties": {"a": {"type": "wat"}}}, "s.properties.a.type"),
        ({"type": "object", "required": ["a"]}, "s.required"),
        (
            {"type": "object", "properties": {"a": {"type": "array", "minItems": 9999}}},
            "s.properties.a.minItems",
        ),
        ({"type": "object", "patternProperties": {}}, "s.patternProperties"),
    ],
)
def test_a_schema_outside_the_subset_is_refused_by_name(
    schema: dict[str, object], param: str | None
) -> None:
    with pytest.raises(RequestError) as refused:
        grammar.document(json.dumps(schema).encode(), "s")

    assert refused.value.error_code == "unsupported_parameter"
    assert param is None or refused.value.param == param


STRICT = FunctionGrammar(
    name="f", parameters=json.dumps(SCHEMAS[2]).encode(), strict=True, param="f"
)


@pytest.mark.parametrize("before", ["", "no ", "<tool_", "<<tool_cal<", "a <tool_call b\n"])
def test_among_words_a_call_that_begins_is_held_to_its_schema(walker: Walker, before: str) -> None:
    source = grammar.words_or_calls([STRICT], several=True)
    for seed in range(5):
        tokens = walker.walk(source, seed, f"{before}<tool_call>", until="</tool_call>")
        pipe = ChoicePipe(
            PipeSettings(tokens_max=STEPS_MAX + 1, tools=frozenset({"f"})), walker.pieces
        )
        released = [part for token in tokens for part in pipe.push(token)]
        calls = [part for part in released if isinstance(part, Call)]
        assert "".join([part for part in released if isinstance(part, str)]) == before
        assert calls
        assert all(satisfies(json.loads(c.arguments), SCHEMAS[2], SCHEMAS[2]) for c in calls)


def test_words_go_on_after_a_call_where_several_are_allowed(walker: Walker) -> None:
    call = '<tool_call>[{"name": "f", "arguments": {"b":null}}]</tool_call>'
    several = grammar.words_or_calls([STRICT], several=True)
    walker.walk(several, 0, f"{call} and {call} so", until="so")
    single = grammar.words_or_calls([STRICT], several=False)
    assert walker.walk(single, 0, call) == walker.walk(several, 0, call, until=">")


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>no",
        '<tool_call>[{"name": "g"',
        '<tool_call>[{"name": "f", "arguments": {"b":1',
        '<<tool_call>{"name"',
    ],
)
def test_what_is_no_call_of_a_strict_function_is_not_admitted(walker: Walker, text: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(text)):
        walker.walk(grammar.words_or_calls([STRICT], several=True), 0, text)
