"""Verdicts for an answer's evidence file, each with its proof from the log where that can be had.

A verifier logs its verdicts itself; the proof is asked for when somebody asks for the evidence, and
kept. What is not in the log by then goes without: its reader sees that, and believes it less.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from trunkline.base.errors import Error
from trunkline.evidence.file import VERDICTS_MAX, EvidenceVerdict
from trunkline.gateway.evidence import Prover
from trunkline.gateway.store import PartRow
from trunkline.gateway.verdict_store import VerdictRow, VerdictStore
from trunkline.receipts import receipt_leaf
from trunkline.runtime.logger import Logger

PROVE_S: Final = 3.0
"""For all proofs of one file together."""


class Attached:
    """What verifiers said of answers."""

    def __init__(self, store: VerdictStore, prover: Prover, *, logger: Logger) -> None:
        self._store = store
        self._prover = prover
        self._logger = logger

    async def about(self, parts: Sequence[PartRow]) -> tuple[EvidenceVerdict, ...]:
        """The newest verdicts on the receipts of these parts, in the order heard."""
        leaves = [receipt_leaf(part.signed.receipt.encode()).hex() for part in parts]
        rows = [row for leaf in leaves for row in await self._store.about(leaf)][-VERDICTS_MAX:]
        proofs = await asyncio.gather(*map(self._proof, rows))
        return tuple(
            EvidenceVerdict(verdict=row.note, proof=proof)
            for row, proof in zip(rows, proofs, strict=True)
        )

    async def _proof(self, row: VerdictRow) -> str | None:
        if row.proof is not None:
            return row.proof
        try:
            async with asyncio.timeout(PROVE_S):
                proof = await self._prover.prove(row.note.encode(), PROVE_S)
                await self._store.prove(msgspec.structs.replace(row, proof=proof))
        except (Error, TimeoutError) as error:
            code = error.error_code if isinstance(error, Error) else "upstream_timeout"
            self._logger.info("verdict.unproven", verdict=row.digest, error=code)
            return None
        return proof
