"""Asks nodes to open what was drawn, and verifies that what comes is what was asked for.

A demand is signed for one node and one use. It refuses to take a receipt from a node that is not
the one at that place of the batch in the log.
"""

import asyncio
from collections.abc import Mapping
from re import compile as regex
from typing import Final

import msgspec

from trunkline.base.errors import (
    ConnectError,
    Error,
    MalformedError,
    TimedOutError,
    TruncatedError,
    UpstreamError,
    VerificationError,
)
from trunkline.base.ports import Clock
from trunkline.crypto import merkle
from trunkline.crypto.encoding import decode_hash
from trunkline.crypto.keys import VerifierKey
from trunkline.crypto.signer import Signer, sign_note
from trunkline.receipts import VerifiedReceipt, verify_signed
from trunkline.receipts.batch import PATH_HASHES_MAX
from trunkline.remote.node import NodeCaller, NodeRefusedError
from trunkline.remote.status import FAILED, UNAVAILABLE
from trunkline.schema.audit import Demand, Opening, WantedReceipt
from trunkline.verdicts import Demand as SignedDemand
from trunkline.verdicts import demanded_digest
from trunkline.verifier.core.patience import REFUSED, SILENT, is_conclusive
from trunkline.verifier.queue import Audit

DEMAND_TIMEOUT_S: Final = 20.0
_HASH: Final = regex(r"[0-9a-f]{64}")
_SILENT: Final = frozenset({FAILED, UNAVAILABLE})


class KnownNode(msgspec.Struct, frozen=True, kw_only=True):
    """A node as configured."""

    key: VerifierKey
    operator: str
    caller: NodeCaller


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """A try that brought nothing to judge."""

    reason: str
    """The node's own, or one of :mod:`trunkline.verifier.core.patience`."""
    code: str = ""
    """Of the error that it refused the demand with."""


class Demander:
    """One verifier's demands."""

    def __init__(
        self, nodes: Mapping[str, KnownNode], signer: Signer, *, operator: str, clock: Clock
    ) -> None:
        """``nodes`` by vkey."""
        self._nodes = nodes
        self._signer = signer
        self._operator = operator
        self._clock = clock
        self._next_s: dict[str, float] = {}

    async def ask(self, audit: Audit, demands_per_min: int) -> Opening | Failed:
        """Ask once. What comes back was verified against the batch (:func:`check`).

        It waits for its turn: a node is asked half as often as its terms allow, so that its limit
        can be no reason to refuse.
        """
        node = self._nodes.get(audit.node)
        if node is None:
            # It was removed from the configuration since: nobody can be asked.
            return Failed(reason=SILENT)
        await self._turn(audit.node, demands_per_min)
        try:
            openings = await node.caller.openings(
                self._demand(audit, node), timeout_s=DEMAND_TIMEOUT_S
            )
            opening = openings.openings[0] if len(openings.openings) == 1 else None
            if opening is None:
                return Failed(reason=REFUSED)
            if not is_conclusive(opening):
                return Failed(reason=opening.reason or REFUSED)
            check(opening, audit, node.key)
        except NodeRefusedError as error:
            return Failed(reason=REFUSED, code=error.error_code)
        except (ConnectError, TimedOutError, TruncatedError):
            return Failed(reason=SILENT)
        except UpstreamError as error:
            # Something before the node may say that it is away; all else is an answer of its own.
            return Failed(reason=SILENT if error.error_code in _SILENT else REFUSED)
        except Error:
            return Failed(reason=REFUSED)
        return opening

    async def _turn(self, vkey: str, demands_per_min: int) -> None:
        now_s = self._clock.monotonic_s()
        turn_s = max(now_s, self._next_s.get(vkey, now_s))
        self._next_s[vkey] = turn_s + 2 * 60 / demands_per_min
        await asyncio.sleep(turn_s - now_s)

    def _demand(self, audit: Audit, node: KnownNode) -> Demand:
        draw = audit.draw.decode()
        wanted = (WantedReceipt(batch=audit.root.hex(), index=audit.position),)
        signed = SignedDemand(
            digest=demanded_digest(draw, wanted),
            key=str(self._signer.vkey),
            node=node.key.name,
            operator=self._operator,
            unix_ms=self._clock.unix_ms(),
        )
        note = sign_note(signed.text(), self._signer)
        return Demand(draw=draw, receipts=wanted, demand=note.decode())


def is_there(opening: Opening, audit: Audit, count: int) -> bool:
    """Whether the leaf of a receipt that is not shown is the one at that place of the batch, which
    holds ``count``: whoever has the receipt can then tell what was said of it."""
    if _HASH.fullmatch(opening.leaf) is None or len(opening.path) > PATH_HASHES_MAX:
        return False
    try:
        path = [decode_hash(text) for text in opening.path]
        merkle.verify_inclusion(
            bytes.fromhex(opening.leaf), audit.position, count, path, audit.root
        )
    except (MalformedError, VerificationError):
        return False
    return True


def check(opening: Opening, audit: Audit, key: VerifierKey) -> VerifiedReceipt | None:
    """The receipt, which is the one at that place of the batch in the log; None where it is not
    shown, and only its leaf is.

    Raises MalformedError or VerificationError for any other.
    """
    if opening.signed is None:
        return None
    verified = verify_signed(opening.signed, key)
    if verified.batch.root != audit.root or opening.signed.index != audit.position:
        raise VerificationError("another receipt than was demanded")
    return verified
