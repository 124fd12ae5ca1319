"""AWS's published shapes of the Converse API, its event stream encoding, and a scripted account.

No vendor can be reached from where this is built. What stands in for one here is made of what AWS
publishes: the service model of ``bedrock-runtime`` (``tests/unit/schema/bedrock_shapes.json``), and
the encoding's specification.
"""

import json
import re
import struct
from pathlib import Path
from typing import Any
from zlib import crc32

SHAPES: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "unit/schema/bedrock_shapes.json").read_text(encoding="utf-8")
)["shapes"]


def check(value: Any, shape: str, at: str = "") -> None:
    """Assert that a JSON value is what the service model calls ``shape``."""
    known = SHAPES[shape]
    if "any" in known:
        return
    if "members" in known:
        assert isinstance(value, dict), at
        assert not value.keys() - known["members"].keys(), (at, value.keys())
        assert not set(known.get("required", ())) - value.keys(), (at, value.keys())
        assert not known.get("union") or len(value) == 1, at
        for name, member in value.items():
            check(member, known["members"][name], f"{at}.{name}")
    elif "list" in known:
        assert isinstance(value, list), at
        for item in value:
            check(item, known["list"], f"{at}[]")
    else:
        _check_scalar(value, known, at)


def _check_scalar(value: Any, known: dict[str, Any], at: str) -> None:
    kinds = {"boolean": bool, "integer": int, "long": int, "float": (int, float)}
    assert isinstance(value, kinds.get(known["type"], str)), at
    size = len(value) if isinstance(value, str) else value
    assert known.get("min", size) <= size <= known.get("max", size), at
    assert value in known.get("enum", (value,)), at
    if "pattern" in known and isinstance(value, str):
        assert re.fullmatch(known["pattern"], value), at


def message(payload: bytes, **headers: str) -> bytes:
    """One message of the event stream; underscores of names stand for dashes."""
    encoded = b""
    for name, value in headers.items():
        told, data = b":" + name.replace("_", "-").encode(), value.encode()
        encoded += bytes((len(told),)) + told + b"\x07" + struct.pack(">H", len(data)) + data
    return frame(encoded, payload)


def frame(headers: bytes, payload: bytes) -> bytes:
    """Encoded headers and a payload between prelude and checksum."""
    start = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    start += struct.pack(">I", crc32(start))
    body = start + headers + payload
    return body + struct.pack(">I", crc32(body))


def event(event: dict[str, Any]) -> bytes:
    """A member of ``ConverseStreamOutput`` as its message."""
    check(event, "ConverseStreamOutput")
    ((name, payload),) = event.items()
    return message(
        json.dumps(payload).encode(),
        event_type=name,
        content_type="application/json",
        message_type="event",
    )


def exception(name: str) -> bytes:
    """An exception in the stream."""
    return message(b'{"message":"a secret"}', exception_type=name, message_type="exception")


def events(text: list[str], stop: str = "end_turn") -> list[dict[str, Any]]:
    """A stream that says ``text``, block 0, and counts its tokens."""
    deltas = [{"contentBlockDelta": {"delta": {"text": t}, "contentBlockIndex": 0}} for t in text]
    return [
        {"messageStart": {"role": "assistant"}},
        *deltas,
        {"contentBlockStop": {"contentBlockIndex": 0}},
        {"messageStop": {"stopReason": stop}},
        {"metadata": {"usage": USAGE, "metrics": {"latencyMs": 12}}},
    ]


USAGE = {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}
