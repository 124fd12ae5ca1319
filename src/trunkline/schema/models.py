"""``GET /v1/models``: the list of models, in the OpenAI and in the Anthropic format.

Both official clients ask the same path; a request with an ``anthropic-version`` header wants the
Anthropic shape. The list is whole: neither shape is paged, and ``has_more`` is always false.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

import msgspec

MODELS_MAX = 10_000
ANTHROPIC_HEADER = "anthropic-version"

_encode = msgspec.json.Encoder().encode


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One model that can be asked for."""

    id: str
    created_s: int
    """Unix seconds since when it has been served."""
    owned_by: str
    """Who runs it: the operators' or the provider's name."""
    context_tokens: int | None = None


class _OpenAIModel(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class _OpenAIList(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: tuple[_OpenAIModel, ...]


class _AnthropicModel(msgspec.Struct, frozen=True, kw_only=True):
    type: Literal["model"] = "model"
    id: str
    display_name: str
    created_at: str
    """RFC 3339."""
    lifecycle: Literal["active"] = "active"
    max_input_tokens: int | None


class _AnthropicList(msgspec.Struct, frozen=True, kw_only=True):
    data: tuple[_AnthropicModel, ...]
    has_more: bool = False
    first_id: str | None
    last_id: str | None


def _openai(entry: ModelEntry) -> _OpenAIModel:
    return _OpenAIModel(id=entry.id, created=entry.created_s, owned_by=entry.owned_by)


def _anthropic(entry: ModelEntry) -> _AnthropicModel:
    created = datetime.fromtimestamp(entry.created_s, tz=UTC)
    return _AnthropicModel(
        id=entry.id,
        display_name=entry.id,
        created_at=created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        max_input_tokens=entry.context_tokens,
    )


def openai_list(entries: Sequence[ModelEntry]) -> bytes:
    """The whole list, OpenAI's shape."""
    return _encode(_OpenAIList(data=tuple(_openai(entry) for entry in entries)))


def openai_model(entry: ModelEntry) -> bytes:
    """One model (``GET /v1/models/<id>``), OpenAI's shape."""
    return _encode(_openai(entry))


def anthropic_list(entries: Sequence[ModelEntry]) -> bytes:
    """The whole list, Anthropic's shape."""
    return _encode(
        _AnthropicList(
            data=tuple(_anthropic(entry) for entry in entries),
            first_id=entries[0].id if entries else None,
            last_id=entries[-1].id if entries else None,
        )
    )


def anthropic_model(entry: ModelEntry) -> bytes:
    """One model (``GET /v1/models/<id>``), Anthropic's shape."""
    return _encode(_anthropic(entry))
