"""The operators of a network's nodes: they state the nodes' keys, old and new."""

import shlex
import stat
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trunkline.base.errors import ConfigError
from trunkline.cli import operator_file
from trunkline.cli.amend import add_providers
from trunkline.cli.create import create, read_keys
from trunkline.cli.folder import Folder, RoleEntry
from trunkline.cli.main import app
from trunkline.cli.operator import rotate
from trunkline.cli.providers import Provider
from trunkline.crypto.keys import VerifierKey
from trunkline.crypto.signer import Signer
from trunkline.gateway import config as gateway_config
from trunkline.gateway.core.pins import opened
from trunkline.node import config as node_config
from trunkline.receipts.key_statement import KeyStatement, Revocation
from trunkline.verifier import config as verifier_config


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "net")
    create(made, port_base=9000)
    add_providers(made, [Provider(name="acme", base_url="https://api.acme.example/v1")])
    return made


def states(folder: Folder, entry: RoleEntry, vkey: str) -> bool:
    """Whether the node would show a statement of its operator that lets this key count now."""
    settings = node_config.read(folder.config(entry))
    assert settings.operator_file is not None
    operator = operator_file.read_public(folder.config(entry).parent / settings.operator_file)
    (key,) = [each for each in read_keys(folder) if each.name == entry.operator]
    said = opened(operator.statements, VerifierKey.parse(key.vkey))
    assert key == operator
    return any(
        isinstance(one, KeyStatement) and one.key == vkey and one.from_s <= time.time() < one.to_s
        for one in said
    )


def test_the_gateway_knows_nodes_by_operators_that_state_their_keys(folder: Folder) -> None:
    network = folder.network()
    pinned = {key.name: key.vkey for key in read_keys(folder)}
    gateway = gateway_config.read(folder.config(network.one("gateway")))
    nodes = [entry for entry in network.roles if entry.role == "node"]
    for entry, node in zip(nodes, gateway.nodes, strict=True):
        assert (node.vkey, node.name) == ("", entry.key)
        assert node.operator_vkey == pinned[entry.operator]
        assert states(folder, entry, pinned[entry.key])
        secret = folder.path / "operators" / f"{entry.operator}.key"
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_a_node_gets_a_new_key_that_its_operator_states(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = next(each for each in folder.network().roles if each.role == "node")
    before = {key.name: key.vkey for key in read_keys(folder)}

    assert rotate(entry.name, data=folder.path, days=30) == 0

    after = {key.name: key.vkey for key in read_keys(folder)}
    path = folder.config(entry).parent / "key"
    assert after[entry.key] == str(Signer.parse(path.read_text().strip()).vkey)
    assert after[entry.key] != before[entry.key]
    assert after | {entry.key: ""} == before | {entry.key: ""}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert states(folder, entry, after[entry.key])
    assert states(folder, entry, before[entry.key])
    for each in folder.network().roles:
        if each.role == "verifier":
            known = [node.vkey for node in verifier_config.read(folder.config(each)).nodes]
            assert after[entry.key] in known
            assert before[entry.key] not in known
    assert "is not running" in capsys.readouterr().err


def test_a_key_that_was_changed_is_revoked_as_the_command_says(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = next(each for each in folder.network().roles if each.role == "node")
    (old,) = [key.vkey for key in read_keys(folder) if key.name == entry.key]
    rotate(entry.name, data=folder.path, days=30)
    command = shlex.split(capsys.readouterr().err.splitlines()[-1])
    assert states(folder, entry, old)

    assert command[0] == "trunkline"
    assert CliRunner().invoke(app, command[1:]).exit_code == 0
    operator = operator_file.read_public(folder.path / "operators" / f"{entry.operator}.json")
    said = opened(operator.statements, VerifierKey.parse(operator.vkey))
    assert [one.key for one in said if isinstance(one, Revocation)] == [old]


def test_only_a_node_gets_a_new_key(folder: Folder) -> None:
    for name in ("log", "node-gamma"):
        with pytest.raises(ConfigError, match="is no node"):
            rotate(name, data=folder.path, days=30)
