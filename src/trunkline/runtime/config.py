"""Configuration: one TOML file per role, read into a frozen struct.

Refuses unknown keys, wrong types and secrets inside the file: a secret is a path. Only the listen
address can be overridden from the environment. Every error names the file, the key and the fix.
"""

import json
import os
import re
import stat
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from trunkline.base.errors import ConfigError, MalformedError
from trunkline.crypto.keys import VerifierKey, is_key_name

CONFIG_BYTES_MAX: Final = 1024 * 1024
SECRET_BYTES_MAX: Final = 64 * 1024
LISTEN_VARIABLE: Final = "TRUNKLINE_LISTEN"

StructT = TypeVar("StructT", bound=msgspec.Struct)
KeyT = TypeVar("KeyT")

_WHERE = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<where>[^`]*)`)?$", re.DOTALL)


def load(path: Path, kind: type[StructT]) -> StructT:
    """Read the TOML file at ``path`` as ``kind``, a struct with ``forbid_unknown_fields``.

    Raises :class:`ConfigError` naming the file and the key.
    """
    if not kind.__struct_config__.forbid_unknown_fields:
        raise TypeError(f"{kind.__name__} must forbid unknown fields")
    text = read_text(path)
    try:
        table: dict[str, object] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    listen = os.environ.get(LISTEN_VARIABLE)
    if listen and "listen" in kind.__struct_fields__:
        table["listen"] = listen
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {_explain(error)}") from None


def read_text(path: Path) -> str:
    """The text of a configuration file. Raises :class:`ConfigError`; bounded in size."""
    try:
        return _read(path, CONFIG_BYTES_MAX).decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text; save it as UTF-8") from None


def read_secret(path: Path) -> str:
    """The text of a secret's file, without surrounding white space.

    Refuses a file that others on the machine can read. No error quotes the content.
    """
    data = _read(path, SECRET_BYTES_MAX)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise ConfigError(f"{path}: others can read this secret (mode {mode:o}); chmod 600 it")
    try:
        text = data.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: a secret must be UTF-8 text") from None
    if not text:
        raise ConfigError(f"{path}: the secret is empty; write it into the file")
    return text


def read_key(path: Path, parse: Callable[[str], KeyT]) -> KeyT:
    """The private key in a secret's file, as ``parse`` reads it.

    Raises :class:`ConfigError` naming the file, also for what ``parse`` finds malformed.
    """
    text = read_secret(path)
    try:
        return parse(text)
    except MalformedError as error:
        raise ConfigError(f"{path}: {error.message}") from None


def parse_vkey(vkey: str, field: str) -> VerifierKey:
    """The verifier key written in ``field``. Raises :class:`ConfigError` naming the field."""
    try:
        return VerifierKey.parse(vkey)
    except MalformedError as error:
        raise ConfigError(f"key {field}: {error.message}") from None


def check_party(name: str, operator: str) -> None:
    """Refuse, by a ValueError, what can not be a role's name or who answers for it."""
    if not is_key_name(name):
        raise ValueError("name must be a key name: no spaces, no plus signs")
    if not operator or not operator.isprintable() or " " in operator:
        raise ValueError("operator must be a domain")


def resolve(config_path: Path, value: str) -> Path:
    """A path written in a configuration file; a relative one starts at that file's folder."""
    return config_path.parent / Path(value).expanduser()


def toml_value(value: object) -> str:
    """``value`` as TOML writes it: a truth value, a number, a text, or a tuple of them."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case str():
            # A JSON string is a TOML basic string, except that TOML has no surrogate pairs, which
            # is how JSON may spell other than ASCII, and refuses a raw DEL.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case tuple():
            return f"[{', '.join(map(toml_value, value))}]"
        case _:
            raise TypeError(f"a configuration holds no {type(value).__name__}")


def _read(path: Path, bytes_max: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(bytes_max + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; `trunkline init` creates it") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > bytes_max:
        raise ConfigError(f"{path}: larger than {bytes_max} bytes; is this the right file?")
    return data


def _explain(error: msgspec.ValidationError) -> str:
    found = _WHERE.match(str(error))
    what, where = (found["what"], found["where"]) if found else (str(error), None)
    what = what[:1].lower() + what[1:]
    return f"key {where}: {what}" if where else what
