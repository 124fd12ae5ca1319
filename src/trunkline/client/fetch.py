"""Fetching an answer's evidence from the gateway that gave the answer.

The gateway's own API (``GET /trunkline/v1/receipts/<answer>``). Nothing that comes back is
believed here, except that it must be about the answer asked for: evidence of another answer would
verify just as well.
"""

import asyncio
import re
from typing import Final

from trunkline.base.errors import BadResponseError, MalformedError, RequestError, TimedOutError
from trunkline.evidence import EVIDENCE_BYTES_MAX, decode
from trunkline.remote.http1 import HttpTransport
from trunkline.remote.status import NOT_FOUND, failure
from trunkline.remote.transport import Response, Transport

EVIDENCE_PATH: Final = "/trunkline/v1/receipts/"
WAIT_S_MAX: Final = 60.0
SLACK_S: Final = 15.0
"""What the whole call may take beyond the wait that it asks the gateway for."""

ERROR_BODY_BYTES_MAX: Final = 64 * 1024
NO_ANSWER: Final = "answer_not_found"
NO_ANSWER_ID: Final = "bad_answer_id"
WRONG_ANSWER: Final = "wrong_answer"

_ANSWER = re.compile(r"[A-Za-z0-9_-]{1,128}")


async def fetch_evidence(
    base_url: str,
    answer_id: str,
    wait_s: float = 0.0,
    *,
    api_key: str = "",
    transport: Transport | None = None,
) -> bytes:
    """The evidence file of one answer, as the gateway wrote it.

    ``base_url`` is the gateway's, without a path. ``wait_s``, 0 to 60 seconds: how long the gateway
    may wait for the evidence to become final; after that it gives what it has, provisional.
    ``api_key``: the app's virtual key, if it asked with one: bodies that it had kept are shown to
    its holder alone, except on the gateway's own machine. ``transport``: one to share; by default
    one is opened and closed for this call.

    Raises :class:`RequestError` for an id that is none (``bad_answer_id``) or that the gateway does
    not know (``answer_not_found``), an :class:`UpstreamError` when the gateway can not be reached,
    does not answer in ``wait_s`` + 15 s, or answers with something else.
    """
    if _ANSWER.fullmatch(answer_id) is None:
        raise RequestError("not an answer's id", code=NO_ANSWER_ID, param="answer_id")
    if not 0 <= wait_s <= WAIT_S_MAX:
        raise RequestError(f"wait_s is 0 to {WAIT_S_MAX:.0f}", param="wait_s")
    url = f"{base_url.rstrip('/')}{EVIDENCE_PATH}{answer_id}?wait_s={int(wait_s)}"
    timeout_s = wait_s + SLACK_S
    used = HttpTransport() if transport is None else transport
    try:
        async with asyncio.timeout(timeout_s):
            data = await _get(used, url, api_key, timeout_s)
    except TimeoutError:
        raise TimedOutError(f"no evidence within {timeout_s:.0f} s") from None
    finally:
        if transport is None:
            await used.aclose()
    _check_answer(data, answer_id)
    return data


async def _get(transport: Transport, url: str, api_key: str, timeout_s: float) -> bytes:
    response = await transport.request(
        "GET",
        url,
        headers=(("authorization", f"Bearer {api_key}"),) if api_key else (),
        head_timeout_s=timeout_s,
        idle_timeout_s=timeout_s,
    )
    async with response:
        if response.status != 200:
            await _refuse(response)
        return await response.read(EVIDENCE_BYTES_MAX)


async def _refuse(response: Response) -> None:
    body = await response.read(ERROR_BODY_BYTES_MAX)
    error = failure(response.status, response, body, now_unix_s=0.0)
    if error.error_code == NOT_FOUND:
        raise RequestError("the gateway knows no such answer", code=NO_ANSWER, status=404)
    raise error


def _check_answer(data: bytes, answer_id: str) -> None:
    try:
        answer = decode(data).answer
    except MalformedError as error:
        raise BadResponseError("the gateway answered with no evidence file") from error
    if answer != answer_id:
        raise BadResponseError("the gateway gave evidence of another answer", code=WRONG_ANSWER)
