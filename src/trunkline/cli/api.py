"""The gateway's own API as the commands call it: evidence, answers, status.

Blocking and asynchronous alike over one caller. A gateway that is not there is a clear error that
says how to start it.
"""

import asyncio
import contextlib
import time
from collections.abc import Collection
from typing import Final
from urllib.parse import urlencode

import msgspec

from trunkline.base.errors import (
    BadResponseError,
    ConnectError,
    Error,
    RequestError,
    UpstreamError,
)
from trunkline.client.fetch import NO_ANSWER, NO_ANSWER_ID, WAIT_S_MAX, fetch_evidence
from trunkline.gateway.explain import ROUTE_PATH, Explanation
from trunkline.gateway.own_api import FORGET_PATH, RECEIPTS_PATH, AnswerList
from trunkline.gateway.status import Status
from trunkline.gateway.store import AnswerRow, Wanted
from trunkline.remote.http1 import HttpTransport

STATUS_BYTES_MAX: Final = 4 * 1024 * 1024
SLACK_S: Final = 15.0
"""What a call may take beyond the wait it asked the gateway for."""
SEEN_S_MAX: Final = 30.0


class NotRunningError(Error):
    """No network is reachable."""

    code = "not_running"


class NotFoundError(Error):
    """The gateway knows no such answer."""

    code = "answer_not_found"


async def evidence(base_url: str, answer: str, *, wait_s: int = 0) -> bytes:
    """One answer's evidence file; waits up to ``wait_s`` for it to become final.

    ``base_url``: the gateway's, without a path. Raises NotRunningError, NotFoundError.
    """
    try:
        return await fetch_evidence(base_url, answer, min(wait_s, WAIT_S_MAX))
    except ConnectError:
        raise _not_running(base_url) from None
    except RequestError as error:
        if error.error_code in (NO_ANSWER, NO_ANSWER_ID):
            raise _not_found() from None
        raise


async def forget(base_url: str, answer: str) -> None:
    """Have the gateway delete what was said in an answer. Raises NotRunningError, NotFoundError."""
    url, transport = f"{base_url}{FORGET_PATH}/{answer}", HttpTransport()
    try:
        async with (
            asyncio.timeout(SLACK_S),
            await transport.request("POST", url, head_timeout_s=SLACK_S) as response,
        ):
            status = response.status
    except TimeoutError:
        raise Error(f"no answer from {url} within {SLACK_S:.0f} s", code="timeout") from None
    except ConnectError:
        raise _not_running(base_url) from None
    finally:
        await transport.aclose()
    if status == 404:
        raise _not_found()
    if status != 204:
        raise BadResponseError(f"{url} answered with status {status}")


async def newest(base_url: str, limit: int, wanted: Wanted) -> tuple[AnswerRow, ...]:
    """The newest answers that are ``wanted``, newest first, without content."""
    query = {"limit": limit, **msgspec.structs.asdict(wanted)}
    asked = urlencode({name: value for name, value in query.items() if value not in ("", None)})
    body = await _get(base_url, f"{RECEIPTS_PATH}?{asked}", STATUS_BYTES_MAX, SLACK_S)
    try:
        return msgspec.json.decode(body, type=AnswerList).answers
    except msgspec.MsgspecError:
        raise BadResponseError("the gateway's list of answers was not understood") from None


async def status(base_url: str) -> Status:
    """The gateway's status."""
    body = await _get(base_url, "/trunkline/v1/status", STATUS_BYTES_MAX, SLACK_S)
    try:
        return msgspec.json.decode(body, type=Status)
    except msgspec.MsgspecError:
        raise BadResponseError("the gateway's status was not understood") from None


async def until_seen(base_url: str, *, without: Collection[str] = ()) -> None:
    """Wait until the gateway believes every node to be ready, but for some (their names): before
    that it lists no models. Raises Error ``start_timeout``."""
    deadline = time.monotonic() + SEEN_S_MAX
    while time.monotonic() < deadline:
        with contextlib.suppress(UpstreamError, NotRunningError):
            seen = await status(base_url)
            if all(node.ready or node.node in without for node in seen.nodes):
                return
        await asyncio.sleep(0.05)
    raise Error("the gateway does not see all nodes ready", code="start_timeout")


async def route(base_url: str, model: str, *, key: str = "", kind: str = "") -> Explanation:
    """What would happen to a call for ``model`` now. ``key``: by the holder of this virtual key;
    ``kind``: ``chat`` or ``embeddings``; empty: by anybody, of either kind."""
    query = {"model": model, "key": key, "kind": kind}
    asked = urlencode({name: value for name, value in query.items() if value})
    body = await _get(base_url, f"{ROUTE_PATH}?{asked}", STATUS_BYTES_MAX, SLACK_S)
    try:
        return msgspec.json.decode(body, type=Explanation)
    except msgspec.MsgspecError:
        raise BadResponseError("the gateway's explanation was not understood") from None


async def get(url: str, *, bytes_max: int = STATUS_BYTES_MAX, timeout_s: float = 5.0) -> bytes:
    """The body of a role's answer to GET; BadResponseError unless its status is 200."""
    transport = HttpTransport()
    try:
        async with asyncio.timeout(timeout_s):
            response = await transport.request("GET", url, head_timeout_s=timeout_s)
            body = await response.read(bytes_max)
    except TimeoutError:
        raise Error(f"no answer from {url} within {timeout_s:.0f} s", code="timeout") from None
    finally:
        await transport.aclose()
    if response.status == 404:
        raise _not_found()
    if response.status != 200:
        raise BadResponseError(f"{url} answered with status {response.status}")
    return body


async def _get(base_url: str, path: str, bytes_max: int, timeout_s: float) -> bytes:
    try:
        return await get(base_url + path, bytes_max=bytes_max, timeout_s=timeout_s)
    except ConnectError:
        raise _not_running(base_url) from None


def _not_found() -> NotFoundError:
    return NotFoundError("the gateway has no such answer; see `trunkline receipts ls`")


def _not_running(base_url: str) -> NotRunningError:
    return NotRunningError(f"no network answers at {base_url}; start one with `trunkline up`")
