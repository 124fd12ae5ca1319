"""The gateway's own API, for people and tools beside the app: evidence, answers, status.

No content leaves here, except bodies that a caller asked to keep, inside their evidence file. A
published answer's (mode ``full``) is for anybody; a private one's, and one with bodies that a key's
holder had kept, for this machine and that holder. Any other evidence file is for whoever knows the
answer's id, 120 random bits. What names other people's answers, nodes and keys, and what deletes,
is for callers on this machine alone, whether or not virtual keys are asked.
"""

from collections.abc import Callable, Sequence
from re import compile as regex
from typing import Final

import msgspec

from trunkline.base.errors import RequestError
from trunkline.gateway.attached import Attached
from trunkline.gateway.content_store import Publication, receipt_of
from trunkline.gateway.core.load import QueueLoad
from trunkline.gateway.directory import Directory
from trunkline.gateway.evidence import WAIT_S_MAX, Finalizer
from trunkline.gateway.evidence_file import evidence_file
from trunkline.gateway.gossip import Gossip
from trunkline.gateway.health import Health
from trunkline.gateway.keys import Keys
from trunkline.gateway.routing import Routing
from trunkline.gateway.status import Counters, snapshot
from trunkline.gateway.store import (
    LIST_MAX,
    AnswerRow,
    AnswerState,
    EvidenceStore,
    PartRow,
    Wanted,
)
from trunkline.gateway.verification import Verdicts
from trunkline.runtime.http import Call, Handler, Router
from trunkline.runtime.polls import Polls

RECEIPTS_PATH: Final = "/trunkline/v1/receipts"
FORGET_PATH: Final = "/trunkline/v1/forget"
PUBLISHED_PATH: Final = "/trunkline/v1/published"
LIST_DEFAULT: Final = 50
ID_CHARS_MAX: Final = 64
DIGITS_MAX: Final = 15
UNIX_MS_MAX: Final = 10**DIGITS_MAX - 1
_LEAF: Final = regex(r"[0-9a-f]{64}")


class AnswerList(msgspec.Struct, frozen=True, kw_only=True):
    """``GET /trunkline/v1/receipts``: the newest answers, newest first."""

    answers: tuple[AnswerRow, ...]


class Publications(msgspec.Struct, frozen=True, kw_only=True):
    """``GET /trunkline/v1/published``: answers in mode ``full``, newest first."""

    published: tuple[Publication, ...]


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
        *,
        keys: Keys,
        queue: Callable[[], QueueLoad],
        verdicts: Verdicts,
        attached: Attached,
    ) -> None:
        self._store = store
        self._finalizer = finalizer
        self._directory = directory
        self._health = health
        self._counters = counters
        self._policy = policy
        self._routing = routing
        self._gossip = gossip
        self._keys = keys
        self._queue = queue
        self._verdicts = verdicts
        self._attached = attached
        self._polls = Polls()

    async def evidence(self, call: Call) -> None:
        """One answer's evidence file; ``?wait_s=N`` waits until it is final."""
        answer = call.path.removeprefix(RECEIPTS_PATH + "/")
        wait_s = number(call, "wait_s", 0, int(WAIT_S_MAX))
        found = await self._store.get(answer) if len(answer) <= ID_CHARS_MAX else None
        if found is not None and found[0].state == "provisional" and wait_s:
            with self._polls.room(call.address) as room:
                async with call.while_connected():
                    await self._finalizer.wait_final(answer, wait_s if room else 0, call.draining)
            found = await self._store.get(answer)
        if found is None or not self._may_see(call, *found):
            raise _no_answer()
        await self._reply(call, *found)

    async def published(self, call: Call) -> None:
        """The evidence file of an answer in mode ``full``, by its receipt's leaf hash (hex)."""
        text = call.path.removeprefix(PUBLISHED_PATH + "/")
        answer = None
        if _LEAF.fullmatch(text) is not None:
            answer = await self._store.content.published(bytes.fromhex(text))
        found = None if answer is None else await self._store.get(answer)
        if found is None:
            raise RequestError("nothing is published there", code="not_found", status=404)
        await self._reply(call, *found)

    async def publications(self, call: Call) -> None:
        """What was published last; ``?limit=N``."""
        limit = number(call, "limit", LIST_DEFAULT, LIST_MAX)
        found = await self._store.content.newest(min(limit, LIST_MAX))
        await call.reply_json(200, Publications(published=tuple(found)))

    async def forget(self, call: Call) -> None:
        """Delete what was said in an answer, and what would open its receipt."""
        answer = call.path.removeprefix(FORGET_PATH + "/")
        if len(answer) > ID_CHARS_MAX or not await self._store.content.forget(answer):
            raise _no_answer()
        await call.reply(204, b"")

    def _may_see(self, call: Call, row: AnswerRow, parts: Sequence[PartRow]) -> bool:
        """What is private, and what somebody's key asked to have kept, is shown on this machine and
        to the holder of that key."""
        modes = {receipt_of(part.signed).policy.mode for part in parts}
        kept = any(part.bodies is not None and part.bodies.request is not None for part in parts)
        own = "private" in modes or (kept and bool(row.tenant) and modes != {"full"})
        if call.local or not own:
            return True
        return bool(row.tenant) and self._keys.authenticate(call).id == row.tenant

    async def _reply(self, call: Call, row: AnswerRow, parts: Sequence[PartRow]) -> None:
        verdicts = await self._attached.about(parts)
        body = evidence_file(
            row,
            parts,
            self._directory.nodes,
            self._policy,
            verdicts,
            [verifier for verifier, _ in self._verdicts.asked()],
        )
        await call.reply(200, body, headers=[("trunkline-state", row.state)])

    async def newest(self, call: Call) -> None:
        """The newest answers, without content; ``?limit=N``, and which: see :class:`Wanted`."""
        limit = number(call, "limit", LIST_DEFAULT, LIST_MAX)
        rows = await self._store.newest(limit, _wanted(call))
        await call.reply_json(200, AnswerList(answers=tuple(rows)))

    async def status(self, call: Call) -> None:
        """Counters, evidence, the queue and nodes."""
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
                queue=self._queue(),
                logs=() if self._gossip is None else self._gossip.status(),
                verdicts=self._verdicts,
                keys_problem=self._keys.problem,
            ),
        )

    async def healthz(self, call: Call) -> None:
        """This process answers. Says nothing of nodes: the app's calls find that out better."""
        await call.reply_json(200, {"ok": True})


def add_routes(router: Router, api: OwnApi) -> None:
    """Register the own API."""
    router.add("GET", RECEIPTS_PATH, local_only(api.newest))
    router.add_prefix("GET", RECEIPTS_PATH + "/", api.evidence)
    router.add_prefix("POST", FORGET_PATH + "/", local_only(api.forget))
    router.add("GET", PUBLISHED_PATH, api.publications)
    router.add_prefix("GET", PUBLISHED_PATH + "/", api.published)
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


def _wanted(call: Call) -> Wanted:
    """The query's filters. Raises :class:`RequestError`."""
    state = call.query.get("state")
    if state not in (None, "provisional", "final"):
        raise RequestError(
            "state: provisional or final is expected", code="bad_query", param="state"
        )
    return Wanted(
        model=call.query.get("model", ""),
        node=call.query.get("node", ""),
        state=msgspec.convert(state, AnswerState | None),
        since_ms=_moment(call, "since_ms"),
        until_ms=_moment(call, "until_ms"),
    )


def _moment(call: Call, name: str) -> int | None:
    return None if name not in call.query else number(call, name, 0, UNIX_MS_MAX)


def _no_answer() -> RequestError:
    return RequestError("no such answer", code="answer_not_found", status=404)


def number(call: Call, name: str, default: int, most: int) -> int:
    """The query parameter ``name``, at most ``most``. Raises :class:`RequestError`."""
    text = call.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > DIGITS_MAX:
        raise RequestError(f"{name}: a whole number is expected", code="bad_query", param=name)
    return min(int(text), most)
