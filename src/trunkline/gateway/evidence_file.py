"""An answer's evidence, as the one file that a stranger verifies offline.

Format: evidence file v1. What is provisional has no proof yet, and says so by its absence.
"""

from base64 import b64encode
from collections.abc import Sequence

import msgspec

from trunkline.gateway.directory import Node
from trunkline.gateway.store import AnswerRow, Bodies, PartRow
from trunkline.schema.attempt import SignedReceipt


class _Bodies(msgspec.Struct, frozen=True, kw_only=True):
    request: str
    client_request: str | None
    chunks: tuple[str, ...]


class _Part(msgspec.Struct, frozen=True, kw_only=True):
    signed: SignedReceipt
    proof: str | None
    bodies: _Bodies | None


class _Key(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    vkey: str
    role: str
    operator: str


class _File(msgspec.Struct, frozen=True, kw_only=True):
    type: str = "trunkline.evidence/v1"
    answer: str
    parts: tuple[_Part, ...]
    keys: tuple[_Key, ...]
    policy: str | None


def evidence_file(
    row: AnswerRow, parts: Sequence[PartRow], nodes: Sequence[Node], policy: str
) -> bytes:
    """The file's bytes. Keys: those of the nodes that this gateway has pinned and that signed."""
    keys = tuple(
        _Key(name=node.key.name, vkey=str(node.key), role="node", operator=row.operator)
        for node in nodes
        if node.key.name == row.node
    )
    return msgspec.json.encode(
        _File(
            answer=row.answer,
            parts=tuple(
                _Part(signed=part.signed, proof=part.proof, bodies=_bodies(part.bodies))
                for part in parts
            ),
            keys=keys,
            policy=policy,
        )
    )


def _bodies(bodies: Bodies | None) -> _Bodies | None:
    if bodies is None:
        return None
    client = bodies.client_request
    return _Bodies(
        request=b64encode(bodies.request).decode(),
        client_request=None if client is None else b64encode(client).decode(),
        chunks=bodies.chunks,
    )
