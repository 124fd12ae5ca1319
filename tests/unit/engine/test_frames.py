"""Frames between node and child: whole whatever the cuts, bounded, and errors keep their kind."""

import socket
import struct

import msgspec
import pytest

from trunkline.base.errors import (
    ConfigError,
    Error,
    MalformedError,
    OverloadedError,
    RequestError,
    UpstreamError,
)
from trunkline.engine.frames import (
    FRAME_BYTES_MAX,
    Cancel,
    FrameSocket,
    FromChild,
    Step,
    ToChild,
    body_length,
    encode,
    failure,
    raised,
)
from trunkline.inference.ports import Token, TokenLogprob


def test_a_frame_survives_any_cut() -> None:
    ours, its = socket.socketpair()
    with ours, its:
        receiver = FrameSocket(its)
        raw = encode(Cancel(id=7)) + encode(Cancel(id=8))
        bodies = []
        for at in range(len(raw)):
            ours.send(raw[at : at + 1])
            received = receiver.receive(block=False)
            assert received is not None
            bodies += received
        decoder = msgspec.msgpack.Decoder(ToChild)
        assert [decoder.decode(body) for body in bodies] == [Cancel(id=7), Cancel(id=8)]
        assert receiver.receive(block=False) == []
        ours.close()
        assert receiver.receive(block=True) is None


def test_frames_sent_are_frames_read() -> None:
    ours, its = socket.socketpair()
    with ours, its:
        token = Token(
            token=5,
            position=1,
            logprob=-0.1,
            top=(TokenLogprob(token=5, logprob=-0.1),),
            finish="stop",
        )
        step = Step(events=[(3, [token])])
        FrameSocket(its).send(step)
        bodies = FrameSocket(ours).receive(block=True)
        assert bodies is not None
        assert msgspec.msgpack.Decoder(FromChild).decode(bodies[0]) == step


def test_an_impossible_length_is_refused_before_it_is_read() -> None:
    with pytest.raises(MalformedError):
        body_length(struct.pack("<I", FRAME_BYTES_MAX + 1))
    ours, its = socket.socketpair()
    with ours, its:
        ours.send(b"\xff" * 8)
        with pytest.raises(MalformedError):
            FrameSocket(its).receive(block=True)


@pytest.mark.parametrize(
    "error",
    [
        RequestError("no", code="invalid_grammar", param="grammar"),
        OverloadedError("full", code="engine_queue_full"),
        UpstreamError("broken", code="engine_fault"),
    ],
)
def test_errors_keep_kind_and_code(error: Error) -> None:
    again = raised(failure(1, error))
    assert type(again) is type(error)
    assert (again.error_code, again.message) == (error.error_code, error.message)
    assert getattr(again, "param", None) == getattr(error, "param", None)


def test_an_unexpected_error_of_a_job_is_an_upstream_error() -> None:
    assert isinstance(raised(failure(1, ConfigError("?"))), UpstreamError)
