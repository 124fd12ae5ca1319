"""Demands: a verifier asks a node to open receipts, and signs what it asks for.

Specified in ``docs/spec/verdict.md``; the message is :class:`trunkline.schema.audit.Demand`. The
signature covers the draw, the receipts and the node that is asked, so that nobody else can ask in
a verifier's name, and no other node can be asked with it. A node must refuse one that is old.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

from trunkline.base.errors import MalformedError, SignatureError
from trunkline.crypto.digest import digest, sha256
from trunkline.crypto.keys import VerifierKey
from trunkline.schema import audit
from trunkline.verdicts.record import Count, Digest, Key, Name, Record

DEMAND_TYPE = "trunkline.demand/v1"
_DEMANDED_DOMAIN = b"trunkline.demanded/v1\n"


class Demand(Record, frozen=True, kw_only=True):
    """A verifier wants receipts opened."""

    TYPE: ClassVar[str] = DEMAND_TYPE
    NOTE_BYTES_MAX: ClassVar[int] = 8 * 1024

    digest: Digest
    """Of what is demanded: :func:`demanded_digest`."""
    key: Key
    node: Name
    """Key name of the node that is asked."""
    operator: Name
    type: Literal["trunkline.demand/v1"] = "trunkline.demand/v1"
    unix_ms: Count


def demanded_digest(draw: str, receipts: Sequence[audit.WantedReceipt]) -> str:
    """``sha256:…`` over the draw's note and the receipts, in order.

    Raises :class:`MalformedError` for no receipts, too many, or one that can not be.
    """
    if not 1 <= len(receipts) <= audit.DEMANDED_MAX:
        raise MalformedError(f"a demand is for 1 to {audit.DEMANDED_MAX} receipts")
    wanted = b"".join(_wanted(receipt) for receipt in receipts)
    try:
        return digest(_DEMANDED_DOMAIN + sha256(draw.encode()) + wanted)
    except UnicodeEncodeError as error:
        raise MalformedError("a draw that is not Unicode") from error


def open_demand(demand: audit.Demand, key: VerifierKey, node: str) -> Demand:
    """What ``key`` signed of ``demand``, which asks the node whose key's name is ``node``.

    Raises :class:`MalformedError` or :class:`SignatureError`. Whether the draw has drawn the
    receipts, and whether it is recent, is left to the caller.
    """
    wanted = demanded_digest(demand.draw, demand.receipts)
    try:
        signed = Demand.open_note(demand.demand.encode(), key)
    except UnicodeEncodeError as error:
        raise MalformedError("a demand that is not Unicode") from error
    if signed.digest != wanted:
        raise SignatureError("the demand was signed for other receipts", code="wrong_demand")
    if signed.node != node:
        raise SignatureError("the demand was signed for another node", code="wrong_node")
    return signed


def _wanted(receipt: audit.WantedReceipt) -> bytes:
    try:
        root = bytes.fromhex(receipt.batch)
        index = receipt.index.to_bytes(4, "big")
    except (ValueError, OverflowError) as error:
        raise MalformedError("not a receipt's place") from error
    if len(root) != 32 or root.hex() != receipt.batch:
        raise MalformedError("not a batch's root")
    return root + index
