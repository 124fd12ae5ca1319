"""What the node and an engine's child process say to each other.

A frame is a length (32 bits, little-endian) and that many bytes of msgpack: one of the structs
below, told apart by its tag. Both ends are ours, but each bounds what it reads: a length beyond the
limit is a broken peer, not a reason to allocate.
"""

import socket
import struct

import msgspec

from trunkline.base.errors import (
    Error,
    MalformedError,
    OverloadedError,
    RequestError,
    UpstreamError,
)
from trunkline.inference.ports import Generate, ModelInfo, Score, Token, TokenScore

FRAME_BYTES_MAX = 64 << 20
"""Above any legal frame: the longest text to tokenise, or a large vocabulary's pieces."""

_LENGTH = struct.Struct("<I")
LENGTH_BYTES = _LENGTH.size


class EngineSetup(msgspec.Struct, frozen=True, kw_only=True, tag="engine_setup"):
    """First frame to an engine's process: what to load, and how."""

    model_name: str
    model_path: str
    cache_folder: str
    weights: str
    sequences: int
    context_tokens: int
    threads: int
    compute: str


class Start(msgspec.Struct, frozen=True, kw_only=True, tag="start"):
    id: int
    job: Generate


class StartScore(msgspec.Struct, frozen=True, kw_only=True, tag="start_score"):
    id: int
    job: Score


class TestSelf(msgspec.Struct, frozen=True, kw_only=True, tag="test_self"):
    id: int


class Cancel(msgspec.Struct, frozen=True, kw_only=True, tag="cancel"):
    id: int


class Tokenize(msgspec.Struct, frozen=True, kw_only=True, tag="tokenize"):
    id: int
    text: str
    parse_special: bool


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """First frame from an engine's process that loaded its model."""

    model: ModelInfo
    pieces: list[bytes]


class Step(msgspec.Struct, frozen=True, kw_only=True, tag="step"):
    """One round of the engine's loop. Sent even when it yielded nothing: it shows progress."""

    events: list[tuple[int, list[Token]]]
    scores: list[tuple[int, list[TokenScore]]] = []


class Tokenized(msgspec.Struct, frozen=True, kw_only=True, tag="tokenized"):
    id: int
    tokens: tuple[int, ...]


class SelfTested(msgspec.Struct, frozen=True, kw_only=True, tag="self_tested"):
    id: int
    digest: str


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """Something could not be done. ``id`` 0: the process could not start at all."""

    id: int
    kind: str
    code: str
    message: str
    param: str | None = None


class EmbedderSetup(msgspec.Struct, frozen=True, kw_only=True, tag="embedder_setup"):
    threads: int


class EmbedderReady(msgspec.Struct, frozen=True, kw_only=True, tag="embedder_ready"):
    dimensions: int
    weights: str
    numerics: str


class Embed(msgspec.Struct, frozen=True, kw_only=True, tag="embed"):
    id: int
    texts: list[str]
    query: bool


class Vectors(msgspec.Struct, frozen=True, kw_only=True, tag="vectors"):
    id: int
    vectors: list[bytes]
    tokens: int


ToEngine = EngineSetup | Start | StartScore | TestSelf | Cancel | Tokenize
FromEngine = Ready | Step | Tokenized | SelfTested | Failed
ToEmbedder = EmbedderSetup | Embed
FromEmbedder = EmbedderReady | Vectors | Failed
ToChild = ToEngine | ToEmbedder
FromChild = FromEngine | FromEmbedder

_ENCODER = msgspec.msgpack.Encoder()


def failure(id_: int, error: Error) -> Failed:
    """``error`` as a frame; ``raised`` is its inverse, up to the error's subclass."""
    match error:
        case RequestError():
            return Failed(
                id=id_,
                kind="request",
                code=error.error_code,
                message=error.message,
                param=error.param,
            )
        case OverloadedError():
            return Failed(id=id_, kind="overloaded", code=error.error_code, message=error.message)
        case UpstreamError():
            return Failed(id=id_, kind="upstream", code=error.error_code, message=error.message)
        case _:
            return Failed(id=id_, kind="config", code=error.error_code, message=error.message)


def raised(failed: Failed) -> Error:
    """The error that a ``Failed`` for one job stands for."""
    match failed.kind:
        case "request":
            return RequestError(failed.message, code=failed.code, param=failed.param)
        case "overloaded":
            return OverloadedError(failed.message, code=failed.code)
        case _:
            return UpstreamError(failed.message, code=failed.code)


def encode(message: ToChild | FromChild) -> bytes:
    """``message`` as a whole frame, length included."""
    body = _ENCODER.encode(message)
    if len(body) > FRAME_BYTES_MAX:
        raise MalformedError(f"a frame of {len(body)} bytes; at most {FRAME_BYTES_MAX}")
    return _LENGTH.pack(len(body)) + body


def body_length(prefix: bytes) -> int:
    """The length that a frame's first ``LENGTH_BYTES`` announce. Raises ``MalformedError``."""
    (length,) = _LENGTH.unpack(prefix)
    if length > FRAME_BYTES_MAX:
        raise MalformedError(f"a frame of {length} bytes; at most {FRAME_BYTES_MAX}")
    return int(length)


class FrameSocket:
    """The child's end: a blocking stream socket, read without blocking while there is work."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray()

    def send(self, message: FromChild) -> None:
        self._socket.sendall(encode(message))

    def receive(self, *, block: bool) -> list[bytes] | None:
        """Bodies of the whole frames at hand; waits for one if ``block``. ``None`` at the end.

        Raises ``MalformedError`` for an impossible length.
        """
        bodies: list[bytes] = []
        while True:
            try:
                flags = 0 if block and not bodies else socket.MSG_DONTWAIT
                piece = self._socket.recv(1 << 18, flags)
            except BlockingIOError:
                return bodies
            except ConnectionError:
                return None
            if not piece:
                return None
            self._buffer += piece
            while len(self._buffer) >= LENGTH_BYTES:
                end = LENGTH_BYTES + body_length(bytes(self._buffer[:LENGTH_BYTES]))
                if len(self._buffer) < end:
                    break
                bodies.append(bytes(self._buffer[LENGTH_BYTES:end]))
                del self._buffer[:end]
