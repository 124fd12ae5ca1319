"""Changes to an existing network that ``trunkline up`` makes on request: other ports, a provider.

Refuses while the network runs (the caller holds the folder's lock), and to change what a name
already stands for. A file is replaced whole or not at all.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from trunkline.base.errors import ConfigError
from trunkline.cli import operators
from trunkline.cli.create import (
    HOST,
    ROUTING_FILE,
    check_port_base,
    read_keys,
    trusted,
    write_keys,
    write_provider_node,
)
from trunkline.cli.folder import Folder, NetworkFile, render_network
from trunkline.cli.providers import Provider, provider_role
from trunkline.gateway import config as gateway_config
from trunkline.node import config as node_config
from trunkline.node.config_providers import ProviderEngine


def move_ports(folder: Folder, port_base: int) -> None:
    """Put the network on the ports from ``port_base``, keeping their order."""
    check_port_base(port_base)
    network = folder.network()
    present = [_port(entry.listen) for entry in network.roles]
    shift = port_base - _port(network.one("gateway").listen)
    if shift == 0:
        return
    moves = {f"{HOST}:{port}": f"{HOST}:{port + shift}" for port in present}
    files = [folder.config(entry) for entry in network.roles]
    # The routing policy names verifiers by their addresses. An operator may have put it elsewhere.
    routes = folder.config(network.one("gateway")).parent / ROUTING_FILE
    files += [routes] if routes.is_file() else []
    # network.toml last: a crash before it leaves the old base named there, and this runs again on
    # whatever still has an old address.
    for path in (*files, folder.policy_file, folder.network_file):
        _replace(path, _moved(path.read_text(encoding="utf-8"), moves))


def add_providers(folder: Folder, providers: Sequence[Provider]) -> list[str]:
    """Add a node for each provider that has none yet; the names of those added."""
    return [provider.name for provider in providers if _add(folder, provider)]


def _add(folder: Folder, provider: Provider) -> bool:
    network = folder.network()
    known = {entry.name: entry for entry in network.roles}
    if provider.role_name in known:
        settings = node_config.read(folder.config(known[provider.role_name]))
        engine = settings.engine
        wanted = provider.engine()
        if type(engine) is not type(wanted) or _url(engine) != wanted.url:
            raise ConfigError(
                f"--provider {provider.name}: that name stands for another provider here; choose "
                f"another, or edit {folder.config(known[provider.role_name])}"
            )
        return False
    port = max(_port(entry.listen) for entry in network.roles) + 1
    entry, key = provider_role(provider, f"{HOST}:{port}")
    log = network.one("log")
    log_key = next(each for each in read_keys(folder) if each.name == log.key)
    write_provider_node(
        folder, entry, key, provider, node_config.LogTarget(url=log.url, vkey=log_key.vkey)
    )
    told = (trusted(key.vkey, "node", entry.operator), operators.stated(folder, entry))
    write_keys(folder, (*read_keys(folder), *told))
    path = folder.config(network.one("gateway"))
    settings_of_gateway = gateway_config.read(path)
    node = operators.pinned(folder, entry)
    _replace(
        path,
        gateway_config.render(
            msgspec.structs.replace(settings_of_gateway, nodes=(*settings_of_gateway.nodes, node))
        ),
    )
    amended = NetworkFile(id=network.id, cache=network.cache, roles=(*network.roles, entry))
    _replace(folder.network_file, render_network(amended))
    return True


def _port(listen: str) -> int:
    return int(listen.rpartition(":")[2])


def _moved(text: str, moves: dict[str, str]) -> str:
    # One pass: the new addresses may be among the old ones.
    pattern = "|".join(re.escape(old) + r"(?!\d)" for old in moves)
    return re.sub(pattern, lambda match: moves[match[0]], text)


def _replace(path: Path, text: str) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _url(engine: node_config.EmbeddedEngine | ProviderEngine) -> str:
    return "" if isinstance(engine, node_config.EmbeddedEngine) else engine.url
