"""Evidence: any bytes give a report, and no changed file passes."""

import json
from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from trunkline.evidence import EvidenceKey, EvidencePart, decode, encode, verify

VECTORS = Path(__file__).parents[2] / "docs" / "spec" / "evidence-vectors.json"
DOCUMENT = json.loads(VECTORS.read_text())
POLICY = DOCUMENT["policy"]
KEYS = tuple(EvidenceKey(**key) for key in DOCUMENT["trusted_keys"])
CASES = {case["name"]: case["evidence"].encode() for case in DOCUMENT["cases"]}


def outcome(data: bytes) -> str:
    return verify(data, policy=POLICY, trusted_keys=KEYS).outcome


@given(st.binary() | st.recursive(st.text() | st.integers(), st.lists).map(msgspec.json.encode))
def test_any_bytes_give_a_report(data: bytes) -> None:
    assert outcome(data) == "fail"


@given(st.sampled_from(sorted(CASES)), st.integers(0), st.integers(1, 255))
def test_no_changed_byte_makes_a_file_better(name: str, at: int, by: int) -> None:
    """A flip ends in a report, and never turns what did not pass into a pass."""
    data = bytearray(CASES[name])
    data[at % len(data)] ^= by
    before = outcome(CASES[name])
    assert before == "pass" or outcome(bytes(data)) != "pass"


@given(
    st.sampled_from(["final", "final_with_bodies", "resumed"]),
    st.sampled_from(["receipt", "batch", "path", "proof", "chunks", "request", "answer"]),
    st.integers(0),
    st.integers(1, 255),
)
def test_a_flipped_bit_breaks_evidence(name: str, member: str, at: int, by: int) -> None:
    file = decode(CASES[name])
    part = file.parts[0]
    changed = change(part, member, at, by)
    if member == "answer":
        file = msgspec.structs.replace(file, answer=file.answer + "x")
    elif changed is None or changed == part:
        return
    else:
        file = msgspec.structs.replace(file, parts=(changed,))
    assert outcome(encode(file)) != "pass"


def change(part: EvidencePart, member: str, at: int, by: int) -> EvidencePart | None:
    """``part`` with one byte of ``member`` changed; ``None`` where that leaves no text."""
    replace, signed, bodies = msgspec.structs.replace, part.signed, part.bodies
    try:
        match member:
            case "receipt":
                return replace(part, signed=replace(signed, receipt=flip(signed.receipt, at, by)))
            case "batch":
                return replace(part, signed=replace(signed, batch=flip(signed.batch, at, by)))
            case "path":
                path = (flip(signed.path[0], at, by), *signed.path[1:])
                return replace(part, signed=replace(signed, path=path))
            case "proof" if part.proof:
                return replace(part, proof=flip(part.proof, at, by))
            case "chunks" if bodies:
                chunks = (flip(bodies.chunks[0], at, by), *bodies.chunks[1:])
                return replace(part, bodies=replace(bodies, chunks=chunks))
            case "request" if bodies:
                raw = flip_bytes(bodies.request, at, by)
                return replace(part, bodies=replace(bodies, request=raw))
            case _:
                return None
    except UnicodeDecodeError:
        return None


def flip_bytes(data: bytes, at: int, by: int) -> bytes:
    raw = bytearray(data)
    raw[at % len(raw)] ^= by
    return bytes(raw)


def flip(text: str, at: int, by: int) -> str:
    return flip_bytes(text.encode(), at, by).decode()
