"""Every byte that is bound is held: flip any one, and the evidence does not pass.

Over request, response, salts, receipt, batch, path, proof and the operator's statement, each byte
in turn. And over streams: cut, reordered, spliced, ended twice.
"""

from collections.abc import Iterator

import msgspec
import pytest
from tests.unit.evidence import make_vectors as made

from trunkline.evidence import Evidence, EvidencePart, Outcome, encode, verify
from trunkline.receipts import ITEMS
from trunkline.schema.attempt import SignedReceipt

change = msgspec.structs.replace

STREAM = b"".join(b"data: %s\n\n" % chunk for chunk in made.CHUNKS)
DONE = b"data: [DONE]\n\n"


def part() -> EvidencePart:
    """A salted receipt with all that opens it, in the log."""
    return made.opened(made.bodies(), *ITEMS)


def outcome(
    changed: EvidencePart,
    *,
    said: str | None = None,
    request: bytes | None = made.CLIENT_REQUEST,
    response: bytes | None = STREAM + DONE,
) -> Outcome:
    """Under the operator's key alone, which vouches for the node's."""
    statement = made.key_statement() if said is None else said
    file: Evidence = change(made.evidence(changed), keys=(made.operator(statement),))
    report = verify(
        encode(file),
        policy=made.POLICY,
        trusted_keys=[made.operator()],
        request=request,
        response=response,
    )
    return report.outcome


def flips(data: bytes) -> Iterator[bytes]:
    """``data`` with a bit flipped, for each of its bytes."""
    for at in range(len(data)):
        yield data[:at] + bytes([data[at] ^ (1 << at % 7)]) + data[at + 1 :]


def text_flips(text: str) -> Iterator[str]:
    """The same for text: the lowest bit of each byte whose flip leaves text, and what it leaves."""
    data = text.encode()
    for at, byte in enumerate(data):
        for bit in range(8):
            flipped = data[:at] + bytes([byte ^ (1 << bit)]) + data[at + 1 :]
            try:
                yield flipped.decode()
            except UnicodeDecodeError:
                continue
            break
        else:
            pytest.fail(f"byte {at} can not be flipped")


def signed_flips(member: str) -> Iterator[EvidencePart]:
    whole = part()
    for text in text_flips(getattr(whole.signed, member)):
        yield change(whole, signed=change(whole.signed, **{member: text}))


def path_flips() -> Iterator[EvidencePart]:
    whole = part()
    path = whole.signed.path
    for at, hash_ in enumerate(path):
        for text in text_flips(hash_):
            signed: SignedReceipt = change(whole.signed, path=(*path[:at], text, *path[at + 1 :]))
            yield change(whole, signed=signed)


def proof_flips() -> Iterator[EvidencePart]:
    whole = part()
    assert whole.proof is not None
    for text in text_flips(whole.proof):
        yield change(whole, proof=text)


def body_flips() -> Iterator[EvidencePart]:
    whole, bodies = part(), made.bodies()
    assert bodies.chunks is not None
    for member in ("request", "client_request"):
        for data in flips(getattr(bodies, member)):
            yield change(whole, bodies=change(bodies, **{member: data}))
    for at, chunk in enumerate(bodies.chunks):
        for text in text_flips(chunk):
            chunks = (*bodies.chunks[:at], text, *bodies.chunks[at + 1 :])
            yield change(whole, bodies=change(bodies, chunks=chunks))


def salt_flips() -> Iterator[EvidencePart]:
    whole = part()
    for item in ("request.client", "request.digest", "response.digest"):
        for salt in flips(bytes.fromhex(whole.salts[item])):
            yield change(whole, salts=whole.salts | {item: salt.hex()})


def test_what_is_flipped_passes_before() -> None:
    assert outcome(part()) == "pass"


@pytest.mark.parametrize("member", ["receipt", "batch"])
def test_every_byte_of_receipt_and_batch(member: str) -> None:
    assert {outcome(changed) for changed in signed_flips(member)} == {"fail"}


def test_every_byte_of_the_path() -> None:
    assert {outcome(changed) for changed in path_flips()} == {"fail"}


def test_every_byte_of_the_proof() -> None:
    """A witness's line that names another key is no cosignature: the quorum is not reached."""
    assert {outcome(changed) for changed in proof_flips()} <= {"fail", "inconclusive"}


def test_every_byte_of_kept_bodies_and_salts() -> None:
    assert {outcome(changed) for changed in (*body_flips(), *salt_flips())} == {"fail"}


def test_every_byte_of_the_readers_request_and_response() -> None:
    """But for what no event's data is: a stream's own syntax, which may be spelt in other ways."""
    whole = change(part(), bodies=None)
    for request in flips(made.CLIENT_REQUEST):
        assert outcome(whole, request=request) == "fail"
    data = {at for at in range(len(STREAM)) if STREAM[: at + 1].rsplit(b"\n", 1)[-1][6:]}
    for at, response in enumerate(flips(STREAM)):
        if at in data:
            assert outcome(whole, response=response + DONE) != "pass", at


def test_every_byte_of_the_operators_statement() -> None:
    for said in text_flips(made.key_statement()):
        assert outcome(part(), said=said) != "pass"


def chunks_of(*chunks: bytes) -> EvidencePart:
    return change(part(), bodies=made.bodies(chunks))


def stream_of(*chunks: bytes, end: bytes = DONE) -> bytes:
    return b"".join(b"data: %s\n\n" % chunk for chunk in chunks) + end


@pytest.mark.parametrize("kept", range(len(made.CHUNKS)))
def test_a_truncated_stream_fails(kept: int) -> None:
    shown = made.CHUNKS[:kept]
    assert outcome(chunks_of(*shown)) == "fail"
    assert outcome(part(), response=stream_of(*shown)) == "fail"


def test_a_reordered_stream_fails() -> None:
    for at in range(len(made.CHUNKS) - 1):
        shown = list(made.CHUNKS)
        shown[at], shown[at + 1] = shown[at + 1], shown[at]
        assert outcome(chunks_of(*shown)) == "fail"
        assert outcome(part(), response=stream_of(*shown)) == "fail"


def test_two_answers_spliced_into_one_fail() -> None:
    """The beginning of this answer, the end of another attempt at the same request."""
    other = made.salted(made.ALPHA, "att_2")
    assert other.response.digest != made.salted().response.digest
    for at in range(1, len(made.CHUNKS)):
        shown = (*made.CHUNKS[:at], *(b'{"m":%d}' % n for n in range(at, len(made.CHUNKS))))
        assert outcome(chunks_of(*shown)) == "fail"
        assert outcome(part(), response=stream_of(*shown)) == "fail"


def test_another_attempts_equal_chunks_are_another_stream() -> None:
    """Word for word the same, from another attempt: its receipt does not cover this one."""
    stolen = change(
        made.salted(),
        response=change(
            made.salted().response, digest=made.salted(attempt="att_2").response.digest
        ),
    )
    moved = change(made.part(stolen, kept=made.bodies()), salts=part().salts)
    assert outcome(moved) == "fail"


def test_a_stream_that_ends_twice_fails() -> None:
    last = made.CHUNKS[-1]
    assert outcome(chunks_of(*made.CHUNKS, last)) == "fail"
    assert outcome(part(), response=stream_of(*made.CHUNKS, last)) == "fail"
    # A second end of the transport's is none of the answer's.
    assert outcome(part(), response=stream_of(*made.CHUNKS, end=DONE + DONE)) == "pass"
    assert outcome(part(), response=stream_of(*made.CHUNKS) + stream_of(last)) == "fail"


def test_what_a_client_shows_is_what_is_compared() -> None:
    """OpenAI's client hands on events of any name, and stops reading at the end marker."""
    *first, last = made.CHUNKS
    named = b"event: note\ndata: %s\n\n" % last
    assert outcome(part(), response=named + stream_of(*made.CHUNKS)) == "fail"
    assert outcome(part(), response=stream_of(*first, end=DONE) + stream_of(last)) == "fail"
    silent = b": a sign of life\n\nevent: note\n\n"
    assert outcome(part(), response=silent + stream_of(*made.CHUNKS)) == "pass"
