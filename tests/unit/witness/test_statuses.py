"""Every status of C2SP tlog-witness, with its body and type, and which one wins where two apply."""

from base64 import b64encode

import pytest

from trunkline.crypto import merkle, note
from trunkline.crypto.signer import Signer
from trunkline.remote.http1 import HttpTransport
from trunkline.runtime.clock import SystemClock
from trunkline.runtime.logger import get_logger
from trunkline.runtime.server import serving
from trunkline.tlog.checkpoint import Checkpoint
from trunkline.witness.app import WitnessService, create_store
from trunkline.witness.config import WitnessConfig, WitnessedLog

LOG = Signer.generate("gamma.example/log", b"\x01" * 32)
UNKNOWN = Signer.generate("other.example/log", b"\x02" * 32)
WITNESS = Signer.generate("delta.example/witness", b"\x03" * 32)
LEAVES = [merkle.leaf_hash(b"%d" % i) for i in range(20)]
FORK = [merkle.leaf_hash(b"fork %d" % i) for i in range(20)]
SEEN = 5
"""Size that the witness has cosigned before each case."""
ANY = None


def checkpoint(size, leaves=LEAVES, *, origin=LOG.name, by=LOG, root=None, extension=()):
    tree = Checkpoint(
        origin=origin,
        size=size,
        root=merkle.root(leaves[:size]) if root is None else root,
        extensions=extension,
    )
    return note.format(tree.text(), (by.signature(tree.text()),))


def body(old, signed, proof=()):
    lines = "".join(b64encode(item).decode() + "\n" for item in proof)
    return f"old {old}\n{lines}\n".encode() + signed


def proof(old, size, leaves=LEAVES):
    return merkle.consistency_proof(leaves[:size], old)


GOOD = body(SEEN, checkpoint(8), proof(SEEN, 8))
FORGED = checkpoint(8).replace(b"\n8\n", b"\n9\n")
UNSIGNED = note.format(
    note.parse(checkpoint(8)).text,
    (note.NoteSignature(name="x", key_id=1, signature=b"12345"),),
)
BOTH_BAD = note.format(
    note.parse(checkpoint(8)).text, (LOG.signature(b"other\n"), LOG.signature(b"more\n"))
)
GOOD_AND_BAD = note.format(
    note.parse(checkpoint(8)).text,
    (*note.parse(checkpoint(8)).signatures, LOG.signature(b"other\n")),
)

CASES = {
    "200": (GOOD, 200, ANY),
    "200 the same again": (body(SEEN, checkpoint(SEEN)), 200, ANY),
    "200 with extension lines": (
        body(SEEN, checkpoint(8, extension=("one", "two")), proof(SEEN, 8)), 200, ANY,
    ),
    "200 with a stranger's line": (
        GOOD + UNKNOWN.signature(b"whatever\n").line(), 200, ANY,
    ),
    "400 empty": (b"", 400, ANY),
    "400 no old line": (GOOD.partition(b"\n")[2], 400, ANY),
    "400 old is negative": (GOOD.replace(b"old 5", b"old -5"), 400, ANY),
    "400 old with a leading zero": (GOOD.replace(b"old 5", b"old 05"), 400, ANY),
    "400 old is no number": (GOOD.replace(b"old 5", b"old five"), 400, ANY),
    "400 two spaces": (GOOD.replace(b"old 5", b"old  5"), 400, ANY),
    "400 old beyond 2^63": (GOOD.replace(b"old 5", b"old 9223372036854775808"), 400, ANY),
    "400 a proof line that is no hash": (GOOD.replace(b"old 5\n", b"old 5\nAAAA\n"), 400, ANY),
    "400 a proof line that is no base64": (GOOD.replace(b"old 5\n", b"old 5\n!\n"), 400, ANY),
    "400 64 proof lines": (body(SEEN, checkpoint(8), [bytes(32)] * 64), 400, ANY),
    "400 no empty line": (GOOD.replace(b"\n\n", b"\n", 1), 400, ANY),
    "400 carriage returns": (GOOD.replace(b"\n", b"\r\n"), 400, ANY),
    "400 no signature": (body(SEEN, note.parse(checkpoint(8)).text), 400, ANY),
    "400 cut": (GOOD[:-1], 400, ANY),
    "400 size beyond 2^63": (GOOD.replace(b"\n8\n", b"\n9223372036854775808\n"), 400, ANY),
    "400 a short root": (
        GOOD.replace(b64encode(merkle.root(LEAVES[:8])), b64encode(bytes(31))), 400, ANY,
    ),
    "400 not UTF-8": (GOOD.replace(b"gamma", b"\xff\xfe"), 400, ANY),
    "400 old beyond the checkpoint": (body(9, checkpoint(8)), 400, ANY),
    "403 nobody known signed": (body(SEEN, UNSIGNED, proof(SEEN, 8)), 403, ANY),
    "403 forged": (body(SEEN, FORGED, proof(SEEN, 8)), 403, ANY),
    "403 another key of that name": (
        body(
            SEEN, checkpoint(8, by=Signer.generate(LOG.name, b"\x09" * 32)), proof(SEEN, 8)
        ), 403, ANY,
    ),
    "403 bad lines": (body(SEEN, BOTH_BAD, proof(SEEN, 8)), 403, ANY),
    "403 a good line and a bad one": (body(SEEN, GOOD_AND_BAD, proof(SEEN, 8)), 403, ANY),
    "403 before 400 for sizes": (body(12, FORGED), 403, ANY),
    "403 before 409": (body(3, FORGED, proof(3, 8)), 403, ANY),
    "404 another origin": (
        body(SEEN, checkpoint(8, origin=UNKNOWN.name, by=UNKNOWN), proof(SEEN, 8)), 404, ANY,
    ),
    "404 before 403": (body(SEEN, checkpoint(8, origin=UNKNOWN.name), proof(SEEN, 8)), 404, ANY),
    "409 from zero": (body(0, checkpoint(8)), 409, b"5\n"),
    "409 from a smaller size": (body(4, checkpoint(8), proof(4, 8)), 409, b"5\n"),
    "409 from a larger size": (body(6, checkpoint(8), proof(6, 8)), 409, b"5\n"),
    "409 an older checkpoint": (body(3, checkpoint(3)), 409, b"5\n"),
    "409 before 422": (body(0, checkpoint(8, FORK), [bytes(32)]), 409, b"5\n"),
    "413": (body(SEEN, b"x" * 1_100_000), 413, ANY),
    "422 another history": (body(SEEN, checkpoint(8, FORK), proof(SEEN, 8, FORK)), 422, ANY),
    "422 no proof": (body(SEEN, checkpoint(8)), 422, ANY),
    "422 too long a proof": (
        body(SEEN, checkpoint(8), [*proof(SEEN, 8), bytes(32)]), 422, ANY,
    ),
    "422 63 proof lines": (body(SEEN, checkpoint(8), [bytes(32)] * 63), 422, ANY),
    "422 the same size, another root": (body(SEEN, checkpoint(SEEN, FORK)), 422, ANY),
    "422 the same size, with a proof": (body(SEEN, checkpoint(SEEN), [bytes(32)]), 422, ANY),
}  # fmt: skip

FIRST_CASES = {
    "200 the empty tree": (body(0, checkpoint(0)), 200, ANY),
    "200 from zero": (body(0, checkpoint(8)), 200, ANY),
    "409 says zero": (body(3, checkpoint(8), proof(3, 8)), 409, b"0\n"),
    "422 the empty tree with a root": (body(0, checkpoint(0, root=bytes(32))), 422, ANY),
    "422 a proof from zero": (body(0, checkpoint(8), [bytes(32)]), 422, ANY),
}


async def ask(path, *bodies):
    """The answers to some requests by a new witness."""
    create_store(path)
    service = WitnessService(
        config=WitnessConfig(name=WITNESS.name, logs=(WitnessedLog(vkey=str(LOG.vkey)),)),
        data=path,
        signer=WITNESS,
        clock=SystemClock(),
        logger=get_logger("witness"),
    )
    transport, found = HttpTransport(), []
    async with serving(service) as url:
        for sent in bodies:
            async with await transport.request(
                "POST", url + "/add-checkpoint", body=sent
            ) as response:
                read = await response.read(100_000)
                found.append((response.status, response.header("content-type"), read))
    await transport.aclose()
    return found


def check(answer, status, expected):
    found, kind, read = answer
    assert found == status, read
    if status == 409:
        assert (kind, read) == ("text/x.tlog.size", expected)
    if status == 200:
        lines = note.parse_signatures(read)
        assert [line.is_by(WITNESS.cosigner_vkey) for line in lines] == [True]
        assert int.from_bytes(lines[0].signature[:8], "big") > 1_700_000_000


@pytest.mark.parametrize("name", CASES)
async def test_after_a_first_checkpoint(tmp_path, name):
    sent, status, expected = CASES[name]
    first, answer, again = await ask(tmp_path, body(0, checkpoint(SEEN)), sent, GOOD)
    assert first[0] == 200
    check(answer, status, expected)
    # What was refused changed nothing.
    size = b"8\n" if status == 200 and name != "200 the same again" else b"5\n"
    check(again, 409 if size == b"8\n" else 200, size)


@pytest.mark.parametrize("name", FIRST_CASES)
async def test_the_first_checkpoint(tmp_path, name):
    sent, status, expected = FIRST_CASES[name]
    (answer,) = await ask(tmp_path, sent)
    check(answer, status, expected)


async def test_other_methods_and_paths(tmp_path):
    create_store(tmp_path)
    service = WitnessService(
        config=WitnessConfig(name=WITNESS.name, logs=(WitnessedLog(vkey=str(LOG.vkey)),)),
        data=tmp_path,
        signer=WITNESS,
        clock=SystemClock(),
        logger=get_logger("witness"),
    )
    transport = HttpTransport()
    async with serving(service) as url:
        for method, path, status in (
            ("GET", "/add-checkpoint", 405),
            ("POST", "/sign-subtree", 404),
            ("GET", f"/{'a' * 64}/checkpoint", 404),
        ):
            async with await transport.request(method, url + path) as response:
                assert response.status == status, path
    await transport.aclose()
