"""Calling a verifier: what it found, what one can compute again, and audits that one asks for.

Nothing that it says is verified here: a verdict is a signed note, and opening it is the caller's.
"""

from typing import Final, TypeVar

import msgspec

from trunkline.base.errors import BadResponseError
from trunkline.remote.plain import PlainCaller, refusal
from trunkline.remote.transport import Transport
from trunkline.schema.audit import (
    ALERTS_PATH,
    AUDITS_PATH,
    BUNDLE_BYTES_MAX,
    CALIBRATION_BYTES_MAX,
    CALIBRATIONS_PATH,
    DRAWS_PATH,
    VERDICTS_BYTES_MAX,
    VERDICTS_PATH,
    VERIFIER_INFO_PATH,
    WAIT_S_MAX,
    AlertPage,
    AskedAudit,
    AskedVerdict,
    RevealedVerdict,
    VerdictPage,
    VerifierInfo,
)
from trunkline.tlog.tile import ENTRY_BYTES_MAX

BAD_VERIFIER: Final = "verifier_bad_response"
INFO_BYTES_MAX: Final = 1024 * 1024
SLACK_S: Final = 5.0
"""What an answer may take beyond the wait that was asked for."""

T = TypeVar("T")


class VerifierCaller:
    """One verifier, by its base URL. Every call raises UpstreamErrors."""

    __slots__ = ("_base", "_plain", "_transport")

    def __init__(self, transport: Transport, base_url: str, *, timeout_s: float = 10.0) -> None:
        self._transport = transport
        self._base = base_url
        self._plain = PlainCaller(transport, base_url, timeout_s)

    async def info(self) -> VerifierInfo:
        """Who it is, and what it can check."""
        return _decode(
            await self._plain.call("GET", VERIFIER_INFO_PATH, INFO_BYTES_MAX), VerifierInfo
        )

    async def verdicts(self, after: int, wait_s: float = 0.0) -> VerdictPage:
        """Verdicts with numbers above ``after``, oldest first; an empty page if none was revealed
        within ``wait_s``, at most ``WAIT_S_MAX``."""
        wait_s = min(max(wait_s, 0.0), WAIT_S_MAX)
        path = f"{VERDICTS_PATH}?after={after}&wait_s={wait_s:g}"
        caller = PlainCaller(self._transport, self._base, wait_s + SLACK_S)
        return _decode(await caller.call("GET", path, VERDICTS_BYTES_MAX), VerdictPage)

    async def verdict(self, leaf: str) -> RevealedVerdict:
        """The verdict on one receipt, by its leaf hash (hex) or the first 8 digits of it and more.
        UpstreamError ``upstream_not_found`` where there is none, or none yet, and
        ``upstream_conflict`` where several begin so."""
        body = await self._plain.call("GET", f"{VERDICTS_PATH}/{leaf}", VERDICTS_BYTES_MAX)
        return _decode(body, RevealedVerdict)

    async def bundle(self, named: str) -> bytes:
        """What a verdict's numbers are computed from; ``named``: the receipt's leaf hash, or the
        SHA-256 of the verdict's note, hex."""
        return await self._plain.call("GET", f"{AUDITS_PATH}/{named}", BUNDLE_BYTES_MAX)

    async def calibration(self, digest: str) -> bytes:
        """A calibration that a verdict was made with, by its digest (``sha256:<hex>``)."""
        path = f"{CALIBRATIONS_PATH}/{digest.removeprefix('sha256:')}"
        return await self._plain.call("GET", path, CALIBRATION_BYTES_MAX)

    async def draw(self, digest: str) -> bytes:
        """A draw that it has audited under, by the digest (``sha256:<hex>``) of its note."""
        path = f"{DRAWS_PATH}/{digest.removeprefix('sha256:')}"
        return await self._plain.call("GET", path, ENTRY_BYTES_MAX)

    async def alerts(self, after: int) -> AlertPage:
        """Alerts with numbers above ``after``, oldest first."""
        body = await self._plain.call("GET", f"{ALERTS_PATH}?after={after}", VERDICTS_BYTES_MAX)
        return _decode(body, AlertPage)

    async def audit(self, asked: AskedAudit, timeout_s: float) -> AskedVerdict:
        """Have an answer audited now. ``timeout_s`` bounds the wait for the answer's head."""
        caller = PlainCaller(self._transport, self._base, timeout_s)
        headers = (("content-type", "application/json"),)
        body = msgspec.json.encode(asked)
        async with await caller.open("POST", AUDITS_PATH, headers, body) as response:
            if response.status != 200:
                raise await refusal(response)
            return _decode(await response.read(VERDICTS_BYTES_MAX), AskedVerdict)


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (ValueError, RecursionError):
        message = "the verifier's answer was not understood"
        raise BadResponseError(message, code=BAD_VERIFIER) from None
