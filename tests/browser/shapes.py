"""What the records that both verifiers read are made of, from the Python ones."""

from collections.abc import Iterator

import msgspec
from msgspec import inspect

Path = tuple[str, ...]


def members(kind: type[msgspec.Struct]) -> Iterator[Path]:
    """Every member of a record and of the records in it; those of a list's items under ``*``."""
    yield from _inside(inspect.type_info(kind), ())


def _inside(kind: inspect.Type, at: Path) -> Iterator[Path]:
    match kind:
        case inspect.StructType(fields=fields):
            for field in fields:
                yield (*at, field.encode_name)
                yield from _inside(field.type, (*at, field.encode_name))
        case inspect.UnionType(types=types):
            for one in types:
                yield from _inside(one, at)
        case inspect.VarTupleType(item_type=item):
            yield from _inside(item, (*at, "*"))
        case inspect.Metadata(type=inner):
            yield from _inside(inner, at)
        case _:
            return


def replaced(record: object, path: Path, value: object) -> object:
    """The record with one member set, objects on the way to it added, lists given one item."""
    if not path:
        return value
    first, rest = path[0], path[1:]
    if first == "*":
        items = record if isinstance(record, list) and record else [{}]
        return [replaced(items[0], rest, value), *items[1:]]
    held = record if isinstance(record, dict) else {}
    return {**held, first: replaced(held.get(first), rest, value)}
