"""What an app takes as given: its policy, and the keys of nodes that it knows by other means.

Without either nothing can be proven, so it has to be said: files, a data folder, or the evidence
file's own word, which shows that a file is whole and agrees with itself, and not who made it.
"""

from pathlib import Path
from typing import Final, Self

import msgspec

from trunkline.base.errors import ConfigError, MalformedError
from trunkline.evidence import EvidenceKey, decode, decode_keys
from trunkline.tlog.policy import Policy

FILE_BYTES_MAX: Final = 1024 * 1024


class Trust(msgspec.Struct, frozen=True, kw_only=True):
    """A C2SP tlog-policy and pinned node keys; or the file's own, at its word."""

    policy: str = ""
    keys: tuple[EvidenceKey, ...] = ()
    at_its_word: bool = False

    @classmethod
    def from_files(cls, *, policy: str | Path, keys: str | Path) -> Self:
        """From a policy file and a file of pinned keys (``docs/spec/evidence.md``).

        Raises :class:`ConfigError` for a file that can not be read or is none.
        """
        try:
            text = _read(Path(policy)).decode()
            Policy.parse(text)
            return cls(policy=text, keys=decode_keys(_read(Path(keys))))
        except UnicodeDecodeError:
            raise ConfigError(f"{policy}: not UTF-8 text") from None
        except MalformedError as error:
            raise ConfigError(f"{policy} or {keys}: {error.message}") from None

    @classmethod
    def from_folder(cls, folder: str | Path) -> Self:
        """From a network's data folder: its ``policy`` and ``keys.json``."""
        return cls.from_files(policy=Path(folder) / "policy", keys=Path(folder) / "keys.json")

    @classmethod
    def in_file(cls) -> Self:
        """The evidence file's own keys and policy (``trunkline verify --trust-file``)."""
        return cls(at_its_word=True)

    def of(self, evidence: bytes) -> tuple[str | None, tuple[EvidenceKey, ...]]:
        """Policy and keys to hold ``evidence`` against."""
        if not self.at_its_word:
            return self.policy, self.keys
        try:
            file = decode(evidence)
        except MalformedError:
            return None, ()  # the check itself says what is wrong with the file
        return file.policy, file.keys


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
