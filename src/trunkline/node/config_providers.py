"""Configuration of nodes that front a provider: one struct per kind of account.

Part of ``config.py``, which reads and writes the file as a whole. Keys are files or environment
variables, never values.
"""

import re
from collections.abc import Mapping
from typing import ClassVar, Final, Literal

import msgspec

from trunkline.node.core import presets
from trunkline.node.core.prefix import DIALECTS, PrefixName
from trunkline.node.core.presets import PresetName
from trunkline.remote.exchange import ProviderTimeouts
from trunkline.remote.limits import MINUTE_MS
from trunkline.runtime.config import toml_value
from trunkline.schema.attempt import Limits, Quota
from trunkline.schema.grid.openai_anthropic import MAX_TOKENS_DEFAULT

CONCURRENCY_MAX: Final = 10_000
KEYS_MAX: Final = 64
_REGION: Final = re.compile(r"[a-z]{2,8}(-[a-z]{2,16}){1,3}-[0-9]{1,2}")
_LABEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class KeySource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where one of several API keys is."""

    label: str
    """What it is called in ``/healthz`` and in diagnostics."""
    file: str | None = None
    """File with the key, mode 600."""
    env: str | None = None
    """Or the environment variable that holds it."""
    keyring: str | None = None
    """Or its entry in the system's keyring, ``service/name``."""

    def __post_init__(self) -> None:
        if _LABEL.fullmatch(self.label) is None:
            raise ValueError("label must be letters, digits, dots, dashes and underscores")
        if sum(way is not None for way in (self.file, self.env, self.keyring)) != 1:
            raise ValueError("give file, env or keyring, one of them")


class AccountLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the account allows, all keys together, where the provider does not say so itself."""

    requests_per_minute: int | None = None
    """Calls that begin in a minute."""
    tokens_per_minute: int | None = None
    """Tokens of prompts and answers together."""
    concurrency: int | None = None
    """Calls at once."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1")

    def stated(self) -> Limits | None:
        """As ``/v1/info`` says it."""
        quotas = (
            Quota(unit="requests", limit=self.requests_per_minute, window_ms=MINUTE_MS),
            Quota(unit="tokens", limit=self.tokens_per_minute, window_ms=MINUTE_MS),
            Quota(unit="concurrency", limit=self.concurrency),
        )
        given = tuple(quota for quota in quotas if quota.limit is not None)
        return Limits(quotas=given) if given else None


class Account(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every provider account has."""

    TITLE: ClassVar[str] = ""
    PREFIXES: ClassVar[tuple[PrefixName, ...]] = ("none", "prefill")
    """Ways of going on after a given text that this kind of account may have."""

    base_url: str
    """Where the account is called."""
    api_key_file: str | None = None
    """File with the API key, mode 600."""
    api_key_env: str | None = None
    """Or the environment variable that holds it."""
    api_key_keyring: str | None = None
    """Or its entry in the system's keyring, ``service/name``."""
    api_keys: tuple[KeySource, ...] = ()
    """Or several: a call that one of them is refused goes to another at once."""
    models: tuple[str, ...] | None = None
    """Chat models to serve. Absent: all that the account has."""
    upstream_names: Mapping[str, str] = {}
    """The provider's own name of a model, where it is another one."""
    served_names: Mapping[str, str] = {}
    """What its answers call a model, where that is yet another name; ``*``: anything. An answer by
    another model is no answer; versions and dates after a name are known."""
    prefix: PrefixName | None = None
    """How its models are asked to go on after a given text (``core/prefix.py``): with it, this node
    takes over answers that broke off elsewhere. ``none``: they can not be asked.
    Absent: as the preset says, or ``none``."""
    prefix_models: Mapping[str, PrefixName] = {}
    """The same for single models."""
    concurrency: int = 64
    """Calls at once."""
    timeouts: ProviderTimeouts = ProviderTimeouts()
    """Seconds to connect, to the head of a stream, to that of a whole answer, between data."""
    ask_usage: bool = True
    """It takes ``stream_options.include_usage``."""
    limits: AccountLimits = AccountLimits()
    """What the account allows. Absent: what the provider says with its answers."""

    def __post_init__(self) -> None:
        single = (self.api_key_file, self.api_key_env, self.api_key_keyring)
        if sum(way is not None for way in (*single, self.api_keys or None)) > 1:
            raise ValueError(
                "give api_key_file, api_key_env, api_key_keyring or api_keys, one of them"
            )
        if len(self.api_keys) > KEYS_MAX:
            raise ValueError(f"at most {KEYS_MAX} api_keys")
        if len({key.label for key in self.api_keys}) < len(self.api_keys):
            raise ValueError("each of api_keys needs a label of its own")
        if not {self.prefix or "none", *self.prefix_models.values()} <= set(self.PREFIXES):
            raise ValueError(f"prefix must be one of {', '.join(self.PREFIXES)} here")
        if not 1 <= self.concurrency <= CONCURRENCY_MAX:
            raise ValueError(f"concurrency must be between 1 and {CONCURRENCY_MAX}")

    @property
    def url(self) -> str:
        """Where the account is."""
        return self.base_url

    @property
    def keys(self) -> tuple[KeySource, ...]:
        """Where the keys are; none: the provider wants none."""
        file, env, keyring = self.api_key_file, self.api_key_env, self.api_key_keyring
        if file is None and env is None and keyring is None:
            return self.api_keys
        return (KeySource(label="api_key", file=file, env=env, keyring=keyring),)


class OpenAIEngine(Account, frozen=True, kw_only=True, tag_field="kind", tag="openai"):
    """An upstream that speaks the OpenAI format."""

    TITLE: ClassVar[str] = "An upstream that speaks the OpenAI format."
    PREFIXES: ClassVar[tuple[PrefixName, ...]] = (
        "none",
        *(name for name in DIALECTS if name != "prefill"),
    )

    base_url: str = ""
    """With its version part: ``https://api.example.com/v1``. Absent: the preset's."""
    preset: PresetName | None = None
    """Whose it is, with what is known of that one's differences (docs/operate/providers.md)."""
    embedding_models: tuple[str, ...] = ()
    """Embedding models to serve."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.url:
            raise ValueError("base_url is missing: give it, or a preset")

    @property
    def url(self) -> str:
        return self.base_url or presets.of(self.preset).base_url


class AnthropicEngine(Account, frozen=True, kw_only=True, tag_field="kind", tag="anthropic"):
    """An Anthropic account (Messages API)."""

    TITLE: ClassVar[str] = "An Anthropic account (Messages API)."

    base_url: str = "https://api.anthropic.com/v1"
    """With its version part."""
    max_tokens: int = MAX_TOKENS_DEFAULT
    """Bound of an answer whose request gives none: the Messages API wants one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_tokens < 1:
            raise ValueError("max_tokens must be at least 1")


class GeminiEngine(Account, frozen=True, kw_only=True, tag_field="kind", tag="gemini"):
    """A Google Gemini account (Gemini API)."""

    TITLE: ClassVar[str] = "A Google Gemini account (Gemini API)."

    base_url: str = "https://generativelanguage.googleapis.com/v1beta"
    """With its version part."""


class AzureEngine(Account, frozen=True, kw_only=True, tag_field="kind", tag="azure"):
    """An Azure OpenAI resource."""

    TITLE: ClassVar[str] = "An Azure OpenAI resource."
    PREFIXES: ClassVar[tuple[PrefixName, ...]] = ("none",)

    base_url: str
    """Its endpoint, ``https://name.openai.azure.com``."""
    api_version: str | None = None
    """Of the API with deployments in its paths (``2024-10-21``). Absent: the v1 API."""
    embedding_models: tuple[str, ...] = ()
    """Embedding models to serve."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.models is None:
            raise ValueError("models must name the deployments: Azure does not list them")


class BedrockEngine(Account, frozen=True, kw_only=True, tag_field="kind", tag="bedrock"):
    """An AWS Bedrock account in one region (Converse API)."""

    TITLE: ClassVar[str] = "An AWS Bedrock account in one region (Converse API)."

    region: str
    """``us-east-1``."""
    base_url: str = ""
    """The runtime's endpoint. Absent: the region's."""
    auth: Literal["api_key", "signature"] = "api_key"
    """``api_key``: the key is a Bedrock API key. ``signature``: it is an AWS access key, written
    ``ACCESS_KEY_ID:SECRET_ACCESS_KEY`` with ``:SESSION_TOKEN`` if temporary, and signs requests."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if _REGION.fullmatch(self.region) is None:
            raise ValueError("region must be an AWS region, like us-east-1")
        if self.models is None:
            raise ValueError("models must name the models: this endpoint does not list them")
        if not self.keys:
            raise ValueError("give api_key_file, api_key_env or api_keys: Bedrock wants a key")

    @property
    def url(self) -> str:
        return self.base_url or f"https://bedrock-runtime.{self.region}.amazonaws.com"


ProviderEngine = OpenAIEngine | AnthropicEngine | GeminiEngine | AzureEngine | BedrockEngine

_TABLES: Final = (
    "timeouts", "limits", "upstream_names", "served_names", "prefix_models", "api_keys",
)  # fmt: skip
"""Members that are tables of their own, written after all others."""
_COMMENTS: Final = {
    "base_url": "Where it is.",
    "api_key_file": "The API key: a file with mode 600, or the name of an environment variable.",
    "api_key_env": "The API key: a file with mode 600, or the name of an environment variable.",
    "preset": "Whose it is, with what is known of that one's differences.",
    "api_version": "Of the API with deployments in its paths. Without: the v1 API.",
    "auth": "Whether the key is a Bedrock API key, or an AWS access key that signs requests.",
    "models": "Chat models to serve. Without: all that the account has.",
    "embedding_models": "Embedding models to serve.",
    "prefix": "How its models are asked to go on after a given text.",
    "prefix_models": "The same of those models that differ.",
    "ask_usage": "It takes stream_options.include_usage.",
    "concurrency": "Calls at once.",
    "max_tokens": "Bound of an answer whose request gives none.",
    "timeouts": "Seconds.",
    "limits": "What the account allows, where the provider does not say so with its answers.",
    "upstream_names": "The provider's own name of a model, where it is another one.",
    "served_names": 'What its answers call a model, where that is yet another name; "*": anything.',
}


def render(engine: ProviderEngine) -> list[str]:
    """The lines of the file's ``[engine]`` table and those below it."""
    kind = engine.__struct_config__.tag
    lines = [f"# {engine.TITLE}", "[engine]", f"kind = {toml_value(kind)}"]
    for name in engine.__struct_fields__:
        value = getattr(engine, name)
        if name not in _TABLES and value not in (None, ""):
            lines += [*_comment(name), f"{name} = {toml_value(value)}"]
    lines.append("")
    for name in ("timeouts", "limits"):
        table = getattr(engine, name)
        given = {key: getattr(table, key) for key in table.__struct_fields__}
        lines += [*_comment(name), f"[engine.{name}]", *_members(given), ""]
    for name in ("upstream_names", "served_names", "prefix_models"):
        lines += [*_comment(name), f"[engine.{name}]", *_members(getattr(engine, name)), ""]
    for key in engine.api_keys:
        given = {name: getattr(key, name) for name in key.__struct_fields__}
        lines += ["[[engine.api_keys]]", *_members(given), ""]
    return lines


def _comment(name: str) -> list[str]:
    return [f"# {_COMMENTS[name]}"] if name in _COMMENTS else []


def _members(table: Mapping[str, object]) -> list[str]:
    plain = re.compile(r"[a-z_]+")
    return [
        f"{name if plain.fullmatch(name) else toml_value(name)} = {toml_value(value)}"
        for name, value in table.items()
        if value is not None
    ]
