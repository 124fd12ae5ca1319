"""JSON Schema to a GBNF grammar: what the engine's tokens are restricted to.

A subset, honoured exactly: every document that the grammar admits satisfies the schema. (Not the
other way round: members come in the schema's order, members that the schema does not list are not
written, white space is at most one space.) A keyword outside the subset is refused by name, because
dropping it would return documents that break the schema. Bounded in size and depth.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

import msgspec

from trunkline.base.errors import RequestError
from trunkline.inference.toolcalls import CLOSE_TAG, OPEN_TAG

GRAMMAR_BYTES_MAX: Final = 64 * 1024
RULES_MAX: Final = 2_000
DEPTH_MAX: Final = 32
ENUM_MAX: Final = 512
PATH_CHARS_MAX: Final = 200
REPEAT_MAX: Final = 256
"""Largest minItems, maxItems, minLength, maxLength."""

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

_SHARED: Final = r"""sp ::= " "?
any ::= object | array | string | number | "true" | "false" | "null"
object ::= "{" sp ( string ":" sp any ( "," sp string ":" sp any )* )? sp "}"
array ::= "[" sp ( any ( "," sp any )* )? sp "]"
string ::= "\"" char* "\""
char ::= [^"\\\x00-\x1F\x7F] | "\\" ( ["\\/bfnrt] | code )
code ::= "u" ( [0-9a-cA-CefEF] hex | [dD] [0-7] ) hex hex
hex ::= [0-9a-fA-F]
integer ::= "-"? ( "0" | [1-9] [0-9]{0,15} )
number ::= integer ( "." [0-9]{1,15} )? ( [eE] [-+]? [0-9]{1,2} )?
"""
_SIMPLE: Final = {
    "string": "string",
    "number": "number",
    "integer": "integer",
    "boolean": '( "true" | "false" )',
    "null": '"null"',
    "object": "object",
    "array": "array",
}
_NOTES: Final = frozenset(
    {"title", "description", "default", "examples", "deprecated", "$comment", "$schema", "$id"}
)
"""Keywords that say nothing about which documents are valid."""
_DEFINITIONS: Final = ("$defs", "definitions")
_BY_TYPE: Final = {
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items", "minItems", "maxItems"}),
    "string": frozenset({"minLength", "maxLength"}),
}
_KNOWN: Final = frozenset({"type", "$ref", "const", "enum", "anyOf"}).union(*_BY_TYPE.values())


def any_object() -> str:
    """The grammar for ``response_format`` of type ``json_object``."""
    return f"root ::= object\n{_SHARED}"


def document(schema: bytes, param: str) -> str:
    """The grammar for documents that satisfy ``schema``, which must be of objects.

    Raises :class:`RequestError` ``unsupported_parameter`` naming the keyword under ``param``.
    """
    builder = _Builder(schema, param)
    if builder.kind() != "object":
        _refuse(f"{param}.type", "must be an object's schema here")
    return _bounded(f"root ::= {builder.root()}\n{builder.rules()}{_SHARED}", param)


class FunctionGrammar(msgspec.Struct, frozen=True, kw_only=True):
    """One function that may be called."""

    name: str
    parameters: bytes
    """JSON Schema as sent; empty: any object."""
    strict: bool
    """Arguments must satisfy the schema. Else a schema outside the subset admits any object."""
    param: str
    """How the request names it, for refusals."""


def calls(functions: Sequence[FunctionGrammar], *, several: bool) -> str:
    """The grammar for one block of calls of ``functions``; ``several``: more than one call."""
    text = f"root ::= {_literal(OPEN_TAG)} block\n{_block(functions, several=several)}{_SHARED}"
    return _bounded(text, "tools")


def words_or_calls(functions: Sequence[FunctionGrammar], *, several: bool) -> str:
    """The grammar for free text in which each opening tag begins a block of calls of ``functions``;
    ``several``: more than one call, in any number of blocks.

    Each ``words`` rule stands for so many characters of the tag being the last ones written. As no
    character but the first is the tag's first again, one that does not go on with the tag leads
    back to none of it, or to the first.
    """
    states = []
    for written, expected in enumerate(OPEN_TAG):
        onward = "block" if written + 1 == len(OPEN_TAG) else f"words{written + 1}"
        again = f"{_literal(OPEN_TAG[0])} words1 | " if written else ""
        others = f"[^{OPEN_TAG[0]}{expected if written else ''}]"
        states.append(
            f'words{written} ::= "" | {_literal(expected)} {onward} | {again}{others} words0\n'
        )
    after = "words0" if several else '""'
    block = _block(functions, several=several, after=after)
    return _bounded(f"root ::= words0\n{''.join(states)}{block}{_SHARED}", "tools")


def _block(functions: Sequence[FunctionGrammar], *, several: bool, after: str = "") -> str:
    """Rules for what follows an opening tag: calls, the closing tag, and ``after``."""
    names, lines = [], []
    for index, function in enumerate(functions):
        arguments, rules = _arguments(function, f"f{index}")
        head = _literal(f'{{"name": {_quoted(function.name)}, "arguments": ')
        lines.append(f'f{index} ::= {head} {arguments} "}}"\n{rules}')
        names.append(f"f{index}")
    more = '( ", " call )*' if several else ""
    return (
        f'block ::= "[" call {more} {_literal("]" + CLOSE_TAG)} {after}\n'
        f"call ::= {' | '.join(names)}\n{''.join(lines)}"
    )


def _arguments(function: FunctionGrammar, prefix: str) -> tuple[str, str]:
    if not function.parameters:
        return "object", ""
    param = f"{function.param}.parameters"
    try:
        builder = _Builder(function.parameters, param, prefix)
        if builder.kind() != "object":
            _refuse(f"{param}.type", "must be an object's schema")
        return builder.root(), builder.rules()
    except RequestError:
        if function.strict:
            raise
        # Not strict: the schema is advice to the model, which it was shown.
        return "object", ""


class _Builder:
    """Turns one schema into rules."""

    def __init__(self, schema: bytes, param: str, prefix: str = "s") -> None:
        self._param = param
        self._prefix = prefix
        self._rules: dict[str, str] = {}
        self._references: dict[str, str] = {}
        try:
            decoded: Json = msgspec.json.decode(schema)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            _refuse(param, "is not JSON")
        self._schema = self._object(decoded, param)

    def kind(self) -> Json:
        """The root's type, seen through a reference."""
        schema = self._schema
        if "$ref" in schema:
            schema = self._object(self._resolve(schema["$ref"], self._param), self._param)
        return schema.get("type", "object" if "properties" in schema else None)

    def root(self) -> str:
        return self._value(self._schema, self._param, 0)

    def rules(self) -> str:
        return "".join(f"{name} ::= {body}\n" for name, body in self._rules.items())

    def _add(self, body: str) -> str:
        if len(self._rules) >= RULES_MAX:
            _refuse(self._param, "is too large")
        name = f"{self._prefix}-{len(self._rules)}"
        self._rules[name] = body
        return name

    def _object(self, schema: Json, path: str) -> dict[str, Json]:
        if not isinstance(schema, dict):
            _refuse(path, "is not a schema in the supported subset")
        return schema

    def _value(self, given: Json, path: str, depth: int) -> str:
        """A rule name or an inline expression for one schema."""
        if depth > DEPTH_MAX:
            _refuse(path, "nests too deep")
        if given is True or given == {}:
            return "any"
        schema = self._object(given, path)
        meant = {key for key in schema if key not in _NOTES and key not in _DEFINITIONS}
        if not meant:
            return "any"
        _only(meant, _KNOWN, path)
        for keyword, build in (
            ("$ref", self._reference),
            ("const", self._const),
            ("enum", self._enum),
            ("anyOf", self._any_of),
        ):
            if keyword in schema:
                # Beside these only what they already imply may stand.
                _only(
                    meant, {keyword} | ({"type"} if keyword in ("const", "enum") else set()), path
                )
                return build(schema, path, depth)
        return self._typed(schema, meant, path, depth)

    def _reference(self, schema: Mapping[str, Json], path: str, depth: int) -> str:
        target = schema["$ref"]
        if not isinstance(target, str):
            _refuse(f"{path}.$ref", "is not a reference")
        if target not in self._references:
            found = self._resolve(target, path)
            name = self._add("")
            # Before the body is built: a schema may refer to itself.
            self._references[target] = name
            self._rules[name] = self._value(found, path, depth + 1)
        return self._references[target]

    def _resolve(self, target: Json, path: str) -> Json:
        if target == "#":
            return self._schema
        if isinstance(target, str):
            for group in _DEFINITIONS:
                definitions = self._schema.get(group)
                name = target.removeprefix(f"#/{group}/")
                if name != target and isinstance(definitions, dict) and name in definitions:
                    return definitions[name]
        raise _refusal(f"{path}.$ref", "refers to nothing inside the schema's definitions")

    def _const(self, schema: Mapping[str, Json], path: str, depth: int) -> str:
        return self._choices([schema["const"]], schema, path)

    def _enum(self, schema: Mapping[str, Json], path: str, depth: int) -> str:
        values = schema["enum"]
        if not isinstance(values, list) or not 1 <= len(values) <= ENUM_MAX:
            _refuse(f"{path}.enum", f"must hold 1 to {ENUM_MAX} values")
        return self._choices(values, schema, path)

    def _choices(self, values: list[Json], schema: Mapping[str, Json], path: str) -> str:
        types = _types(schema, path) if "type" in schema else None
        fitting = [v for v in values if types is None or any(_is(v, kind) for kind in types)]
        if not fitting:
            _refuse(path, "admits no value")
        return self._add(" | ".join(_literal(_dump(value)) for value in fitting))

    def _any_of(self, schema: Mapping[str, Json], path: str, depth: int) -> str:
        variants = schema["anyOf"]
        if not isinstance(variants, list) or not 1 <= len(variants) <= ENUM_MAX:
            _refuse(f"{path}.anyOf", f"must hold 1 to {ENUM_MAX} schemas")
        parts = [
            self._value(variant, f"{path}.anyOf[{index}]", depth + 1)
            for index, variant in enumerate(variants)
        ]
        return self._add(" | ".join(parts))

    def _typed(self, schema: Mapping[str, Json], meant: set[str], path: str, depth: int) -> str:
        types = _types(schema, path)
        allowed = {"type"}.union(*(_BY_TYPE.get(kind, frozenset()) for kind in types))
        _only(meant, allowed, path)
        parts = [self._of_type(kind, schema, path, depth) for kind in types]
        return parts[0] if len(parts) == 1 else self._add(" | ".join(parts))

    def _of_type(self, kind: str, schema: Mapping[str, Json], path: str, depth: int) -> str:
        match kind:
            case "object" if "properties" in schema or "required" in schema:
                return self._members(schema, path, depth)
            case "object" if schema.get("additionalProperties", True) is False:
                return '"{}"'
            case "object":
                return self._map(schema, path, depth)
            case "array" if _BY_TYPE["array"] & schema.keys():
                return self._items(schema, path, depth)
            case "string" if _BY_TYPE["string"] & schema.keys():
                low, high = _span(schema, "minLength", "maxLength", path)
                return self._add(f'"\\"" {_repeat("char", low, high)} "\\""')
            case _:
                return _SIMPLE[kind]

    def _map(self, schema: Mapping[str, Json], path: str, depth: int) -> str:
        extra = schema.get("additionalProperties", True)
        if extra is True:
            return "object"
        value = self._value(extra, f"{path}.additionalProperties", depth + 1)
        pair = f'string ":" sp {value}'
        return self._add(f'"{{" sp ( {pair} ( "," sp {pair} )* )? sp "}}"')

    def _items(self, schema: Mapping[str, Json], path: str, depth: int) -> str:
        item = self._value(schema.get("items", True), f"{path}.items", depth + 1)
        low, high = _span(schema, "minItems", "maxItems", path)
        if high == 0:
            return '"[]"'
        rest = _repeat(f'( "," sp {item} )', max(low - 1, 0), None if high is None else high - 1)
        body = f"{item} {rest}" if low else f"( {item} {rest} )?"
        return self._add(f'"[" sp {body} sp "]"')

    def _members(self, schema: Mapping[str, Json], path: str, depth: int) -> str:
        """Members in the schema's order. Two rules a member: nothing written yet, or something."""
        properties = self._object(schema.get("properties", {}), f"{path}.properties")
        required = schema.get("required", [])
        if not isinstance(required, list) or any(name not in properties for name in required):
            _refuse(f"{path}.required", "must list names that properties holds")
        extra = schema.get("additionalProperties", True)
        if not isinstance(extra, bool):
            _refuse(f"{path}.additionalProperties", "must be true or false beside properties")
        first, later = '""', '""'
        for name, value in reversed(properties.items()):
            rule = self._value(value, f"{path}.properties.{name}", depth + 1)
            pair = f"{_literal(_quoted(name) + ':')} sp {rule}"
            if name in required:
                first, later = f"{pair} {later}", f'"," sp {pair} {later}'
            else:
                first, later = f"{pair} {later} | {first}", f'( "," sp {pair} )? {later}'
            first, later = self._add(first), self._add(later)
        return self._add(f'"{{" sp {first} sp "}}"')


def _types(schema: Mapping[str, Json], path: str) -> list[str]:
    given = schema.get("type")
    if given is None:
        # JSON Schema lets keywords of a type stand without it; then they must name just one.
        implied = [kind for kind, keywords in _BY_TYPE.items() if keywords & schema.keys()]
        if len(implied) != 1:
            _refuse(f"{path}.type", "is required")
        return implied
    kinds = given if isinstance(given, list) else [given]
    found = [kind for kind in kinds if isinstance(kind, str) and kind in _SIMPLE]
    if not found or len(found) != len(kinds):
        _refuse(f"{path}.type", "is not a type of JSON Schema")
    return found


def _is(value: Json, kind: str) -> bool:
    match kind:
        case "null":
            return value is None
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "string":
            return isinstance(value, str)
        case "array":
            return isinstance(value, list)
        case _:
            return isinstance(value, dict)


def _span(schema: Mapping[str, Json], low: str, high: str, path: str) -> tuple[int, int | None]:
    limits: list[int | None] = []
    for keyword, default in ((low, 0), (high, None)):
        value = schema.get(keyword, default)
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= REPEAT_MAX
        ):
            _refuse(f"{path}.{keyword}", f"must be between 0 and {REPEAT_MAX}")
        limits.append(value)
    least, most = limits[0] or 0, limits[1]
    if most is not None and most < least:
        _refuse(f"{path}.{high}", f"must not be less than {low}")
    return least, most


def _repeat(item: str, low: int, high: int | None) -> str:
    if high is None:
        return f"{item}*" if low == 0 else f"{item}{{{low},}}"
    return f"{item}{{{low},{high}}}" if high else '""'


def _only(meant: set[str], allowed: set[str] | frozenset[str], path: str) -> None:
    for keyword in sorted(meant - allowed):
        _refuse(f"{path}.{keyword}", "is not supported by this node")


def _dump(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": "))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _literal(text: str) -> str:
    """``text`` as a GBNF literal. JSON has escaped control characters already."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _bounded(grammar: str, param: str) -> str:
    if len(grammar.encode("utf-8", "replace")) > GRAMMAR_BYTES_MAX:
        _refuse(param, f"makes a grammar of more than {GRAMMAR_BYTES_MAX} bytes")
    return grammar


def _refusal(param: str, why: str) -> RequestError:
    # A path holds the caller's own names: of them only as much as names the place.
    param = param[:PATH_CHARS_MAX]
    return RequestError(f"{param}: {why}", code="unsupported_parameter", param=param)


def _refuse(param: str, why: str) -> NoReturn:
    raise _refusal(param, why) from None
