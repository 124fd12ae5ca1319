"""A response in the OpenAI format, as an app received it: its messages, and the chains over them.

Two readings of the same thing. :class:`WholeResponse` has all of its bytes. A
:class:`PassingResponse` is told them as they pass and keeps none: it hashes each message into the
chain of the attempt that sent it, which it can where the gateway says in the stream whose chain
begins (``docs/verified-client.md``). What a gateway says there is no evidence: it only says where
to hash, and a chain that was begun elsewhere than a node signed ends otherwise.

They refuse what an app is shown and no node signed, and what is signed and no app is shown: an
event with a name, and a message after the end marker.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from re import compile as regex
from typing import Final, Protocol

from trunkline.base.errors import Error, MalformedError
from trunkline.receipts import Receipt, StreamDigest, bound_bytes, stream_digest
from trunkline.receipts.digests import PREFIX_DOMAIN
from trunkline.schema import sse
from trunkline.schema.openai_answer import parse_chunk

RESPONSE_BYTES_MAX: Final = 64 * 1024 * 1024
CHAINS_MAX: Final = 64
"""Attempts at one answer: as many as an evidence file has parts."""
REPEATED_MAX: Final = 16
REPEATED_BYTES_MAX: Final = 1024 * 1024
"""How far behind the newest message a chain may begin (attempt protocol, rule 8)."""

_CHAIN: Final = regex(rb"([!-~]{1,128}) ((?:sha256|salted):[0-9a-f]{64}) ([0-9]{1,4})")


class Response(Protocol):
    """What is asked of a response. Raises :class:`MalformedError` for one that is none."""

    def count(self) -> int:
        """Messages in all."""
        ...

    def digest(self, receipt: Receipt, start: int, end: int) -> str:
        """The stream digest (``sha256:<hex>``) of these messages, as the receipt's attempt."""
        ...

    def said(self, before: int) -> str:
        """Digest of the text that the first ``before`` messages say; empty: they say none."""
        ...


class Messages:
    """A stream's messages: the data of its events, without the end marker."""

    __slots__ = ("_parser", "done")

    def __init__(self, event_bytes_max: int) -> None:
        self._parser = sse.SseParser(event_bytes_max)
        self.done = False
        """The end marker was read."""

    def feed(self, data: bytes) -> list[sse.SseEvent]:
        """The messages that ``data`` completes. Raises :class:`MalformedError`."""
        return self._messages(self._parser.feed(data))

    def finish(self) -> list[sse.SseEvent]:
        """The stream is over. Raises :class:`MalformedError` where that was inside an event."""
        return self._messages(self._parser.finish())

    def _messages(self, events: Sequence[sse.SseEvent]) -> list[sse.SseEvent]:
        found: list[sse.SseEvent] = []
        for event in events:
            if event.data is None and event.complete:
                continue
            # The official client hands events on whatever their name is.
            if event.event:
                raise MalformedError("the stream has an event that no node sends")
            if event.data == sse.DONE_DATA:
                self.done = True
            elif not event.complete:
                raise MalformedError("the stream ends in the middle of an event")
            elif self.done:
                # That client has stopped reading.
                raise MalformedError("the stream goes on after its end")
            else:
                found.append(event)
        return found


class WholeResponse:
    """All bytes of a response: a stream, or the one whole object. Implements :class:`Response`."""

    def __init__(self, data: bytes) -> None:
        """Raises :class:`MalformedError` for a stream that is cut or too long."""
        if len(data) > RESPONSE_BYTES_MAX:
            raise MalformedError(f"more than {RESPONSE_BYTES_MAX} bytes")
        if data[:1] == b"{":
            # No line break is the message's (attempt protocol, rule 1): at the end, an editor's.
            self.chunks = [data.rstrip(b"\r\n")]
            return
        stream = Messages(RESPONSE_BYTES_MAX)
        events = stream.feed(data) + stream.finish()
        self.chunks = [event.data for event in events if event.data is not None]

    def count(self) -> int:
        return len(self.chunks)

    def digest(self, receipt: Receipt, start: int, end: int) -> str:
        request = bound_bytes(receipt.request.digest)
        return stream_digest(request, receipt.attempt, self.chunks[start:end])

    def said(self, before: int) -> str:
        text = _Text()
        for chunk in self.chunks[:before]:
            text.add(chunk)
        return text.digest()


@dataclass(slots=True, kw_only=True)
class _Chain:
    """One attempt's, as the gateway announced it."""

    request: str
    start: int
    """Number of its first message."""
    said: str
    """Digest of the text before it."""
    running: StreamDigest

    @property
    def covers(self) -> tuple[str, int, int]:
        """The request's digest, and the messages from the first to before the last."""
        return self.request, self.start, self.start + self.running.chunks


class PassingResponse:
    """A response that is told as it passes. Implements :class:`Response`.

    Holds one event, and a few before it. Where the stream begins without saying whose chain it is
    (``hashing`` is then False), its bytes are kept, up to ``RESPONSE_BYTES_MAX``, and read once
    the receipt is there; so is a whole answer, which is one message.
    """

    def __init__(self) -> None:
        self._kept = bytearray()
        self._stream = Messages(sse.EVENT_BYTES_MAX)
        self._chains: dict[str, _Chain] = {}
        self._newest: _Chain | None = None
        self._recent: deque[bytes] = deque(maxlen=REPEATED_MAX)
        self._recent_bytes = 0
        self._count = 0
        self._text = _Text()
        self._problem: MalformedError | None = None
        self._reading = True
        """It is a stream whose messages are read as they come."""
        self._tail = b""
        self.overflowed = False
        """It was too long to be kept, and nothing is known of it."""

    @property
    def hashing(self) -> bool:
        """Its messages are hashed as they pass."""
        return bool(self._chains)

    @property
    def done(self) -> bool:
        """The end marker came. Clients may leave a stream there, before the body's own end."""
        return self._tail == sse.DONE

    def add(self, data: bytes) -> None:
        """Take note of bytes that pass. Never raises: what is wrong is said when it is asked."""
        self._tail = (self._tail + data[-len(sse.DONE) :])[-len(sse.DONE) :]
        if not self.hashing:
            self._keep(data)
        if self._reading and self._problem is None:
            self._read(data, self._stream.feed)

    def close(self) -> None:
        """The body came to its end."""
        if self.hashing and self._problem is None:
            self._read(b"", lambda _: self._stream.finish())

    def forget(self) -> None:
        """Let go of what is kept."""
        self._kept = bytearray()

    def count(self) -> int:
        return self._shown().count() if not self.hashing else self._checked()

    def digest(self, receipt: Receipt, start: int, end: int) -> str:
        if not self.hashing:
            return self._shown().digest(receipt, start, end)
        chain = self._chains.get(receipt.attempt)
        if chain is None or chain.covers != (receipt.request.digest, start, end):
            raise MalformedError("the gateway said that other attempts sent it")
        return chain.running.so_far()

    def said(self, before: int) -> str:
        if not self.hashing:
            return self._shown().said(before)
        starting = [chain.said for chain in self._chains.values() if chain.start == before]
        return starting[-1] if starting else ""

    def _keep(self, data: bytes) -> None:
        if self.overflowed or len(self._kept) + len(data) > RESPONSE_BYTES_MAX:
            self.overflowed = True
            self._kept = bytearray()
        else:
            self._kept += data

    def _shown(self) -> WholeResponse:
        return WholeResponse(bytes(self._kept))

    def _checked(self) -> int:
        if self._problem is not None:
            raise self._problem
        return self._count

    def _read(self, data: bytes, feed: "_Feed") -> None:
        if not self._count and not self._chains and self._kept[:1] == b"{":
            self._reading = False
            return
        try:
            for event in feed(data):
                self._take(event)
        except MalformedError as error:
            self._problem = error

    def _take(self, event: sse.SseEvent) -> None:
        if not self._reading:
            return
        told = event.fields.get("chain")
        if told is not None:
            self._begin(told)
        if self._newest is None:
            # A gateway that says nothing of chains.
            self._reading = False
            return
        message = event.data or b""
        self._newest.running.update(message)
        self._text.add(message)
        self._count += 1
        self._remember(message)

    def _begin(self, told: bytes) -> None:
        match = _CHAIN.fullmatch(told)
        if match is None or len(self._chains) >= CHAINS_MAX:
            raise MalformedError("the gateway's word on who sent it can not be read")
        attempt, request, back = match[1].decode(), match[2].decode(), int(match[3])
        if attempt in self._chains or back > len(self._recent):
            raise MalformedError("the gateway's word on who sent it makes no sense")
        running = StreamDigest(bound_bytes(request), attempt)
        for message in list(self._recent)[len(self._recent) - back :]:
            running.update(message)
        self._newest = self._chains[attempt] = _Chain(
            request=request,
            start=self._count - back,
            said="" if back else self._text.digest(),
            running=running,
        )
        # From here on nothing of it is kept.
        self._kept = bytearray()
        self.overflowed = False

    def _remember(self, message: bytes) -> None:
        recent = self._recent
        if len(recent) == REPEATED_MAX:
            self._recent_bytes -= len(recent.popleft())
        recent.append(message)
        self._recent_bytes += len(message)
        while self._recent_bytes > REPEATED_BYTES_MAX:
            self._recent_bytes -= len(recent.popleft())


class _Text:
    """The digest of the text that messages say, as :func:`~trunkline.receipts.prefix_digest`."""

    __slots__ = ("_hash",)

    def __init__(self) -> None:
        self._hash: _Hash | None = sha256(PREFIX_DOMAIN)

    def add(self, message: bytes) -> None:
        if self._hash is None:
            return
        try:
            said = [choice.delta.content or "" for choice in parse_chunk(message).choices]
            self._hash.update("".join(said).encode())
        except (Error, ValueError):
            self._hash = None

    def digest(self) -> str:
        return "" if self._hash is None else "sha256:" + self._hash.hexdigest()


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


class _Feed(Protocol):
    def __call__(self, data: bytes, /) -> list[sse.SseEvent]: ...
