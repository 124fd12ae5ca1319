"""A network's folder: made whole or not at all, private, moved, amended, held by one."""

import os
import stat
from pathlib import Path

import pytest

from trunkline.base.errors import ConfigError
from trunkline.cli import create as creation
from trunkline.cli.amend import add_providers, move_ports
from trunkline.cli.create import create, read_keys
from trunkline.cli.folder import Folder
from trunkline.cli.providers import Provider
from trunkline.crypto.keys import COSIGNATURE_ML_DSA_44
from trunkline.crypto.signer import Signer, parse_cosigner
from trunkline.gateway import config as gateway_config
from trunkline.gateway import routing
from trunkline.log import config as log_config
from trunkline.node import config as node_config
from trunkline.node.config_providers import OpenAIEngine
from trunkline.tlog.policy import Policy
from trunkline.verifier import config as verifier_config
from trunkline.witness import config as witness_config

READ = {
    "gateway": gateway_config.read,
    "node": node_config.read,
    "log": log_config.read,
    "witness": witness_config.read,
    "verifier": verifier_config.read,
}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "net")
    create(made, port_base=9000)
    return made


def test_every_configuration_reads_back_and_agrees_with_the_list(folder: Folder) -> None:
    network = folder.network()

    assert [entry.role for entry in network.roles] == [
        "gateway", "node", "node", "log", "witness", "verifier", "verifier",
    ]  # fmt: skip
    assert [entry.listen.rpartition(":")[2] for entry in network.roles] == [
        "9000", "9001", "9002", "9003", "9004", "9005", "9006",
    ]  # fmt: skip
    for entry in network.roles:
        assert READ[entry.role](folder.config(entry)).listen == entry.listen


def test_two_embedded_nodes_have_two_operators_and_two_keys(folder: Folder) -> None:
    nodes = [entry for entry in folder.network().roles if entry.role == "node"]

    assert len({entry.operator for entry in nodes}) == 2
    assert len({entry.key for entry in nodes}) == 2
    assert all(entry.embedded for entry in nodes)


def test_keys_are_private_and_those_that_are_pinned(folder: Folder) -> None:
    pinned = {key.name: key.vkey for key in read_keys(folder)}
    for entry in folder.network().roles:
        path = folder.config(entry).parent / "key"
        if entry.role == "gateway":
            assert not path.exists()
            continue
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        signer = Signer.parse(path.read_text().strip())
        own = signer.cosigner_vkey if entry.role == "witness" else signer.vkey
        assert pinned[entry.key] == str(own)


def test_verifiers_know_each_other_and_the_nodes_that_open_to_them(folder: Folder) -> None:
    network = folder.network()
    pinned = {key.name: key.vkey for key in read_keys(folder)}
    verifiers = [entry for entry in network.roles if entry.role == "verifier"]
    nodes = [entry for entry in network.roles if entry.role == "node"]

    assert len({entry.operator for entry in verifiers}) == 2
    for entry in verifiers:
        settings = verifier_config.read(folder.config(entry))
        assert [(one.url, one.vkey) for one in settings.nodes] == [
            (node.url, pinned[node.key]) for node in nodes
        ]
        assert [(one.url, one.vkey) for one in settings.verifiers] == [
            (other.url, pinned[other.key]) for other in verifiers if other != entry
        ]
        for node in nodes:
            audits = node_config.read(folder.config(node)).audits
            assert audits is not None
            assert pinned[entry.key] in {one.vkey for one in audits.verifiers}
            assert audits.rate_max * 1e6 >= settings.rate_ppm


def test_two_networks_share_no_key(folder: Folder, tmp_path: Path) -> None:
    other = Folder(tmp_path / "other")
    create(other)

    assert {key.vkey for key in read_keys(folder)}.isdisjoint(
        {key.vkey for key in read_keys(other)}
    )


def test_the_policy_is_one_that_parses_and_asks_for_the_witness(folder: Folder) -> None:
    policy = Policy.parse(folder.policy_file.read_bytes())

    assert len(policy.logs) == 1
    assert policy.is_quorum({"delta"})
    assert not policy.is_quorum(set())


def test_a_folder_that_holds_anything_is_left_alone(folder: Folder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="never overwritten"):
        create(folder)
    kept = tmp_path / "mine"
    kept.mkdir()
    (kept / "letter").write_text("dear")
    with pytest.raises(ConfigError, match="not empty"):
        create(Folder(kept))
    assert [path.name for path in kept.iterdir()] == ["letter"]


@pytest.mark.parametrize("step", ["new_cosigner", "create_witness_store"])
def test_what_fails_half_way_leaves_nothing(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise ConfigError("no space left on device")

    monkeypatch.setattr(creation, step, full)
    with pytest.raises(ConfigError, match="no space"):
        create(Folder(tmp_path / "net"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("port_base", [0, 80, 65535, 70000, -1])
def test_a_port_base_that_can_not_be_is_refused(tmp_path: Path, port_base: int) -> None:
    with pytest.raises(ConfigError, match="--port-base"):
        create(Folder(tmp_path / "net"), port_base=port_base)


@pytest.mark.parametrize("to", [9001, 9003, 10_000])
def test_moving_moves_every_address_once(folder: Folder, to: int) -> None:
    move_ports(folder, to)

    network = folder.network()
    assert [entry.listen for entry in network.roles] == [f"127.0.0.1:{to + i}" for i in range(7)]
    for entry in network.roles:
        assert READ[entry.role](folder.config(entry)).listen == entry.listen
    gateway = gateway_config.read(folder.config(network.one("gateway")))
    assert [node.url for node in gateway.nodes] == [
        e.url for e in network.roles if e.role == "node"
    ]
    assert gateway.log_url == network.one("log").url
    log = log_config.read(folder.config(network.one("log")))
    assert [witness.url for witness in log.witnesses] == [network.one("witness").url]
    assert network.one("log").url in folder.policy_file.read_text()
    verification = routing.read(
        folder.config(network.one("gateway")).parent / creation.ROUTING_FILE
    ).verification
    assert verification is not None
    assert [one.url for one in verification.verifiers] == [
        entry.url for entry in network.roles if entry.role == "verifier"
    ]


def test_a_provider_gets_a_node_the_gateway_knows(folder: Folder) -> None:
    provider = Provider(name="acme", base_url="https://api.acme.example/v1", key_env="ACME_KEY")

    assert add_providers(folder, [provider]) == ["acme"]
    assert add_providers(folder, [provider]) == []

    network = folder.network()
    entry = network.roles[-1]
    assert (entry.name, entry.listen) == ("node-acme", "127.0.0.1:9007")
    settings = node_config.read(folder.config(entry))
    assert isinstance(settings.engine, OpenAIEngine)
    assert settings.engine.api_key_env == "ACME_KEY"
    gateway = gateway_config.read(folder.config(network.one("gateway")))
    node = gateway.nodes[-1]
    pinned = {key.name: key.vkey for key in read_keys(folder)}
    assert (node.url, node.name) == (entry.url, entry.key)
    assert node.operator_vkey == pinned[entry.operator]


def test_a_name_does_not_change_what_it_stands_for(folder: Folder) -> None:
    add_providers(folder, [Provider(name="acme", base_url="https://api.acme.example/v1")])

    with pytest.raises(ConfigError, match="another provider"):
        add_providers(folder, [Provider(name="acme", base_url="https://elsewhere.example/v1")])


def test_providers_can_be_there_from_the_start(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "net")
    create(folder, port_base=9000, providers=[Provider(name="a", base_url="http://a.example/v1")])

    network = folder.network()
    gateway = gateway_config.read(folder.config(network.one("gateway")))
    assert [entry.name for entry in network.roles if entry.role == "node"] == [
        "node-alpha", "node-beta", "node-a",
    ]  # fmt: skip
    assert len(gateway.nodes) == 3


def test_one_holds_a_folder_and_others_see_it(folder: Folder) -> None:
    assert not folder.is_locked()
    with folder.locked():
        assert folder.is_locked()
        with pytest.raises(ConfigError, match="running") as caught, folder.locked():
            pass
        assert caught.value.error_code == "already_running"
    assert not folder.is_locked()


def test_a_record_left_by_a_killed_run_is_not_believed(folder: Folder) -> None:
    (folder.run / "up.json").write_text(f'{{"pid":{os.getpid()},"roles":[]}}')

    assert folder.running() is None


def test_no_network_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="trunkline init"):
        Folder(tmp_path / "nowhere").network()


def test_a_wrong_network_file_names_file_and_key(folder: Folder) -> None:
    folder.network_file.write_text(folder.network_file.read_text() + "\ncolour = 1\n")

    with pytest.raises(ConfigError, match=r"network\.toml.*colour"):
        folder.network()


def test_several_witnesses_are_of_several_operators_and_a_majority_is_enough(
    tmp_path: Path,
) -> None:
    folder = Folder(tmp_path / "three")
    create(folder, port_base=20_000, witnesses=3)
    network = folder.network()
    witnesses = [entry for entry in network.roles if entry.role == "witness"]
    assert len({entry.operator for entry in witnesses}) == 3
    assert len({entry.listen for entry in network.roles}) == len(network.roles)
    policy = Policy.parse(folder.policy_file.read_bytes())
    assert policy.is_quorum({"delta", "zeta"})
    assert not policy.is_quorum({"epsilon"})
    log = log_config.read(folder.config(network.one("log")))
    assert [one.url for one in log.witnesses] == [entry.url for entry in witnesses]
    assert log.policy_file == "../policy"
    for entry in witnesses:
        assert witness_config.read(folder.config(entry)).name == entry.key
    with pytest.raises(ConfigError, match="--witnesses 8"):
        create(Folder(tmp_path / "eight"), witnesses=8)


def test_witnesses_may_cosign_with_ml_dsa(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "strong")
    create(folder, port_base=20_000, witnesses=2, witness_algorithm="ml-dsa-44")
    policy = Policy.parse(folder.policy_file.read_bytes())
    network = folder.network()
    witnesses = [entry for entry in network.roles if entry.role == "witness"]
    made = []
    for entry in witnesses:
        config = witness_config.read(folder.config(entry))
        assert config.algorithm == "ml-dsa-44"
        key = (folder.config(entry).parent / config.key_file).read_text().strip()
        made.append(parse_cosigner(key).cosigner_vkey)
    assert [key.algorithm for key in made] == [COSIGNATURE_ML_DSA_44] * 2
    assert [witness.key for witness in policy.witnesses] == made
    log = log_config.read(folder.config(network.one("log")))
    assert [one.vkey for one in log.witnesses] == [str(key) for key in made]
    assert {key.vkey for key in read_keys(folder) if key.role == "witness"} == set(map(str, made))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_network_may_have_fewer_verifiers_none_or_a_third(tmp_path: Path, count: int) -> None:
    made = Folder(tmp_path / "fewer")
    create(made, verifiers=count)

    roles = made.network().roles
    assert sum(entry.role == "verifier" for entry in roles) == count
    for entry in roles:
        if entry.role == "node":
            audits = node_config.read(made.config(entry)).audits
            assert (0 if audits is None else len(audits.verifiers)) == count
    routes = made.config(made.network().one("gateway")).parent / "routing.toml"
    assert bool(count) == ("\n[verification]\n" in routes.read_text())


def test_more_verifiers_than_there_are_operators_for_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--verifiers 4"):
        create(Folder(tmp_path / "more"), verifiers=4)
