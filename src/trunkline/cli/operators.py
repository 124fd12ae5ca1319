"""The operators of a network's own nodes: their keys in its folder, and what those say.

``trunkline init`` makes one for each node's operator, in ``operators/``, and states the nodes' keys
with it; the gateway pins the operators alone. On one machine that separates nothing, and shows all
of it: in the field the operator's key is kept elsewhere (``docs/operate/operator-keys.md``).
"""

import os
import shlex
from pathlib import Path
from typing import Final

from trunkline.cli import operator_file
from trunkline.cli.folder import Folder, RoleEntry
from trunkline.crypto.signer import Signer
from trunkline.evidence import EvidenceKey
from trunkline.gateway.config import NodeConfig
from trunkline.receipts.key_statement import KeyStatement
from trunkline.runtime.clock import SystemClock

FOLDER: Final = "operators"
DAYS: Final = 3650
"""A network for one machine must not stop one day, and its operators' keys lie beside its nodes':
who takes one takes both, and states what he likes. Nodes in the field: weeks or months."""
DAY_S: Final = 86_400
KEY_SEED_BYTES: Final = 32
_PRIVATE_FOLDER: Final = 0o700


def public_file(operator: str) -> str:
    """Its public file, as a node's configuration names it."""
    return f"../{FOLDER}/{operator}.json"


def introduce(folder: Folder, entry: RoleEntry, key: Signer) -> None:
    """State a node's key, with the key of its operator, which is made if there is none."""
    secret, public = _files(folder, entry.operator)
    secret.parent.mkdir(mode=_PRIVATE_FOLDER, exist_ok=True)
    if not public.exists():
        operator = Signer.generate(entry.operator, os.urandom(KEY_SEED_BYTES))
        operator_file.make(operator, key=secret, public=public)
    state(folder, entry, key, DAYS)


def pinned(folder: Folder, entry: RoleEntry) -> NodeConfig:
    """The node as a gateway's configuration has it: by its operator."""
    operator = stated(folder, entry)
    return NodeConfig(url=entry.url, operator_vkey=operator.vkey, name=entry.key)


def stated(folder: Folder, entry: RoleEntry) -> EvidenceKey:
    """The node's operator, and everything it said."""
    return operator_file.read_public(_files(folder, entry.operator)[1])


def state(folder: Folder, entry: RoleEntry, key: Signer, days: int) -> None:
    """Say with the operator's key that a node's key counts, from now on for so many days."""
    now_s = SystemClock().unix_ms() // 1000
    secret, public = _files(folder, entry.operator)
    statement = KeyStatement(
        operator=entry.operator, key=str(key.vkey), from_s=now_s, to_s=now_s + days * DAY_S
    )
    operator_file.say(statement, key=secret, public=public)


def revoking(folder: Folder, entry: RoleEntry, vkey: str) -> str:
    """The command by which the node's operator revokes a key, as a shell takes it."""
    secret, public = _files(folder, entry.operator)
    said = ("trunkline", "operator", "revoke", vkey)
    return shlex.join((*said, "--key", str(secret), "--public", str(public)))


def _files(folder: Folder, operator: str) -> tuple[Path, Path]:
    place = folder.path / FOLDER
    return place / f"{operator}.key", place / f"{operator}.json"
