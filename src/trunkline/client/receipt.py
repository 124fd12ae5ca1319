"""The receipt that an answer carries: ask it for what is proven, now or once it is final.

``final`` returns for a proof and for nothing else: whatever is missing, false or late raises one of
:mod:`trunkline.client.errors`. Two classes, blocking and not, over one set of decisions.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal

from trunkline.client.errors import (
    NoReceiptError,
    NotFinalError,
    NotShownError,
    UnreadError,
    error_of,
)
from trunkline.client.exchange import Exchange
from trunkline.client.judge import Result, judge
from trunkline.client.sightings import Sightings
from trunkline.client.trust import Trust

DEADLINE_S: Final = 30.0
WAIT_S_MAX: Final = 20
"""Longest that one request lets the gateway wait."""
PAUSE_S: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What asking for the evidence came to."""

    status: int
    """0: the gateway could not be reached."""
    data: bytes = b""


class Progress:
    """The decisions: what the steps so far mean for somebody who waits."""

    def __init__(self, exchange: Exchange, trust: Trust, sightings: Sightings) -> None:
        self._exchange = exchange
        self._trust = trust
        self._sightings = sightings
        self.result: Result | None = None
        """The newest result, if there is one."""
        self._judged_bytes = 0

    @property
    def answer(self) -> str:
        """The answer's id; empty if the gateway named none."""
        return self._exchange.answer

    @property
    def state(self) -> Literal["provisional", "final"]:
        """``final`` once a check of this app's own has shown it, of all that has passed."""
        done = self.result is not None and self.result.outcome == "pass"
        all_of_it = self._judged_bytes == self._exchange.passed_bytes
        return "final" if done and all_of_it else "provisional"

    def begin(self) -> None:
        """Raises what can be said before anybody is asked."""
        if not self._exchange.answer:
            raise NoReceiptError("the answer names no receipt")

    def take(self, fetched: Fetched) -> Result | None:
        """Judge what came. Raises a :class:`ReceiptError` for what no waiting can mend."""
        if fetched.status == 404 and not self._exchange.ended:
            raise UnreadError("the answer was not read to its end, and no node signed it")
        if fetched.status == 404:
            raise NoReceiptError("the gateway has no evidence of its answer")
        if fetched.status != 200:
            return None
        # Looked at first: more may pass while it is judged.
        self._judged_bytes, ended = self._exchange.passed_bytes, self._exchange.ended
        result = judge(self._exchange, fetched.data, self._trust)
        if result.outcome == "pass":
            self._sightings.see(fetched.data)
            if ended:
                self._exchange.forget()
        self.result = result
        if result.fault is not None:
            raise error_of(result, result.fault)
        if not self._exchange.ended and result.outcome != "pass":
            raise UnreadError("the answer was not read to its end", result)
        if result.outcome != "pass" and result.state == "final":
            missing = next(step for step in result.steps if step.result == "inconclusive")
            raise NotShownError(
                f"step {missing.number} ({missing.title}): {missing.detail}", result
            )
        return result

    def late(self, fetched: Fetched | None) -> NotFinalError:
        """The error for a deadline that passed."""
        if self.result is None:
            status = 0 if fetched is None else fetched.status
            why = f"HTTP {status}" if status else "no answer"
            return NotFinalError(f"no evidence within the deadline: {why}")
        step = next(step for step in self.result.steps if step.result == "inconclusive")
        return NotFinalError(
            f"within the deadline, step {step.number} ({step.title}): {step.detail}", self.result
        )


class Receipt(Progress):
    """For blocking clients."""

    def __init__(
        self,
        exchange: Exchange,
        trust: Trust,
        sightings: Sightings,
        fetch: Callable[[int], Fetched],
    ) -> None:
        super().__init__(exchange, trust, sightings)
        self._fetch = fetch

    def final(self, deadline_s: float = DEADLINE_S) -> Result:
        """Wait until everything is proven, the log's quorum included; at most ``deadline_s``.

        Raises a :class:`ReceiptError` for anything less, its steps in ``result``.
        """
        self.begin()
        if self.state == "final" and self.result is not None:
            return self.result
        due_s = time.monotonic() + deadline_s
        while True:
            left_s = due_s - time.monotonic()
            fetched = self._fetch(_wait_s(left_s))
            result = self.take(fetched)
            if result is not None and result.outcome == "pass":
                return result
            if time.monotonic() >= due_s:
                raise self.late(fetched)
            time.sleep(PAUSE_S)

    def check(self) -> Result:
        """What is shown now, provisional or final. Raises for what is false or absent."""
        self.begin()
        if self.state == "final" and self.result is not None:
            return self.result
        fetched = self._fetch(0)
        result = self.take(fetched)
        if result is None:
            raise self.late(fetched)
        return result


class AsyncReceipt(Progress):
    """For clients that are awaited."""

    def __init__(
        self,
        exchange: Exchange,
        trust: Trust,
        sightings: Sightings,
        fetch: Callable[[int], Awaitable[Fetched]],
    ) -> None:
        super().__init__(exchange, trust, sightings)
        self._fetch = fetch

    async def final(self, deadline_s: float = DEADLINE_S) -> Result:
        """As :meth:`Receipt.final`."""
        from anyio import sleep, to_thread  # the HTTP library's own, whichever loop it runs on

        self.begin()
        if self.state == "final" and self.result is not None:
            return self.result
        due_s = time.monotonic() + deadline_s
        while True:
            left_s = due_s - time.monotonic()
            fetched = await self._fetch(_wait_s(left_s))
            # Signatures, digests and perhaps a disk: not what an event loop should wait for.
            result = await to_thread.run_sync(self.take, fetched)
            if result is not None and result.outcome == "pass":
                return result
            if time.monotonic() >= due_s:
                raise self.late(fetched)
            await sleep(PAUSE_S)

    async def check(self) -> Result:
        """As :meth:`Receipt.check`."""
        from anyio import to_thread

        self.begin()
        if self.state == "final" and self.result is not None:
            return self.result
        fetched = await self._fetch(0)
        result = await to_thread.run_sync(self.take, fetched)
        if result is None:
            raise self.late(fetched)
        return result


def _wait_s(left_s: float) -> int:
    return max(0, min(int(left_s), WAIT_S_MAX))
