"""``--provider NAME=BASE_URL[,key-env=VAR|key-file=PATH]``: reading it.

A provider is fronted by a node of its own, with its own key: what it answers is signed like any
other answer. The provider's api_key is never an argument, which others on the machine could read;
it is the name of a variable, or a file.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from trunkline.base.errors import ConfigError
from trunkline.cli.folder import RoleEntry
from trunkline.crypto.signer import Signer

HOW: Final = "write --provider NAME=BASE_URL, with ,key-env=VARIABLE or ,key-file=PATH if needed"
KEY_SEED_BYTES: Final = 32
_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One OpenAI-compatible provider."""

    name: str
    base_url: str
    """With the path that ``/chat/completions`` is appended to, ``https://host/v1``."""
    key_env: str | None = None
    key_file: str | None = None

    @property
    def role_name(self) -> str:
        return f"node-{self.name}"


def parse(text: str) -> Provider:
    """Read the option's value; ConfigError saying what is wrong."""
    name, found, rest = text.partition("=")
    if not found or _NAME.fullmatch(name) is None:
        raise ConfigError(f"--provider: a name of lower-case letters comes first; {HOW}")
    if name in ("alpha", "beta"):
        raise ConfigError(f"--provider {name}: the name is taken by an embedded node")
    url, *options = rest.split(",")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"--provider {name}: not an http or https address; {HOW}")
    if parts.username or parts.password or parts.query:
        raise ConfigError(f"--provider {name}: the address holds a credential or a query; {HOW}")
    provider = Provider(name=name, base_url=url.rstrip("/"))
    for option in options:
        provider = _with_option(provider, option)
    return provider


def _with_option(provider: Provider, option: str) -> Provider:
    kind, _, value = option.partition("=")
    if provider.key_env or provider.key_file:
        raise ConfigError(f"--provider {provider.name}: one api_key is enough; {HOW}")
    if kind == "key-env" and _VARIABLE.fullmatch(value):
        if value not in os.environ:
            raise ConfigError(f"--provider {provider.name}: the variable {value} is not set")
        return Provider(name=provider.name, base_url=provider.base_url, key_env=value)
    if kind == "key-file" and value:
        path = Path(value).expanduser().absolute()
        if not path.is_file():
            raise ConfigError(f"--provider {provider.name}: no file {path}")
        return Provider(name=provider.name, base_url=provider.base_url, key_file=str(path))
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
