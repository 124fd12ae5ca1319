"""Calling another gateway: swapping the largest checkpoint that each has seen of a log."""

from typing import Final

from trunkline.base.errors import BadResponseError
from trunkline.remote.plain import PlainCaller, refusal
from trunkline.remote.transport import Transport
from trunkline.tlog.checkpoint import CHECKPOINT_NOTE_BYTES_MAX

CHECKPOINT_PATH: Final = "/trunkline/v1/checkpoint"
EVIDENCE_BYTES_MAX: Final = 2 * 1024 * 1024


class PeerCaller:
    """One gateway, by its base URL. Nothing that it says is believed here."""

    __slots__ = ("_plain",)

    def __init__(self, transport: Transport, base_url: str, *, timeout_s: float = 10.0) -> None:
        self._plain = PlainCaller(transport, base_url, timeout_s)

    async def swap(self, checkpoint_note: bytes) -> tuple[bytes, bool]:
        """Hand over a checkpoint. Returns the peer's largest one of that log and False; or its
        split-view file and True. Neither is verified. An UpstreamError for any refusal."""
        headers = (("content-type", "text/plain; charset=utf-8"),)
        async with await self._plain.open(
            "POST", CHECKPOINT_PATH, headers, checkpoint_note
        ) as response:
            if response.status == 409:
                return await response.read(EVIDENCE_BYTES_MAX), True
            if response.status != 200:
                raise await refusal(response)
            found = await response.read(CHECKPOINT_NOTE_BYTES_MAX)
        if not found:
            raise BadResponseError("the peer sent no checkpoint", code="peer_bad_response")
        return found, False
