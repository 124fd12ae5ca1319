"""Which verdicts' proofs are fetched when not all of them can be had."""

import asyncio

import pytest

from trunkline.base.errors import BadResponseError
from trunkline.gateway import verdict_proofs
from trunkline.gateway.verdict_proofs import AT_ONCE, VerdictProofs
from trunkline.gateway.verdict_store import VerdictRow
from trunkline.runtime.logger import get_logger


class Rows:
    """Verdicts whose note says whether the log takes it."""

    async def find(self, digest: str) -> VerdictRow:
        return VerdictRow(digest=digest, verifier="", receipt="", note=digest)

    async def prove(self, row: VerdictRow) -> None:
        assert row.digest.startswith("taken")


class Choosy:
    """A log that refuses some for ever."""

    async def prove(self, entry: bytes, timeout_s: float) -> str:
        if entry.startswith(b"refused"):
            raise BadResponseError("no known submitter signed the entry", code="log_refused")
        return "proof"


async def test_what_the_log_never_takes_keeps_nobodys_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verdict_proofs, "RETRY_S", 0.001)
    monkeypatch.setattr(verdict_proofs, "RETRY_S_MAX", 0.001)
    found: asyncio.Queue[str] = asyncio.Queue()

    async def proved(row: VerdictRow) -> None:
        await found.put(row.digest)

    proofs = VerdictProofs(Rows(), Choosy(), proved, logger=get_logger("test"))  # type: ignore[arg-type]
    refused = [f"refused {number}" for number in range(AT_ONCE + 1)]
    proofs.want(refused)
    proofs.want(["taken first", *refused, "taken last"])
    assert await found.get() == "taken first"
    proofs.want(["taken last", *refused])
    assert await found.get() == "taken last"
    await proofs.stop()
