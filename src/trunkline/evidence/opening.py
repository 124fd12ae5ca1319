"""An opening: an answer's evidence, showing of its content only what somebody is meant to see.

The rest stays hidden behind the receipt's salted digests (``docs/spec/receipt.md``, "Salted
digests"). It refuses to hand on a receipt whose other digests are not salted: they could be
guessed from it.
"""

from typing import Final, Literal, TypeAlias

import msgspec

from trunkline.base.errors import VerificationError
from trunkline.evidence.file import Evidence, EvidenceBodies, EvidencePart
from trunkline.receipts import REQUEST_ITEMS, RESPONSE_ITEMS, Item, bound, decode

Side: TypeAlias = Literal["request", "response"]
ITEMS_OF: Final[dict[Side, tuple[Item, ...]]] = {
    "request": REQUEST_ITEMS,
    "response": RESPONSE_ITEMS,
}


def opening(evidence: Evidence, only: Side | None = None) -> Evidence:
    """``evidence`` with what opens ``only`` that side of the answer; None: both.

    Where bodies were not kept, the salts alone: whoever has the text can check it against them.
    Raises :class:`MalformedError` for a receipt that is none, and :class:`VerificationError` with
    code ``not_salted`` for one that hides nothing.
    """
    if only is None:
        return evidence
    return msgspec.structs.replace(
        evidence, parts=tuple(_opened(part, only) for part in evidence.parts)
    )


def _opened(part: EvidencePart, only: Side) -> EvidencePart:
    receipt = decode(part.signed.receipt.encode())
    hidden = ITEMS_OF["response" if only == "request" else "request"]
    if any(bound(receipt, item).startswith("sha256:") for item in hidden):
        raise VerificationError(
            "the receipt's digests are not salted: what is not shown could be guessed from them",
            code="not_salted",
        )
    shown = {item: salt for item, salt in part.salts.items() if item in ITEMS_OF[only]}
    return msgspec.structs.replace(part, salts=shown, bodies=_bodies(part.bodies, only))


def _bodies(bodies: EvidenceBodies | None, only: Side) -> EvidenceBodies | None:
    if bodies is None:
        return None
    if only == "response":
        return EvidenceBodies(chunks=bodies.chunks)
    return EvidenceBodies(request=bodies.request, client_request=bodies.client_request)
