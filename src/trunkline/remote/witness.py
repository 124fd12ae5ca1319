"""Calling a witness (C2SP tlog-witness): asking it to cosign a checkpoint."""

from collections.abc import Sequence
from typing import Final

from trunkline.base.errors import BadResponseError, ConflictError, MalformedError
from trunkline.crypto.digest import sha256
from trunkline.remote.plain import PlainCaller, refusal
from trunkline.remote.transport import Transport
from trunkline.tlog.add_checkpoint import (
    ADD_CHECKPOINT_PATH,
    SIZE_BODY_BYTES_MAX,
    SIZE_CONTENT_TYPE,
    AddCheckpoint,
    parse_size,
)
from trunkline.tlog.checkpoint import CHECKPOINT_NOTE_BYTES_MAX

COSIGNATURES_BYTES_MAX: Final = 64 * 1024
BAD_WITNESS: Final = "witness_bad_response"


class WitnessConflictError(ConflictError):
    """The witness has cosigned another size than ``old_size``: ask again from ``size``."""

    code = "witness_conflict"

    def __init__(self, size: int) -> None:
        super().__init__(f"the witness is at size {size}")
        self.size = size


class WitnessCaller:
    """One witness, by its base URL."""

    __slots__ = ("_plain",)

    def __init__(self, transport: Transport, base_url: str, *, timeout_s: float = 5.0) -> None:
        self._plain = PlainCaller(transport, base_url, timeout_s)

    async def add_checkpoint(
        self, old_size: int, proof: Sequence[bytes], checkpoint_note: bytes
    ) -> bytes:
        """The witness's cosignature lines (``— name base64``, each with its line feed), to be
        verified by the caller.

        Raises :class:`WitnessConflictError` when the witness is at another size, and an
        UpstreamError for every other refusal.
        """
        request = AddCheckpoint(
            old_size=old_size, proof=tuple(proof), checkpoint_note=checkpoint_note
        )
        headers = (("content-type", "text/plain; charset=utf-8"),)
        async with await self._plain.open(
            "POST", ADD_CHECKPOINT_PATH, headers, request.body()
        ) as response:
            if response.status == 409 and response.header("content-type") == SIZE_CONTENT_TYPE:
                raise WitnessConflictError(_size(await response.read(SIZE_BODY_BYTES_MAX)))
            if response.status != 200:
                raise await refusal(response)
            lines = await response.read(COSIGNATURES_BYTES_MAX)
        if not lines.startswith("— ".encode()) or not lines.endswith(b"\n"):
            raise BadResponseError("the witness sent no cosignature", code=BAD_WITNESS)
        return lines

    async def latest(self, origin: str) -> bytes:
        """The latest checkpoint of a log that the witness has cosigned. Not verified.

        UpstreamError ``upstream_not_found`` (404) before the first, or without such an interface.
        """
        path = f"/{sha256(origin.encode()).hex()}/checkpoint"
        return await self._plain.call("GET", path, CHECKPOINT_NOTE_BYTES_MAX)


def _size(body: bytes) -> int:
    try:
        return parse_size(body)
    except MalformedError:
        raise BadResponseError("a conflict without a size", code=BAD_WITNESS) from None
