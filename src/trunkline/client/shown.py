"""What an app was shown of an answer in a format that a gateway translates to, hashed as it passes.

Of a stream its events, as every reader of event streams takes them: a sign of life between two of
them is none of the answer. Of a whole answer its bytes. Keeps at most the event that is not whole.
"""

from collections.abc import Callable, Sequence
from hashlib import sha256

import msgspec

from trunkline.base.errors import MalformedError
from trunkline.schema import sse


class ShownEvents:
    """Told the response's bytes as they pass, it can say whether others show the same."""

    done = False
    """These formats have no end marker beside the body's own end."""

    def __init__(self) -> None:
        self._hash = sha256()
        self._parser = sse.SseParser()
        self._begun = False
        self.overflowed = False
        """An event was too long to be read, and nothing is known of what came."""
        self.streamed = True
        """They are events. So it is of an answer of which nothing came."""

    def add(self, data: bytes) -> None:
        """Take note of bytes that pass. Never raises."""
        if not self._begun and data:
            self._begun, self.streamed = True, data[:1] != b"{"
        if not self.streamed:
            self._hash.update(data)
        else:
            self._read(lambda: self._parser.feed(data))

    def close(self) -> None:
        """The body came to its end. Never raises."""
        if self.streamed:
            self._read(self._parser.finish)

    def forget(self) -> None:
        """Nothing is kept."""

    def shows(self, body: bytes) -> bool:
        """Whether what came shows what ``body`` would."""
        other = ShownEvents()
        other.add(body)
        other.close()
        return self._found() == other._found() and not (self.overflowed or other.overflowed)

    def _found(self) -> tuple[bool, bytes]:
        return self.streamed, self._hash.digest()

    def _read(self, more: Callable[[], Sequence[sse.SseEvent]]) -> None:
        if self.overflowed:
            return
        try:
            events = more()
        except MalformedError:
            self.overflowed = True
            return
        for event in events:
            if event.data is not None or not event.complete:
                shown = (event.event, event.data, event.complete)
                self._hash.update(msgspec.msgpack.encode(shown))
