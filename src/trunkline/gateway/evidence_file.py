"""An answer's evidence, as the one file that a stranger verifies offline.

Format: ``evidence.file``. What is provisional has no proof yet, and says so by its absence.
"""

from collections.abc import Sequence

from trunkline.evidence.file import (
    Evidence,
    EvidenceBodies,
    EvidenceKey,
    EvidencePart,
    EvidenceVerdict,
    encode,
)
from trunkline.gateway.core.demands import VerifierPolicy
from trunkline.gateway.core.pins import STATEMENTS_MAX
from trunkline.gateway.directory import Node
from trunkline.gateway.store import AnswerRow, Bodies, PartRow
from trunkline.receipts import decode, salts


def evidence_file(
    row: AnswerRow,
    parts: Sequence[PartRow],
    nodes: Sequence[Node],
    policy: str,
    verdicts: tuple[EvidenceVerdict, ...] = (),
    verifiers: Sequence[VerifierPolicy] = (),
) -> bytes:
    """The file's bytes. Keys: the one of the node that signed, under which this gateway took the
    receipt, and what its operator said of it. Its log and witnesses are named by ``policy``, which
    is what this gateway holds proofs to. ``verdicts``: signed ones on the parts' receipts, by
    ``verifiers`` as this gateway knows them."""
    keys = (*_node_keys(row, parts), *_operator_key(row, nodes))
    kept = tuple(
        EvidencePart(
            signed=part.signed,
            proof=part.proof,
            bodies=_bodies(part.bodies),
            salts=_salts(part),
        )
        for part in parts
    )
    if not verdicts:
        return encode(Evidence(answer=row.answer, parts=kept, keys=keys, policy=policy))
    keys = (*keys, *(_verifier_key(one) for one in verifiers))
    return encode(
        Evidence(answer=row.answer, parts=kept, keys=keys, policy=policy, verdicts=verdicts)
    )


def _verifier_key(verifier: VerifierPolicy) -> EvidenceKey:
    return EvidenceKey(
        name=verifier.key.name, vkey=verifier.vkey, role="verifier", operator=verifier.operator
    )


def _node_keys(row: AnswerRow, parts: Sequence[PartRow]) -> list[EvidenceKey]:
    signed_by = {decode(part.signed.receipt.encode()).key for part in parts}
    return [
        EvidenceKey(name=row.node, vkey=key, role="node", operator=row.operator)
        for key in sorted(signed_by)
    ]


def _operator_key(row: AnswerRow, nodes: Sequence[Node]) -> list[EvidenceKey]:
    """The node's operator, where it is pinned, with what it signed of the node's keys."""
    return [
        EvidenceKey(
            name=node.pin.operator.name,
            vkey=str(node.pin.operator),
            role="operator",
            operator=node.pin.operator.name,
            statements=() if node.info is None else node.info.statements[-STATEMENTS_MAX:],
        )
        for node in nodes
        if node.name == row.node and node.pin.operator is not None
    ]


def _bodies(bodies: Bodies | None) -> EvidenceBodies | None:
    if bodies is None or bodies.request is None:
        return None
    return EvidenceBodies(
        request=bodies.request, client_request=bodies.client_request, chunks=bodies.chunks
    )


def _salts(part: PartRow) -> dict[str, str]:
    """What opens the receipt's digests, for whoever has the answer's id."""
    if part.bodies is None or not part.bodies.blinding:
        return {}
    receipt = decode(part.signed.receipt.encode())
    return salts(receipt, bytes.fromhex(part.bodies.blinding))
