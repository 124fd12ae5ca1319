"""What a provider's embeddings must be before they are passed on: one vector for each input.

An app stores vectors beside what they stand for, and nothing shows later that one is missing, in
another's place, or no numbers. Refused: another count than was asked for, an index twice,
vectors of different lengths, anything but finite numbers (or their bytes in base64), another model.
Follows the embeddings object of OpenAI's API reference. Nothing is repaired.
"""

import binascii
import math
from collections.abc import Sequence
from typing import Final

import msgspec

from trunkline.base.errors import BadResponseError
from trunkline.node.core.order import BAD_CHUNK
from trunkline.node.core.served import ServedName
from trunkline.node.core.upstream import EMPTY, NAME_CHARS_MAX, Said
from trunkline.schema.openai_answer import Usage

_FLOAT_BYTES: Final = 4


class _Vector(msgspec.Struct, frozen=True, kw_only=True):
    index: int | None = None
    embedding: msgspec.Raw


class _Vectors(msgspec.Struct, frozen=True, kw_only=True):
    model: str = ""
    data: tuple[_Vector, ...]
    usage: Usage | None = None


class _Asked(msgspec.Struct, frozen=True, kw_only=True):
    input: str | list[msgspec.Raw]


_VECTORS: Final = msgspec.json.Decoder(_Vectors)
_NUMBERS: Final = msgspec.json.Decoder(list[float] | str)
_ASKED: Final = msgspec.json.Decoder(_Asked)


def inputs(request: bytes) -> int | None:
    """How many vectors a request asks for; None where it can not be told. A list of numbers is one
    text's tokens."""
    try:
        asked = _ASKED.decode(request).input
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(asked, str) or not asked:
        return 1
    return len(asked) if bytes(asked[0]).lstrip()[:1] in (b'"', b"[") else 1


def check_embeddings(body: bytes, count: int | None = None, names: Sequence[str] = ()) -> Said:
    """Check an embeddings answer. ``count``: vectors asked for; None: not known. ``names``: right
    ones for the model. Raises BadResponseError."""
    try:
        found = _VECTORS.decode(body)
        lengths = {_length(vector.embedding) for vector in found.data}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, binascii.Error):
        raise BadResponseError("the answer holds no embeddings", code=BAD_CHUNK) from None
    if not found.data or 0 in lengths:
        raise BadResponseError("the answer is empty", code=EMPTY)
    ServedName(names).note(found.model)
    if len(lengths) > 1:
        raise BadResponseError("the vectors differ in length", code=BAD_CHUNK)
    places = sorted(at if one.index is None else one.index for at, one in enumerate(found.data))
    if places != list(range(len(places) if count is None else count)):
        raise BadResponseError("not one vector for each input", code=BAD_CHUNK)
    return Said(model=found.model[:NAME_CHARS_MAX], usage=found.usage)


def _length(raw: msgspec.Raw) -> int:
    """Numbers in a vector. Raises BadResponseError where one is not finite."""
    vector = _NUMBERS.decode(raw)
    if isinstance(vector, str):
        return len(binascii.a2b_base64(vector, strict_mode=True)) // _FLOAT_BYTES
    # An infinity or a NaN stays one in any sum.
    if not math.isfinite(sum(vector)):
        raise BadResponseError("a vector holds what is no number", code=BAD_CHUNK)
    return len(vector)
