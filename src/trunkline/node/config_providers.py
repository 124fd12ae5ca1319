"""Configuration of nodes that front a provider of another format than OpenAI's.

Part of ``config.py``, which reads and writes the file as a whole. One struct per kind.
"""

import json
from collections.abc import Mapping
from typing import Final

import msgspec

from trunkline.remote.exchange import ProviderTimeouts
from trunkline.schema.grid.openai_anthropic import MAX_TOKENS_DEFAULT

CONCURRENCY_MAX: Final = 10_000


class _Account(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every provider account has."""

    api_key_file: str | None = None
    """File with the API key, mode 600."""
    api_key_env: str | None = None
    """Or the environment variable that holds it."""
    models: tuple[str, ...] | None = None
    """Chat models to serve. Absent: all that the account has."""
    upstream_names: Mapping[str, str] = {}
    """The provider's own name of a model, where it is another one."""
    served_names: Mapping[str, str] = {}
    """What its answers call a model, where that is yet another name; ``*``: anything. An answer by
    another model is no answer; versions and dates after a name are known."""
    concurrency: int = 64
    """Calls at once."""
    timeouts: ProviderTimeouts = ProviderTimeouts()
    """Seconds to connect, to the head of a stream, to that of a whole answer, between data."""

    def __post_init__(self) -> None:
        if self.api_key_file is not None and self.api_key_env is not None:
            raise ValueError("give api_key_file or api_key_env, not both")
        if not 1 <= self.concurrency <= CONCURRENCY_MAX:
            raise ValueError(f"concurrency must be between 1 and {CONCURRENCY_MAX}")


class AnthropicEngine(_Account, frozen=True, kw_only=True, tag_field="kind", tag="anthropic"):
    """An Anthropic account (Messages API)."""

    base_url: str = "https://api.anthropic.com/v1"
    """With its version part."""
    max_tokens: int = MAX_TOKENS_DEFAULT
    """Bound of an answer whose request gives none: the Messages API wants one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_tokens < 1:
            raise ValueError("max_tokens must be at least 1")


class GeminiEngine(_Account, frozen=True, kw_only=True, tag_field="kind", tag="gemini"):
    """A Google Gemini account (Gemini API)."""

    base_url: str = "https://generativelanguage.googleapis.com/v1beta"
    """With its version part."""


ProviderEngine = AnthropicEngine | GeminiEngine


def render(engine: ProviderEngine) -> list[str]:
    """The lines of the file's ``[engine]`` table and those below it."""
    match engine:
        case AnthropicEngine():
            bound = f"max_tokens = {engine.max_tokens}"
            return _table(
                "anthropic",
                "An Anthropic account (Messages API).",
                engine,
                engine.base_url,
                ["# Bound of an answer whose request gives none.", bound],
            )
        case GeminiEngine():
            title = "A Google Gemini account (Gemini API)."
            return _table("gemini", title, engine, engine.base_url, [])


def _table(kind: str, title: str, engine: _Account, base_url: str, own: list[str]) -> list[str]:
    lines = [
        f"# {title}",
        "[engine]",
        f"kind = {_text(kind)}",
        f"base_url = {_text(base_url)}",
        "# The API key: a file with mode 600, or the name of an environment variable.",
    ]
    if engine.api_key_file is not None:
        lines.append(f"api_key_file = {_text(engine.api_key_file)}")
    if engine.api_key_env is not None:
        lines.append(f"api_key_env = {_text(engine.api_key_env)}")
    lines.append("# Chat models to serve. Without: all that the account has.")
    if engine.models is not None:
        lines.append(f"models = [{', '.join(map(_text, engine.models))}]")
    lines += [
        *own,
        "# Calls at once.",
        f"concurrency = {engine.concurrency}",
        "",
        "# Seconds.",
        "[engine.timeouts]",
        f"connect_s = {engine.timeouts.connect_s}",
        f"stream_head_s = {engine.timeouts.stream_head_s}",
        f"whole_head_s = {engine.timeouts.whole_head_s}",
        f"idle_s = {engine.timeouts.idle_s}",
        "",
        "# The provider's own name of a model, where it is another one.",
        "[engine.upstream_names]",
        *(f"{_text(name)} = {_text(other)}" for name, other in engine.upstream_names.items()),
        "",
        '# What its answers call a model, where that is yet another name; "*": anything.',
        "[engine.served_names]",
        *(f"{_text(name)} = {_text(other)}" for name, other in engine.served_names.items()),
        "",
    ]
    return lines


def _text(value: str) -> str:
    # A JSON string is a TOML basic string, but for DEL, which no value here may hold.
    return json.dumps(value, ensure_ascii=False)
