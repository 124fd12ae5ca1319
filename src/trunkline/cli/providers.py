"""``--provider NAME=WHERE[,option=value…]``: reading it.

A provider is fronted by a node of its own, with its own key: what it answers is signed like any
other answer. The provider's api_key is never an argument, which others on the machine could read;
it is the name of a variable, or a file. An api_key that was given by mistake is not repeated.
"""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, get_args
from urllib.parse import urlsplit

import msgspec

from trunkline.base.errors import ConfigError
from trunkline.cli.folder import RoleEntry
from trunkline.crypto.signer import Signer
from trunkline.node.config_providers import (
    AnthropicEngine,
    AzureEngine,
    BedrockEngine,
    GeminiEngine,
    OpenAIEngine,
    ProviderEngine,
)
from trunkline.node.core.presets import PresetName

HOW: Final = (
    "write --provider NAME=BASE_URL, or NAME=VARIABLE with the api_key of a provider that is known "
    "by that name, and ,key-env=VARIABLE or ,key-file=PATH if needed"
)
KEY_SEED_BYTES: Final = 32
PRESET_NAMES: Final[tuple[PresetName, ...]] = get_args(PresetName)
KINDS: Final = ("anthropic", "gemini", "azure", "bedrock", *PRESET_NAMES)
"""Providers that are known by name."""
_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One provider account, as asked for."""

    name: str
    kind: str = ""
    """One of ``KINDS``; empty: nothing is known but that it speaks the OpenAI format."""
    base_url: str = ""
    """Empty: where providers of its kind are."""
    key_env: str | None = None
    key_file: str | None = None
    models: tuple[str, ...] | None = None
    region: str = ""
    auth: str = ""
    api_version: str | None = None

    @property
    def role_name(self) -> str:
        return f"node-{self.name}"

    def engine(self) -> ProviderEngine:
        """The node's configuration. Raises :class:`ConfigError` for what can not be."""
        try:
            return self._engine()
        except ValueError as error:
            raise ConfigError(f"--provider {self.name}: {error}; {HOW}") from None

    def _engine(self) -> ProviderEngine:
        key_env, key_file, models = self.key_env, self.key_file, self.models
        match self.kind:
            case "anthropic" | "gemini":
                kind = AnthropicEngine if self.kind == "anthropic" else GeminiEngine
                plain = kind(api_key_env=key_env, api_key_file=key_file, models=models)
                given = {"base_url": self.base_url} if self.base_url else {}
                return msgspec.structs.replace(plain, **given)
            case "azure":
                if not self.base_url:
                    raise ValueError("Azure is at your resource's endpoint: give its address")
                return AzureEngine(
                    base_url=self.base_url,
                    api_version=self.api_version,
                    api_key_env=key_env,
                    api_key_file=key_file,
                    models=models,
                )
            case "bedrock":
                return BedrockEngine(
                    base_url=self.base_url,
                    region=self.region,
                    auth="signature" if self.auth == "signature" else "api_key",
                    api_key_env=key_env,
                    api_key_file=key_file,
                    models=models,
                )
            case _:
                return OpenAIEngine(
                    base_url=self.base_url,
                    preset=next((name for name in PRESET_NAMES if name == self.kind), None),
                    api_key_env=key_env,
                    api_key_file=key_file,
                    models=models,
                )


def parse(text: str) -> Provider:
    """Read the option's value; ConfigError saying what is wrong."""
    name, found, rest = text.partition("=")
    if not found or _NAME.fullmatch(name) is None:
        raise ConfigError(f"--provider: a name of lower-case letters comes first; {HOW}")
    if name in ("alpha", "beta"):
        raise ConfigError(f"--provider {name}: the name is taken by an embedded node")
    where, *options = rest.split(",")
    provider = Provider(name=name, kind=_kind(name, options))
    if provider.kind and _VARIABLE.fullmatch(where):
        provider = _with_option(provider, f"key-env={where}")
    else:
        provider = replace(provider, base_url=_address(name, where))
        if provider.kind == "openai":
            # Somebody else's server, under the format's name: nothing more is known of it.
            provider = replace(provider, kind="")
    for option in options:
        if not option.startswith("kind="):
            provider = _with_option(provider, option)
    provider.engine()
    return provider


def _kind(name: str, options: list[str]) -> str:
    asked = [option.removeprefix("kind=") for option in options if option.startswith("kind=")]
    if not asked:
        return name if name in KINDS else ""
    if asked[0] not in KINDS:
        raise ConfigError(f"--provider {name}: kind is one of {', '.join(KINDS)}")
    return asked[0]


def _address(name: str, url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ConfigError(f"--provider {name}: not an http or https address; {HOW}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"--provider {name}: not an http or https address; {HOW}")
    if parts.username or parts.password or parts.query:
        raise ConfigError(f"--provider {name}: the address holds a credential or a query; {HOW}")
    return url.rstrip("/")


def _with_option(provider: Provider, option: str) -> Provider:
    kind, _, value = option.partition("=")
    if kind in ("key-env", "key-file") and (provider.key_env or provider.key_file):
        raise ConfigError(f"--provider {provider.name}: one api_key is enough; {HOW}")
    if kind == "key-env" and _VARIABLE.fullmatch(value):
        if value not in os.environ:
            # Not its name: somebody may have written the api_key itself here.
            raise ConfigError(f"--provider {provider.name}: the variable for its key is not set")
        return replace(provider, key_env=value)
    if kind == "key-file" and value:
        path = Path(value).expanduser().absolute()
        if not path.is_file():
            raise ConfigError(f"--provider {provider.name}: no file {path}")
        return replace(provider, key_file=str(path))
    if kind == "models" and value:
        return replace(provider, models=tuple(value.split("+")))
    if kind == "region" and value:
        return replace(provider, region=value)
    if kind == "auth" and value in ("api_key", "signature"):
        return replace(provider, auth=value)
    if kind == "api-version" and value:
        return replace(provider, api_version=value)
    # Not quoted back: somebody may have written the api_key itself here.
    raise ConfigError(f"--provider {provider.name}: an option was not understood; {HOW}")


def provider_role(provider: Provider, listen: str) -> tuple[RoleEntry, Signer]:
    """The role of a node in front of the provider, and a fresh key for it."""
    operator = f"{provider.name}.localhost"
    key = Signer.generate(f"{operator}/node", os.urandom(KEY_SEED_BYTES))
    entry = RoleEntry(
        name=provider.role_name, role="node", listen=listen, key=key.name, operator=operator
    )
    return entry, key
