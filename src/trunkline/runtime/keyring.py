"""A secret from the desktop's keyring, through the system's own command.

``secret-tool`` (Secret Service) or, on macOS, ``security``. Looked up once, at the start, by the
attributes that Python's ``keyring`` package writes: service and user name. That package, with a
backend for every desktop, would be a dependency of every node for what one command does. It
refuses to wait long, and never repeats what the command said: it may hold the secret.
"""

import shutil
import subprocess
import sys
from typing import Final

from trunkline.base.errors import ConfigError

TIMEOUT_S: Final = 30.0
"""The keyring may ask a person to unlock it."""
SECRET_CHARS_MAX: Final = 64 * 1024


def read_keyring(entry: str, *, platform: str = sys.platform) -> str:
    """The secret stored under ``"service/name"``. Blocks. Raises :class:`ConfigError`."""
    service, slash, name = entry.partition("/")
    if not (service and slash and name):
        raise ConfigError(f'{entry}: a keyring entry is "service/name"')
    if platform == "darwin":
        command = ["security", "find-generic-password", "-s", service, "-a", name, "-w"]
    else:
        command = ["secret-tool", "lookup", "service", service, "username", name]
    program = shutil.which(command[0])
    if program is None:
        raise ConfigError(f"{entry}: {command[0]} is needed to ask the keyring, and not installed")
    try:
        done = subprocess.run(  # noqa: S603 - the words are an operator's, and no shell reads them
            [program, *command[1:]], stdin=subprocess.DEVNULL, capture_output=True,
            timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{entry}: the keyring did not answer; is it locked?") from None
    except OSError as error:
        raise ConfigError(f"{entry}: {command[0]} can not be run: {error.strerror}") from None
    if done.returncode != 0:
        raise ConfigError(f"{entry}: the keyring has no such entry, or is locked")
    try:
        secret = done.stdout.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise ConfigError(f"{entry}: a secret must be UTF-8 text") from None
    if not 0 < len(secret) <= SECRET_CHARS_MAX:
        raise ConfigError(f"{entry}: the keyring's secret is empty or too long")
    return secret
