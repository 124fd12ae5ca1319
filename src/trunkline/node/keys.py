"""Several keys before one provider: a call that one key is refused goes to the next at once.

Only before anything of the answer has come, and to each key once; a gateway hears of it when no key
is left. What is no fault of the key (a timeout, a wrong request) goes to the gateway as it is.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

from trunkline.base.errors import UpstreamError
from trunkline.base.ports import Clock
from trunkline.node.core.keyring import SPENT_S, KeyRing, KeyState
from trunkline.node.translated import Answer, Caller
from trunkline.remote.status import AUTH, QUOTA_EXHAUSTED, RATE_LIMITED, LimitedError
from trunkline.schema.attempt import Limits
from trunkline.schema.sse import SseEvent

T = TypeVar("T")

Call = Callable[[Caller], Awaitable[Answer]]


class KeyedCaller:
    """A ``translated.Caller`` over several, each with a key of its own."""

    def __init__(self, callers: Sequence[tuple[str, Caller]], clock: Clock) -> None:
        """``callers``: each with its key's label, which may be shown."""
        self._callers = tuple(caller for _, caller in callers)
        self._ring = KeyRing([label for label, _ in callers])
        self._clock = clock

    def states(self) -> tuple[KeyState, ...]:
        return self._ring.states(self._clock.monotonic_s())

    async def chat(
        self, body: bytes, stream: bool, *, idempotency_key: str | None = None
    ) -> "KeyedAnswer":
        return await self._open(
            lambda caller: caller.chat(body, stream, idempotency_key=idempotency_key)
        )

    async def embeddings(self, body: bytes, *, idempotency_key: str | None = None) -> "KeyedAnswer":
        return await self._open(
            lambda caller: caller.embeddings(body, idempotency_key=idempotency_key)
        )

    async def models(self) -> bytes:
        tried: set[int] = set()
        while True:
            index = self._pick(tried)
            try:
                return await self._callers[index].models()
            except UpstreamError as error:
                if not self.failed(index, error):
                    raise
            finally:
                self._ring.ended(index)

    async def _open(self, call: Call) -> "KeyedAnswer":
        answer = KeyedAnswer(self, self._ring, self._clock, call)
        await answer.open()
        return answer

    async def start(self, call: Call, tried: set[int]) -> tuple[int, Answer]:
        """Make the call with the next key that takes it. Raises what the last one said."""
        while True:
            index = self._pick(tried)
            try:
                answer = await call(self._callers[index])
            except BaseException as error:
                self._ring.ended(index)
                if not self.failed(index, error):
                    raise
            else:
                self._ring.heard(index, answer.limits, self._clock.monotonic_s())
                return index, answer

    def _pick(self, tried: set[int]) -> int:
        now_s = self._clock.monotonic_s()
        index = self._ring.pick(now_s, tried)
        if index is None:
            wait_s = self._ring.wait_s(now_s)
            if wait_s is None:
                raise UpstreamError("the provider takes none of the keys", code=AUTH)
            limits = self._ring.limits(now_s)
            raise LimitedError(
                "every key reached its limit",
                code=RATE_LIMITED,
                retry_after_s=wait_s,
                limits=limits,
            )
        tried.add(index)
        return index

    def failed(self, index: int, error: BaseException) -> bool:
        """Note what failed a call. Whether another key may do better."""
        now_s = self._clock.monotonic_s()
        if isinstance(error, LimitedError):
            spent = error.error_code == QUOTA_EXHAUSTED and error.retry_after_s is None
            wait_s = SPENT_S if spent else error.retry_after_s
            self._ring.limited(index, wait_s, error.limits, now_s)
            return True
        if isinstance(error, UpstreamError) and error.error_code == AUTH:
            self._ring.refused(index, now_s)
            return True
        return False


class KeyedAnswer:
    """An answer that one of the keys got. It changes key while nothing of it has come."""

    __slots__ = ("_answer", "_call", "_caller", "_clock", "_index", "_ring", "_tried")

    def __init__(self, caller: KeyedCaller, ring: KeyRing, clock: Clock, call: Call) -> None:
        self._caller = caller
        self._ring = ring
        self._clock = clock
        self._call = call
        self._tried: set[int] = set()
        self._index = 0
        self._answer: Answer | None = None

    async def open(self) -> None:
        """Make the call. Raises UpstreamErrors."""
        self._index, self._answer = await self._caller.start(self._call, self._tried)

    @property
    def limits(self) -> Limits | None:
        """Of all keys together."""
        return self._ring.limits(self._clock.monotonic_s())

    async def events(self) -> AsyncIterator[SseEvent]:
        while True:
            spoke = False
            try:
                async for event in self._opened().events():
                    spoke = True
                    yield event
            except UpstreamError as error:
                # An error in place of the first event is a refusal with a polite status.
                if not self._caller.failed(self._index, error) or spoke:
                    raise
            else:
                return
            await self._change()

    async def whole(self) -> bytes:
        while True:
            try:
                return await self._opened().whole()
            except UpstreamError as error:
                if not self._caller.failed(self._index, error):
                    raise
            await self._change()

    async def aclose(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            self._ring.ended(self._index)
            await answer.aclose()

    async def _change(self) -> None:
        await self.aclose()
        await self.open()

    def _opened(self) -> Answer:
        if self._answer is None:
            raise RuntimeError("the answer is closed")
        return self._answer
