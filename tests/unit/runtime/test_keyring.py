"""The system's keyring. Stand-ins for ``secret-tool`` and ``security``: no desktop runs here."""

from pathlib import Path

import pytest

from trunkline.base.errors import ConfigError
from trunkline.runtime import keyring
from trunkline.runtime.keyring import read_keyring


def stand_in(folder: Path, program: str, script: str) -> None:
    path = folder / program
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


@pytest.mark.parametrize(
    ("platform", "program", "asked"),
    [
        ("linux", "secret-tool", "lookup service acme username my key"),
        ("darwin", "security", "find-generic-password -s acme -a my key -w"),
    ],
)
def test_the_entry_is_asked_for(programs: Path, platform: str, program: str, asked: str) -> None:
    stand_in(programs, program, f'[ "$*" = "{asked}" ] && echo sk-value')
    assert read_keyring("acme/my key", platform=platform) == "sk-value"


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo sk-value; exit 1", "no such entry"),
        ("echo sk-value >&2; exit 3", "no such entry"),
        ("exit 0", "empty"),
        (r"printf '\377'", "UTF-8"),
    ],
)
def test_failures_are_named_and_nothing_is_quoted(programs: Path, script: str, says: str) -> None:
    stand_in(programs, "secret-tool", script)
    with pytest.raises(ConfigError, match=says) as error:
        read_keyring("acme/key", platform="linux")
    assert "sk-value" not in error.value.message


def test_a_locked_keyring_is_not_waited_for(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "TIMEOUT_S", 0.05)
    stand_in(programs, "secret-tool", "exec sleep 60")
    with pytest.raises(ConfigError, match="locked"):
        read_keyring("acme/key", platform="linux")


def test_what_is_missing_is_named(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(ConfigError, match="not installed"):
        read_keyring("acme/key", platform="linux")
    for entry in ("", "acme", "/key", "acme/"):
        with pytest.raises(ConfigError, match="service/name"):
            read_keyring(entry)
