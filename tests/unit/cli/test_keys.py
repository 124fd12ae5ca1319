"""``trunkline keys``: a secret is shown once, and what is listed is true."""

import json
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from trunkline.base.errors import ConfigError
from trunkline.cli import keys
from trunkline.crypto.signer import Signer
from trunkline.gateway.config import GatewayConfig, NodeConfig, render
from trunkline.gateway.key_store import KeyConflictError
from trunkline.gateway.store import create_store

SECRET = re.compile(r"tlk_[a-z2-7]{52}\n")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A gateway that is not running."""
    vkey = str(Signer.generate("a.localhost/n", sha256(b"n").digest()).vkey)
    settings = GatewayConfig(
        listen="127.0.0.1:9",
        data="data",
        policy_file="policy",
        log_url="http://127.0.0.1:9",
        nodes=(NodeConfig(url="http://127.0.0.1:9", vkey=vkey),),
        keys="required",
        routing_file="routing.toml",
    )
    path = tmp_path / "gateway.toml"
    path.write_text(render(settings))
    (tmp_path / "routing.toml").write_text('[keys.app]\nbudget_usd = "2.5"\n')
    create_store(tmp_path / "data")
    return path


def listed(config: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert keys.ls(config, as_program=True) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def test_a_secret_is_alone_on_standard_output(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert keys.create(config, "app", days=None, as_program=False) == 0
    said = capsys.readouterr()
    assert SECRET.fullmatch(said.out)
    assert said.out.strip() not in said.err
    held = b"".join(path.read_bytes() for path in (config.parent / "data").iterdir())
    assert said.out.strip().encode() not in held


def test_the_list_names_what_is_left(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys.create(config, "app", days=3, as_program=False)
    keys.create(config, "free", days=None, as_program=False)
    app, free = listed(config, capsys)
    assert (app["name"], app["state"]) == ("app", "in force")
    assert app["expires_ms"] - app["created_ms"] == 3 * 86_400_000
    assert {name: app["money"][name] for name in ("spent_usd", "left_usd", "budget_period")} == {
        "spent_usd": "0", "left_usd": "2.5", "budget_period": "month"
    }  # fmt: skip
    assert free["money"]["left_usd"] is None
    assert keys.ls(config, as_program=False) == 0
    shown = capsys.readouterr().out
    assert "2.5" in shown
    assert "tlk_" not in shown


def test_rotating_keeps_the_tenant(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys.create(config, "app", days=None, as_program=True)
    first = json.loads(capsys.readouterr().out)
    keys.rotate(config, "app", overlap_s=0, as_program=True)
    second = json.loads(capsys.readouterr().out)
    assert second["tenant"] == first["tenant"]
    assert second["secret"] != first["secret"]


def test_a_revoked_key_stays_on_the_list(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys.create(config, "app", days=None, as_program=False)
    assert keys.revoke(config, "app") == 0
    (found,) = listed(config, capsys)
    assert (found["state"], found["money"]) == ("revoked", None)
    with pytest.raises(KeyConflictError):
        keys.rotate(config, "app", overlap_s=0, as_program=False)


def test_mistakes_are_named(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="keys create"):
        keys.ls(config, as_program=False)
    for name in ("", "a b", "-x", "anonymous", "ü", "x" * 65):
        with pytest.raises(ConfigError, match="a key's name"):
            keys.create(config, name, days=None, as_program=False)
    config.write_text(config.read_text().replace('keys = "required"', 'keys = "off"'))
    keys.create(config, "app", days=None, as_program=False)
    assert 'set it to "required"' in capsys.readouterr().err
