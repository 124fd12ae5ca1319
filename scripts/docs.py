"""Writes the documentation that is generated, from the program itself.

``docs/cli.md`` is the commands' own help; ``docs/operate/configuration.md`` is every key of every
configuration file, with the types, defaults and comments of the structs that read them.

Usage: ``docs.py`` writes both; ``docs.py --check`` exits 1 if what is there is not what would be
written. Tests do the same.
"""

# ruff: noqa: T201 -- a script: it prints

import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from itertools import pairwise
from pathlib import Path
from types import NoneType
from typing import Annotated, Final, Literal, NamedTuple, get_args, get_origin, get_type_hints

import msgspec

from trunkline.base.money import MicroUsd
from trunkline.cli.main import app
from trunkline.gateway.config import GatewayConfig
from trunkline.gateway.core.policy import RoutingPolicy
from trunkline.log.config import LogConfig
from trunkline.node.config import NodeConfig
from trunkline.verifier.config import VerifierConfig
from trunkline.witness.config import WitnessConfig

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"
COLUMNS: Final = 94
COMMANDS: Final = (
    (), ("up",), ("init",), ("chat",), ("verify",), ("status",),
    ("receipts",), ("receipts", "ls"), ("receipts", "show"), ("receipts", "export"),
    ("receipts", "open"), ("receipts", "forget"), ("receipts", "prove"),
    ("operator",), ("operator", "create"), ("operator", "state"), ("operator", "rotate"),
    ("operator", "revoke"),
    ("audit",), ("audit", "ls"), ("audit", "show"), ("audit", "recompute"), ("audit", "alerts"),
    ("audit", "verifiers"),
    ("audit", "nodes"),
    ("audit", "plants"),
    ("keys",), ("keys", "create"), ("keys", "ls"), ("keys", "revoke"), ("keys", "rotate"),
    ("route",), ("route", "explain"),
    ("drill",), ("drill", "kill-node"), ("drill", "swap-model"),
    ("log",), ("log", "fsck"), ("log", "upload"),
    ("gateway",), ("node",), ("witness",), ("verifier",),
)  # fmt: skip
CLI_HEAD: Final = """\
# The command line

Written by `make docs` from the program itself; a test compares the two.
"""
FILES: Final[Mapping[str, tuple[type[msgspec.Struct], str]]] = {
    "gateway.toml": (GatewayConfig, "[gateway.md](gateway.md)"),
    "routing.toml": (RoutingPolicy, "[routing.md](routing.md)"),
    "node.toml": (NodeConfig, "[node.md](node.md), [providers.md](providers.md)"),
    "log.toml": (LogConfig, "[log.md](log.md)"),
    "witness.toml": (WitnessConfig, "[witness.md](witness.md)"),
    "verifier.toml": (VerifierConfig, "[verifiers.md](verifiers.md)"),
}
CONFIGURATION_HEAD: Final = """\
# Configuration reference

Every key of every file. Written by `make docs` from the structs that read them; a test compares the
two. `trunkline init` writes each file with its comments. An unknown key is refused, with its place.
Relative paths start at the file's own folder. *required* means that there is no default; *none*,
that the key may be absent. Units are last in a name: `_s` seconds, `_ms` milliseconds.
The environment variable `TRUNKLINE_LISTEN` overrides a role's `listen`.
"""


class Key(NamedTuple):
    """One key of a file, or one table that has keys of its own."""

    name: str
    kind: object
    default: object
    said: str


def render() -> str:
    """``docs/cli.md``, whole."""
    return CLI_HEAD + "".join(section(command) for command in COMMANDS)


def section(command: tuple[str, ...]) -> str:
    """One command's help."""
    with redirect_stdout(StringIO()) as written:
        app(
            [*command, "--help"],
            prog_name="trunkline", standalone_mode=False, terminal_width=COLUMNS,
        )  # fmt: skip
    name = " ".join(("trunkline", *command))
    said = "\n".join(line.rstrip() for line in written.getvalue().splitlines())
    return f"\n## `{name}`\n\n```\n{said.strip()}\n```\n"


def configuration() -> str:
    """``docs/operate/configuration.md``, whole."""
    parts = [CONFIGURATION_HEAD]
    for file, (struct, pages) in FILES.items():
        parts.append(f"\n## {file}\n\nWhat it means in use: {pages}.\n")
        parts += tables(struct, keys(struct), "")
    return "".join(parts)


def keys(struct: type[msgspec.Struct], only: Sequence[type] = ()) -> list[Key]:
    """A struct's keys in order; ``only``: those that these of its classes add."""
    hints = get_type_hints(struct)
    said: dict[str, str] = {}
    for base in reversed(struct.__mro__):
        if base is not msgspec.Struct and issubclass(base, msgspec.Struct):
            said |= _comments(base)
    added = [name for each in only for name in inspect.get_annotations(each)]
    mine = added if only else struct.__struct_fields__
    return [
        Key(field.name, hints[field.name], _default(field), said.get(field.name, ""))
        for field in msgspec.structs.fields(struct)
        if field.name in mine
    ]


def tables(struct: type[msgspec.Struct], all_keys: list[Key], path: str) -> Iterator[str]:
    """The table of the keys at ``path``, then those of the tables within."""
    inner = {key.name: found for key in all_keys if (found := _structs(key.kind))}
    rows = [key for key in all_keys if key.name not in inner]
    if rows:
        yield "\n| key | is | default | |\n| --- | --- | --- | --- |\n"
        yield from (f"| `{k.name}` | {_kind(k.kind)} | {k.default} | {k.said} |\n" for k in rows)
    for key in all_keys:
        if key.name in inner:
            yield from _inner(path + key.name, key, inner[key.name])


def _inner(path: str, key: Key, structs: tuple[type[msgspec.Struct], ...]) -> Iterator[str]:
    origin = get_origin(key.kind)
    if len(structs) > 1:
        yield from _variants(path, structs)
        return
    place = f"{path}.NAME" if origin in (dict, Mapping) else path
    head = f"[[{place}]]" if origin is tuple else f"[{place}]"
    struct = structs[0]
    yield f"\n### `{head}`\n\n{_said(inspect.getdoc(struct) or '')}\n"
    if origin is not tuple and key.default == "none":
        yield "\nMay be absent.\n"
    yield from tables(struct, keys(struct), place + ".")


def _variants(path: str, structs: tuple[type[msgspec.Struct], ...]) -> Iterator[str]:
    """Tables of one place that differ by ``kind``: what several have in common stands once."""
    shown: set[type] = set()
    for struct in structs:
        alone: list[type] = []
        for base in struct.__mro__[::-1]:
            if base is msgspec.Struct or not issubclass(base, msgspec.Struct) or base in shown:
                continue
            shown.add(base)
            tag = base.__struct_config__.tag
            if not tag and sum(base in other.__mro__ for other in structs) == 1:
                alone.append(base)
                continue
            kind = f'`kind = "{tag}"`' if tag else "every kind that follows"
            yield f"\n### `[{path}]`, {kind}\n\n{_said(inspect.getdoc(base) or '')}\n"
            yield from tables(base, keys(base, (*alone, base)), path + ".")


def _comments(struct: type) -> dict[str, str]:
    """The text under each field of a class."""
    source = ast.parse(textwrap.dedent(inspect.getsource(struct))).body[0]
    body = source.body if isinstance(source, ast.ClassDef) else []
    texts: dict[str, str] = {}
    for field, after in pairwise(body):
        match field, after:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                texts[name] = _said(text)
    return texts


def _said(text: str) -> str:
    return " ".join(text.replace("``", "`").replace("|", "\\|").split())


def _structs(kind: object) -> tuple[type[msgspec.Struct], ...]:
    """The structs that a key's type holds."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return (kind,)
    return tuple(struct for inner in get_args(kind) for struct in _structs(inner))


def _kind(kind: object) -> str:
    """A type in words."""
    if kind == MicroUsd:
        return "US dollars, as text"
    plain = {str: "text", int: "whole number", float: "number", bool: "true, false"}
    if isinstance(kind, type) and kind in plain:
        return plain[kind]
    origin, parts = get_origin(kind), [part for part in get_args(kind) if part is not NoneType]
    if origin is Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin is tuple:
        return f"list of {_kind(parts[0])}"
    if origin in (dict, Mapping):
        return f"table of {_kind(parts[1])}"
    if origin is Annotated or len(parts) == 1:
        return _kind(parts[0])
    return ", ".join(_kind(part) for part in parts) or str(kind)


def _default(field: msgspec.structs.FieldInfo) -> str:
    default = field.default
    if field.default_factory is not msgspec.NODEFAULT:
        default = field.default_factory()
    match default:
        case msgspec.NODEFAULT:
            return "*required*"
        case None:
            return "*none*" if not _structs(field.type) else "none"
        case "" | () | {}:
            return "*none*"
        case bool():
            return f"`{str(default).lower()}`"
        case int() if default >= 1024 * 1024:
            return f"`{default}` ({default // (1024 * 1024)} MiB)"
        case int() | float():
            return f"`{default}`"
        case str():
            return f'`"{default}"`'
        case tuple():
            return "`[" + ", ".join(f'"{one}"' for one in default) + "]`"
        case _:
            return ""


def main() -> int:
    """Write or compare."""
    differs = False
    for target, text in (
        (DOCS / "cli.md", render()),
        (DOCS / "operate" / "configuration.md", configuration()),
    ):
        if "--check" not in sys.argv[1:]:
            target.write_text(text)
        elif not target.exists() or target.read_text() != text:
            print(f"{target.name} differs: run `make docs`")
            differs = True
    return int(differs)


if __name__ == "__main__":
    sys.exit(main())
