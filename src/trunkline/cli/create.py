"""``trunkline init``: makes a data folder with a whole network in it.

Keys from the system's randomness, a configuration with comments for each role, the policy, empty
stores. Made beside its place and renamed into it, so that a crash leaves no half network. Refuses
to touch a folder that holds anything.
"""

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from trunkline.base.errors import ConfigError, MalformedError
from trunkline.cli import operators
from trunkline.cli.folder import CACHE_VARIABLE, Folder, NetworkFile, RoleEntry, render_network
from trunkline.cli.providers import Provider, provider_role
from trunkline.crypto.keys import VerifierKey
from trunkline.crypto.signer import Cosigner, MlDsaCosigner, Signer
from trunkline.evidence import EvidenceKey, decode_keys
from trunkline.evidence.file import Role
from trunkline.gateway import config as gateway_config
from trunkline.gateway import routing
from trunkline.gateway.core.demands import VerifierPolicy
from trunkline.gateway.store import create_store as create_gateway_store
from trunkline.log import config as log_config
from trunkline.log.store import create_log
from trunkline.node import config as node_config
from trunkline.node.store import create_store as create_node_store
from trunkline.verifier import config as verifier_config
from trunkline.verifier.store import create_store as create_verifier_store
from trunkline.witness import config as witness_config
from trunkline.witness.store import create_store as create_witness_store

HOST: Final = "127.0.0.1"
PORT_BASE: Final = 8480
PORT_MIN: Final = 1024
PORT_MAX: Final = 65535 - 64
KEY_SEED_BYTES: Final = 32
NETWORK_ID_BYTES: Final = 5
CACHE: Final = "cache"
EMBEDDED: Final = (("node-alpha", "alpha.localhost"), ("node-beta", "beta.localhost"))
ROUTING_FILE: Final = "routing.toml"
LOG_OPERATOR: Final = "gamma.localhost"
WITNESSES: Final = ("delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa")
"""Their names in the policy, each of an operator of its own."""
WITNESSES_MAX: Final = len(WITNESSES)
VERIFIERS: Final = ("lambda", "mu", "nu")
"""Likewise. Two find each other's passes of what is wrong; which of two lies about what is right
takes a third."""
VERIFIERS_MAX: Final = len(VERIFIERS)
PLANTS_PER_DAY: Final = 24
"""That a new network's nodes agree to, since all its verifiers know of them."""
_PRIVATE_FOLDER: Final = 0o700
_PRIVATE_FILE: Final = 0o600


def create(
    folder: Folder,
    *,
    port_base: int = PORT_BASE,
    providers: Sequence[Provider] = (),
    witnesses: int = 1,
    witness_algorithm: witness_config.Algorithm = "ed25519",
    verifiers: int = 2,
) -> None:
    """Make a new network in the folder. ConfigError if there is anything in it already.

    Of more than one of ``witnesses``, a majority must cosign, each with ``witness_algorithm``.
    Without ``verifiers``, nodes keep nothing that could be audited.
    """
    if folder.exists:
        raise ConfigError(
            f"{folder.path} holds a network already; it is never overwritten. Start it with "
            "`trunkline up`, or name another folder with --data"
        )
    check_port_base(port_base)
    if not 1 <= witnesses <= WITNESSES_MAX:
        raise ConfigError(f"--witnesses {witnesses}: choose from 1 to {WITNESSES_MAX}")
    if not 0 <= verifiers <= VERIFIERS_MAX:
        raise ConfigError(f"--verifiers {verifiers}: choose from 0 to {VERIFIERS_MAX}")
    try:
        if folder.path.is_dir() and any(folder.path.iterdir()):
            raise ConfigError(f"{folder.path} is not empty; name another folder with --data")
        folder.path.parent.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix=f".{folder.path.name}.", dir=folder.path.parent))
    except OSError as error:
        raise ConfigError(f"{folder.path} can not be made: {error.strerror}") from None
    try:
        cosigners = [
            new_cosigner(f"{name}.localhost/witness", witness_algorithm)
            for name in WITNESSES[:witnesses]
        ]
        _Draft(Folder(place), port_base, providers, cosigners, verifiers).write()
        # A crash before this leaves a hidden folder that nothing reads; after it, a whole network.
        place.rename(folder.path)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def check_port_base(port_base: int) -> None:
    """ConfigError unless a network fits on the ports from ``port_base``."""
    if not PORT_MIN <= port_base <= PORT_MAX:
        raise ConfigError(f"--port-base {port_base}: choose from {PORT_MIN} to {PORT_MAX}")


class _Draft:
    """A network that is being written. Ports: gateway, log and first witness at 0, 3, 4; nodes
    between, then the other witnesses, then the verifiers, then the providers' nodes."""

    def __init__(
        self,
        folder: Folder,
        port_base: int,
        providers: Sequence[Provider],
        witnesses: Sequence[Cosigner],
        verifiers: int,
    ) -> None:
        self._folder = folder
        self._base = port_base
        self._id = f"net-{os.urandom(NETWORK_ID_BYTES).hex()}"
        self._log_key = new_key(f"{self._id}.localhost/log")
        self._witnesses = [
            (self._witness_entry(number), key) for number, key in enumerate(witnesses)
        ]
        self._verifiers = [
            (self._verifier_entry(number), new_key(f"{name}.localhost/verifier"))
            for number, name in enumerate(VERIFIERS[:verifiers])
        ]
        self._nodes: list[tuple[RoleEntry, Signer]] = []
        self._providers = providers

    def write(self) -> None:
        for offset, (name, operator) in enumerate(EMBEDDED, start=1):
            self._write_embedded(name, operator, self._listen(offset))
        audited = tuple(self._nodes)
        first = 4 + len(self._witnesses) + len(self._verifiers)
        for number, provider in enumerate(self._providers):
            entry, key = provider_role(provider, self._listen(first + number))
            write_provider_node(self._folder, entry, key, provider, self._log_link())
            self._nodes.append((entry, key))
        gateway, log = self._gateway(), self._log()
        for entry, cosigner in self._witnesses:
            self._write_witness(entry, cosigner)
        for entry, key in self._verifiers:
            self._write_verifier(entry, key, log, audited)
        others = (*self._witnesses, *self._verifiers)
        roles = (gateway, *(e for e, _ in self._nodes), log, *(e for e, _ in others))
        self._folder.policy_file.write_text(self._policy(log))
        write_keys(self._folder, self._keys())
        network = NetworkFile(id=self._id, cache=str(shared_cache() or CACHE), roles=roles)
        for made in (self._folder.logs, self._folder.run, self._folder.path / CACHE):
            made.mkdir(mode=_PRIVATE_FOLDER)
        self._folder.network_file.write_text(render_network(network), encoding="utf-8")

    def _listen(self, offset: int) -> str:
        return f"{HOST}:{self._base + offset}"

    def _log_link(self) -> node_config.LogTarget:
        return node_config.LogTarget(url=f"http://{self._listen(3)}", vkey=str(self._log_key.vkey))

    def _write_embedded(self, name: str, operator: str, listen: str) -> None:
        key, named = new_key(f"{operator}/node"), shared_cache()
        entry = RoleEntry(
            name=name, role="node", listen=listen, key=key.name, operator=operator, embedded=True
        )
        settings = node_config.NodeConfig(
            name=key.name,
            operator=operator,
            operator_file=operators.public_file(operator),
            listen=listen,
            log=self._log_link(),
            engine=node_config.EmbeddedEngine(cache=str(named) if named else f"../{CACHE}"),
            embeddings=True,
            audits=self._audits(),
        )
        write_role(self._folder, entry, node_config.render(settings), key)
        create_node_store(self._folder.config(entry).parent)
        operators.introduce(self._folder, entry, key)
        self._nodes.append((entry, key))

    def _audits(self) -> node_config.AuditsConfig | None:
        if not self._verifiers:
            return None
        return node_config.AuditsConfig(
            verifiers=tuple(
                node_config.AuditVerifier(vkey=str(its.vkey)) for _, its in self._verifiers
            ),
            plants_per_day=PLANTS_PER_DAY,
        )

    def _gateway(self) -> RoleEntry:
        entry = RoleEntry(name="gateway", role="gateway", listen=self._listen(0))
        settings = gateway_config.GatewayConfig(
            listen=entry.listen,
            policy_file="../policy",
            log_url=f"http://{self._listen(3)}",
            routing_file=ROUTING_FILE,
            nodes=tuple(operators.pinned(self._folder, node) for node, _ in self._nodes),
        )
        write_role(self._folder, entry, gateway_config.render(settings), None)
        verifiers = tuple(
            VerifierPolicy(vkey=str(key.vkey), url=one.url, operator=one.operator)
            for one, key in self._verifiers
        )
        routes = self._folder.config(entry).parent / ROUTING_FILE
        routes.write_text(routing.example(verifiers), encoding="utf-8")
        create_gateway_store(self._folder.config(entry).parent)
        return entry

    def _log(self) -> RoleEntry:
        key, operator = self._log_key, LOG_OPERATOR
        entry = RoleEntry(
            name="log", role="log", listen=self._listen(3), key=key.name, operator=operator
        )
        asked = tuple(
            log_config.WitnessConfig(url=one.url, vkey=str(its_key.cosigner_vkey))
            for one, its_key in self._witnesses
        )
        settings = log_config.LogConfig(
            listen=entry.listen,
            origin=key.name,
            witnesses=asked,
            policy_file="../policy" if len(asked) > 1 else None,
        )
        write_role(self._folder, entry, log_config.render(settings), key)
        create_log(self._folder.config(entry).parent, key)
        return entry

    def _witness_entry(self, number: int) -> RoleEntry:
        name = WITNESSES[number]
        return RoleEntry(
            name="witness" if number == 0 else f"witness-{name}",
            role="witness",
            listen=self._listen(4 + number),
            key=f"{name}.localhost/witness",
            operator=f"{name}.localhost",
        )

    def _write_witness(self, entry: RoleEntry, key: Cosigner) -> None:
        settings = witness_config.WitnessConfig(
            listen=entry.listen,
            name=key.name,
            algorithm="ml-dsa-44" if isinstance(key, MlDsaCosigner) else "ed25519",
            logs=(witness_config.WitnessedLog(vkey=str(self._log_key.vkey)),),
        )
        write_role(self._folder, entry, witness_config.render(settings), key)
        create_witness_store(self._folder.config(entry).parent)

    def _verifier_entry(self, number: int) -> RoleEntry:
        name = VERIFIERS[number]
        return RoleEntry(
            name="verifier" if number == 0 else f"verifier-{name}",
            role="verifier",
            listen=self._listen(4 + len(self._witnesses) + number),
            key=f"{name}.localhost/verifier",
            operator=f"{name}.localhost",
        )

    def _write_verifier(
        self,
        entry: RoleEntry,
        key: Signer,
        log: RoleEntry,
        nodes: Sequence[tuple[RoleEntry, Signer]],
    ) -> None:
        named = shared_cache()
        settings = verifier_config.VerifierConfig(
            name=key.name,
            operator=entry.operator,
            listen=entry.listen,
            log_url=log.url,
            cache=str(named) if named else f"../{CACHE}",
            nodes=tuple(
                verifier_config.AuditedNode(
                    url=node.url, vkey=str(its.vkey), operator=node.operator
                )
                for node, its in nodes
            ),
            verifiers=tuple(
                verifier_config.PeerVerifier(url=one.url, vkey=str(its.vkey), operator=one.operator)
                for one, its in self._verifiers
                if one != entry
            ),
        )
        write_role(self._folder, entry, verifier_config.render(settings), key)
        create_verifier_store(self._folder.config(entry).parent)

    def _policy(self, log: RoleEntry) -> str:
        names = WITNESSES[: len(self._witnesses)]
        lines = [
            "# Whom this network's answers are checked against (C2SP tlog-policy).",
            "# An answer is final once this log holds it in a checkpoint cosigned by the quorum.",
            f"log {self._log_key.vkey} {log.url}",
            *(
                f"witness {name} {key.cosigner_vkey} {entry.url}"
                for name, (entry, key) in zip(names, self._witnesses, strict=True)
            ),
        ]
        if len(names) == 1:
            lines.append(f"quorum {names[0]}")
        else:
            lines.append(f"group majority {len(names) // 2 + 1} {' '.join(names)}")
            lines.append("quorum majority")
        return "\n".join(lines) + "\n"

    def _keys(self) -> list[EvidenceKey]:
        return [
            *(trusted(key.vkey, "node", entry.operator) for entry, key in self._nodes),
            *(operators.stated(self._folder, entry) for entry, _ in self._nodes),
            trusted(self._log_key.vkey, "log", LOG_OPERATOR),
            *(
                trusted(key.cosigner_vkey, "witness", entry.operator)
                for entry, key in self._witnesses
            ),
            *(trusted(key.vkey, "verifier", entry.operator) for entry, key in self._verifiers),
        ]


def shared_cache() -> Path | None:
    """``$TRUNKLINE_CACHE``: one folder of derived model files for several networks."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named).expanduser().absolute() if named else None


def new_key(name: str) -> Signer:
    """A fresh key from the system's randomness."""
    return Signer.generate(name, os.urandom(KEY_SEED_BYTES))


def new_cosigner(name: str, algorithm: witness_config.Algorithm) -> Cosigner:
    """A fresh key for a witness."""
    if algorithm == "ml-dsa-44":
        return MlDsaCosigner(name, os.urandom(KEY_SEED_BYTES))
    return new_key(name)


def trusted(key: VerifierKey, role: Role, operator: str) -> EvidenceKey:
    """An entry for ``keys.json``."""
    return EvidenceKey(name=key.name, vkey=str(key), role=role, operator=operator)


def write_keys(folder: Folder, keys: Sequence[EvidenceKey]) -> None:
    """Replace ``keys.json``."""
    record = msgspec.json.encode(keys)
    folder.keys_file.write_bytes(msgspec.json.format(record, indent=1) + b"\n")


def read_keys(folder: Folder) -> tuple[EvidenceKey, ...]:
    """Read ``keys.json``; ConfigError if it is not there or not right."""
    try:
        return decode_keys(folder.keys_file.read_bytes())
    except OSError as error:
        raise ConfigError(f"{folder.keys_file}: cannot be read: {error.strerror}") from None
    except MalformedError as error:
        raise ConfigError(f"{folder.keys_file}: {error.message}") from None


def write_role(folder: Folder, entry: RoleEntry, config: str, key: Cosigner | None) -> None:
    """Make a role's folder, configuration and key file."""
    path = folder.config(entry)
    path.parent.mkdir(mode=_PRIVATE_FOLDER)
    path.write_text(config, encoding="utf-8")
    if key is None:
        return
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with os.fdopen(os.open(path.parent / "key", flags, _PRIVATE_FILE), "w") as file:
        file.write(key.skey() + "\n")


def write_provider_node(
    folder: Folder,
    entry: RoleEntry,
    key: Signer,
    provider: Provider,
    log: node_config.LogTarget,
) -> None:
    """Make the folder of a node in front of a provider."""
    settings = node_config.NodeConfig(
        name=key.name,
        operator=entry.operator,
        operator_file=operators.public_file(entry.operator),
        listen=entry.listen,
        log=log,
        engine=provider.engine(),
        embeddings=False,
    )
    write_role(folder, entry, node_config.render(settings), key)
    create_node_store(folder.config(entry).parent)
    operators.introduce(folder, entry, key)
