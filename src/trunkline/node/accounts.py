"""From a provider account's configuration to what serves its attempts: keys read, callers made."""

import os
from pathlib import Path

from trunkline.base.errors import ConfigError, MalformedError
from trunkline.base.ports import Clock
from trunkline.node import provider_kinds
from trunkline.node.config_providers import (
    AzureEngine,
    KeySource,
    OpenAIEngine,
    ProviderEngine,
)
from trunkline.node.core import presets
from trunkline.node.core.prefix import Prefixes
from trunkline.node.core.statement import Identity
from trunkline.node.keys import KeyedCaller
from trunkline.node.provider import Provider, ProviderModels
from trunkline.node.translated import Caller
from trunkline.remote.sigv4 import BAD_CREDENTIALS
from trunkline.remote.transport import Transport
from trunkline.runtime.config import read_secret, resolve
from trunkline.runtime.keyring import read_keyring


def provider(
    settings: ProviderEngine, base: Path, transport: Transport, clock: Clock, identity: Identity
) -> Provider:
    """What serves attempts by the account. ``base``: the file that relative paths start at.

    Raises :class:`ConfigError` for a key that can not be read, and for an address that is none.
    """
    made: list[tuple[str, Caller]] = []
    for key, secret in _secrets(settings, base):
        try:
            made.append((key, provider_kinds.caller(settings, transport, secret, clock)))
        except MalformedError as error:
            where = "the API key" if error.error_code == BAD_CREDENTIALS else "key engine.base_url"
            raise ConfigError(f"{where}: {error.message}") from None
    preset = presets.of(settings.preset if isinstance(settings, OpenAIEngine) else None)
    keyed = KeyedCaller(made, clock) if len(made) > 1 else None
    return Provider(
        made[0][1] if keyed is None else keyed,
        settings.url,
        ProviderModels(
            chat=settings.models,
            embeddings=(
                settings.embedding_models
                if isinstance(settings, OpenAIEngine | AzureEngine)
                else ()
            ),
            upstream_names=settings.upstream_names,
            served_names=settings.served_names,
            preset=preset,
            prefixes=Prefixes(
                default=settings.prefix or preset.prefix, models=settings.prefix_models
            ),
            ask_usage=settings.ask_usage and not preset.usage_unasked,
            limits=settings.limits.stated(),
        ),
        identity,
        keys=None if keyed is None else keyed.states,
    )


def _secrets(settings: ProviderEngine, base: Path) -> list[tuple[str, str | None]]:
    """Labels and keys; one that is None where the provider wants no key."""
    sources = settings.keys
    return [(key.label, _secret(key, base)) for key in sources] or [("", None)]


def _secret(source: KeySource, base: Path) -> str:
    if source.file is not None:
        return read_secret(resolve(base, source.file))
    if source.keyring is not None:
        return read_keyring(source.keyring)
    found = os.environ.get(source.env or "")
    if not found:
        raise ConfigError(f"key engine: the environment variable {source.env} is not set")
    return found
