"""The gateway's own API, for people and tools beside the app: evidence, answers, status.

No content leaves here, except bodies that a caller asked to keep, inside their evidence file. An
evidence file is for whoever knows the answer's id, 120 random bits; what names other people's
answers, nodes and keys is for callers on this machine alone, whether or not virtual keys are asked.
"""

from typing import Final

import msgspec

from trunkline.base.errors import RequestError
from trunkline.gateway.directory import Directory
from trunkline.gateway.evidence import WAIT_S_MAX, Finalizer
from trunkline.gateway.evidence_file import evidence_file
from trunkline.gateway.gossip import Gossip
from trunkline.gateway.health import Health
from trunkline.gateway.routing import Routing
from trunkline.gateway.status import Counters, snapshot
from trunkline.gateway.store import LIST_MAX, AnswerRow, EvidenceStore
from trunkline.runtime.http import Call, Handler, Router

RECEIPTS_PATH: Final = "/trunkline/v1/receipts"
LIST_DEFAULT: Final = 50
ID_CHARS_MAX: Final = 64


class AnswerList(msgspec.Struct, frozen=True, kw_only=True):
    """``GET /trunkline/v1/receipts``: the newest answers, newest first."""

    answers: tuple[AnswerRow, ...]


class OwnApi:
    """Handlers of the own API."""

    def __init__(
        self,
        store: EvidenceStore,
        finalizer: Finalizer,
        directory: Directory,
        health: Health,
        counters: Counters,
        policy: str,
        routing: Routing,
        gossip: Gossip | None = None,
    ) -> None:
        self._store = store
        self._finalizer = finalizer
        self._directory = directory
        self._health = health
        self._counters = counters
        self._policy = policy
        self._routing = routing
        self._gossip = gossip

    async def evidence(self, call: Call) -> None:
        """One answer's evidence file; ``?wait_s=N`` waits until it is final."""
        answer = call.path.removeprefix(RECEIPTS_PATH + "/")
        wait_s = _number(call, "wait_s", 0, int(WAIT_S_MAX))
        found = await self._store.get(answer) if len(answer) <= ID_CHARS_MAX else None
        if found is not None and found[0].state == "provisional" and wait_s:
            async with call.while_connected():
                await self._finalizer.wait_final(answer, wait_s, call.draining)
            found = await self._store.get(answer)
        if found is None:
            raise RequestError("no such answer", code="answer_not_found", status=404)
        row, parts = found
        body = evidence_file(row, parts, self._directory.nodes, self._policy)
        await call.reply(200, body, headers=[("trunkline-state", row.state)])

    async def newest(self, call: Call) -> None:
        """The newest answers, without content; ``?limit=N``."""
        limit = _number(call, "limit", LIST_DEFAULT, LIST_MAX)
        rows = await self._store.newest(limit)
        await call.reply_json(200, AnswerList(answers=tuple(rows)))

    async def status(self, call: Call) -> None:
        """Counters, evidence and nodes."""
        counts = await self._store.counts()
        await call.reply_json(
            200,
            snapshot(
                self._counters,
                counts,
                self._directory,
                self._health,
                log_reachable=self._finalizer.log_reachable,
                routing=self._routing.status(),
                logs=() if self._gossip is None else self._gossip.status(),
            ),
        )

    async def healthz(self, call: Call) -> None:
        """This process answers. Says nothing of nodes: the app's calls find that out better."""
        await call.reply_json(200, {"ok": True})


def add_routes(router: Router, api: OwnApi) -> None:
    """Register the own API."""
    router.add("GET", RECEIPTS_PATH, local_only(api.newest))
    router.add_prefix("GET", RECEIPTS_PATH + "/", api.evidence)
    router.add("GET", "/trunkline/v1/status", local_only(api.status))
    router.add("GET", "/healthz", api.healthz)


def local_only(handler: Handler) -> Handler:
    """``handler`` for callers on this machine; others get 403 ``local_only``."""

    async def checked(call: Call) -> None:
        if not call.local:
            raise RequestError(
                "only callers on the gateway's own machine are told", code="local_only", status=403
            )
        await handler(call)

    return checked


def _number(call: Call, name: str, default: int, most: int) -> int:
    text = call.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise RequestError(f"{name}: a whole number is expected", code="bad_query", param=name)
    return min(int(text), most)
