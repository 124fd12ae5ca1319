"""``POST /v1/embeddings``: request and response, in the OpenAI format.

Follows OpenAI's API reference (Embeddings, Create). Vectors leave as JSON numbers or as base64 of
little-endian float32, whichever the caller asked for; the official clients ask for base64. It
refuses token arrays by name of the parameter only where a node does: the view keeps them.
"""

import struct
from base64 import b64decode, b64encode
from collections.abc import Sequence
from math import isfinite
from typing import Literal

import msgspec

from trunkline.base.errors import BadResponseError, MalformedError
from trunkline.schema.parsing import (
    ID_CHARS_MAX,
    check_chars,
    check_range,
    decode,
    invalid,
    top_level,
)
from trunkline.schema.unknown import plain_name

INPUTS_MAX = 2048
INPUT_CHARS_MAX = 1_000_000
"""Ours: characters of one text. What a model takes is the node's to say."""
INPUT_TOKENS_MAX = 300_000
DIMENSIONS_MAX = 65_536
TOKEN_MAX = 2**32 - 1

_encode = msgspec.json.Encoder().encode


class EmbeddingsParameters(msgspec.Struct, frozen=True, kw_only=True):
    """Every documented field."""

    model: str
    input: str | tuple[str | int | tuple[int, ...], ...]
    """One text, texts, one token array, or token arrays."""
    dimensions: int | None = None
    encoding_format: Literal["float", "base64"] | None = None
    user: str | None = None
    input_type: Literal["query", "passage", "document"] | None = None
    """Extension that several providers share: what the texts are for."""


class EmbeddingsRequest(EmbeddingsParameters, frozen=True, kw_only=True):
    """The typed view, the bytes it is a view of, and the names that it does not know."""

    raw: bytes
    unknown: tuple[str, ...]

    def __repr__(self) -> str:
        # The inherited one would print the texts into whatever logs it.
        return f"EmbeddingsRequest(model={self.model!r}, bytes={len(self.raw)})"

    @property
    def texts(self) -> tuple[str, ...] | None:
        """The texts in order; None where token arrays were sent."""
        if isinstance(self.input, str):
            return (self.input,)
        texts = tuple(text for text in self.input if isinstance(text, str))
        return texts if len(texts) == len(self.input) else None

    @property
    def base64(self) -> bool:
        """Answer with base64 instead of numbers."""
        return self.encoding_format == "base64"


_DECODER = msgspec.json.Decoder(EmbeddingsParameters)
FIELDS: frozenset[str] = frozenset(EmbeddingsParameters.__struct_fields__)
HINTS = frozenset({"user"})


def parse(raw: bytes) -> EmbeddingsRequest:
    """Read and check a request body. Raises :class:`RequestError` naming the parameter at fault."""
    members = top_level(raw)
    view = decode(raw, _DECODER, unknown_code="invalid_value")
    _check(view)
    unknown = tuple(plain_name(name) for name in members if name not in FIELDS)
    return EmbeddingsRequest(raw=raw, unknown=unknown, **msgspec.structs.asdict(view))


def unknown_fields(raw: bytes) -> list[str]:
    """Names of the top-level fields that the format does not document, in the order sent."""
    return [plain_name(name) for name in top_level(raw) if name not in FIELDS]


def parameters_set(request: EmbeddingsRequest) -> frozenset[str]:
    """What the caller asks for beyond the defaults, by name; ``input.tokens`` for token arrays."""
    names = {
        name for name in ("dimensions", "input_type", "user") if getattr(request, name) is not None
    }
    if request.base64:
        names.add("encoding_format")
    if request.texts is None:
        names.add("input.tokens")
    return frozenset(names.union(request.unknown))


def _check(view: EmbeddingsParameters) -> None:
    check_chars(view.model, "model")
    check_range(view.dimensions, 1, DIMENSIONS_MAX, "dimensions")
    if view.user is not None and len(view.user) > ID_CHARS_MAX:
        raise invalid(f"must have at most {ID_CHARS_MAX} characters", "user")
    if isinstance(view.input, str):
        check_chars(view.input, "input", INPUT_CHARS_MAX)
        return
    if not view.input:
        raise invalid("must not be empty", "input")
    kinds = {type(item) for item in view.input}
    if len(kinds) != 1:
        raise invalid("must hold texts, tokens or token arrays, not a mixture", "input")
    # A bare array of integers is one input of many tokens.
    if kinds != {int} and len(view.input) > INPUTS_MAX:
        raise invalid(f"must hold at most {INPUTS_MAX} inputs", "input")
    _check_items(view.input)


def _check_items(items: tuple[str | int | tuple[int, ...], ...]) -> None:
    tokens = 0
    for index, item in enumerate(items):
        if isinstance(item, str):
            check_chars(item, f"input[{index}]", INPUT_CHARS_MAX)
            continue
        ids = (item,) if isinstance(item, int) else item
        tokens += len(ids)
        if not ids or not all(0 <= token <= TOKEN_MAX for token in ids):
            raise invalid("must hold token ids", f"input[{index}]")
    if tokens > INPUT_TOKENS_MAX:
        raise invalid(f"must hold at most {INPUT_TOKENS_MAX} tokens in all", "input")


class _Given(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    embedding: msgspec.Raw


class _GivenResponse(msgspec.Struct, frozen=True, kw_only=True):
    data: tuple[_Given, ...]


_GIVEN = msgspec.json.Decoder(_GivenResponse)


class _Usage(msgspec.Struct, frozen=True, kw_only=True):
    prompt_tokens: int
    total_tokens: int


class _Item(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: str | msgspec.Raw


class _Response(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: tuple[_Item, ...]
    model: str
    usage: _Usage


def encode_response(vectors: Sequence[bytes], *, model: str, tokens: int, base64: bool) -> bytes:
    """The response's bytes. ``vectors``: little-endian float32, one per input, in order.

    Numbers are written as decimals that read back as the same float32. Raises
    :class:`BadResponseError` for a vector that is not made of whole, finite numbers.
    """
    items = tuple(
        _Item(
            index=index,
            embedding=b64encode(vector).decode("ascii") if base64 else _numbers(vector),
        )
        for index, vector in enumerate(vectors)
    )
    usage = _Usage(prompt_tokens=tokens, total_tokens=tokens)
    return _encode(_Response(data=items, model=model, usage=usage))


def decode_vectors(data: bytes) -> tuple[bytes, ...]:
    """The vectors of a response, little-endian float32, in the order of the inputs.

    Raises :class:`MalformedError` for what :func:`encode_response` would not have made of any.
    """
    try:
        given = _GIVEN.decode(data).data
        found = tuple(_vector(one.embedding) for one in given)
    except (ValueError, OverflowError, RecursionError):
        raise MalformedError("not a response with embeddings") from None
    if [one.index for one in given] != list(range(len(given))):
        raise MalformedError("the embeddings are not in the order of their inputs")
    if not all(map(_is_finite, found)):
        raise MalformedError("an embedding is no float32 array")
    return found


def _vector(given: msgspec.Raw) -> bytes:
    text = bytes(given).strip()
    if not text.startswith(b"["):
        return b64decode(msgspec.json.decode(text, type=str), validate=True)
    # Not by the JSON parser, to which -0 is the integer 0: its sign is a bit of the vector.
    inside = text[1:-1].strip()
    numbers = [float(number) for number in inside.split(b",")] if inside else []
    return struct.pack(f"<{len(numbers)}f", *numbers)


def _is_finite(vector: bytes) -> bool:
    return len(vector) % 4 == 0 and all(
        map(isfinite, struct.unpack(f"<{len(vector) // 4}f", vector))
    )


def _numbers(vector: bytes) -> msgspec.Raw:
    if len(vector) % 4:
        raise BadResponseError("a vector is no float32 array", code="upstream_bad_embedding")
    # Nine significant digits identify a float32; repr of the double that holds it gives 17.
    text = ",".join([f"{value:.9g}" for (value,) in struct.iter_unpack("<f", vector)])
    if "n" in text:
        # nan and inf: no JSON, and no embedding.
        raise BadResponseError("a vector is not finite", code="upstream_bad_embedding")
    return msgspec.Raw(b"[%b]" % text.encode("ascii"))
