"""Where a provider's API keys may be: in a file, the environment or the system's keyring."""

from pathlib import Path

import pytest

from trunkline.node.accounts import _secrets
from trunkline.node.config_providers import KeySource, OpenAIEngine

URL = "https://api.acme.example/v1"


def test_a_key_from_the_keyring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "secret-tool"
    program.write_text("#!/bin/sh\necho from-the-keyring\n")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr("sys.platform", "linux")
    engine = OpenAIEngine(base_url=URL, api_key_keyring="acme/key")
    assert engine.keys == (KeySource(label="api_key", keyring="acme/key"),)
    assert _secrets(engine, tmp_path) == [("api_key", "from-the-keyring")]


def test_a_key_is_in_one_place() -> None:
    with pytest.raises(ValueError, match="one of them"):
        OpenAIEngine(base_url=URL, api_key_keyring="acme/key", api_key_env="KEY")
    with pytest.raises(ValueError, match="one of them"):
        KeySource(label="a", keyring="acme/key", file="key")
    with pytest.raises(ValueError, match="one of them"):
        KeySource(label="a")
