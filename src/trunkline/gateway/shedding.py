"""What the bodies of all calls may take in memory together: beyond it, a call is shed before it is
read, instead of the process being killed with every answer in it."""

from collections.abc import Callable

from trunkline.base.errors import OverloadedError
from trunkline.runtime.http import Call

RETRY_AFTER_S = 1.0


class Bodies:
    """The bytes that calls in progress hold. One loop, so no locks."""

    def __init__(self, bytes_max: int, body_bytes_max: int) -> None:
        """``body_bytes_max``: what a body of undeclared length is taken for."""
        self._bytes_max = bytes_max
        self._body_bytes_max = body_bytes_max
        self._held: dict[Call, int] = {}
        self._lent: set[Call] = set()
        """Whose bodies are needed, whatever becomes of the call."""
        self._over: set[Call] = set()
        """Of those: the ones that are over."""
        self.bytes = 0

    async def read(self, call: Call) -> bytes:
        """The call's body; it counts until :meth:`release`. Raises :class:`OverloadedError` 503
        before anything is read, and what reading raises."""
        declared = call.header("content-length") or ""
        known = declared.isascii() and declared.isdigit() and len(declared) <= 18
        size = min(int(declared), self._body_bytes_max) if known else self._body_bytes_max
        if self.bytes + size > self._bytes_max:
            raise OverloadedError(
                "the bodies of calls in progress take all the memory that they may",
                retry_after_s=RETRY_AFTER_S,
            )
        self._hold(call, size)
        body = await call.body(self._body_bytes_max)
        self._hold(call, len(body))
        return body

    def release(self, call: Call) -> None:
        """The call is over. Safe to repeat, and for calls that never had a body."""
        if call in self._lent:
            self._over.add(call)
        else:
            self.bytes -= self._held.pop(call, 0)

    def lend(self, call: Call) -> Callable[[], None]:
        """The call's body is needed until the function returned is called, even if the call is over
        before that."""
        self._lent.add(call)

        def done() -> None:
            self._lent.discard(call)
            if call in self._over:
                self._over.discard(call)
                self.release(call)

        return done

    def _hold(self, call: Call, size: int) -> None:
        self.bytes += size - self._held.get(call, 0)
        self._held[call] = size
