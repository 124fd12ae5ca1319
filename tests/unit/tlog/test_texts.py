"""Checkpoints, cosignatures, proofs and requests: the specifications' examples, and refusals."""

import pytest

from trunkline.base.errors import (
    InclusionError,
    MalformedError,
    QuorumError,
    SignatureError,
)
from trunkline.crypto import cosigned, merkle, note
from trunkline.crypto.keys import VerifierKey
from trunkline.crypto.signer import Signer, sign_note
from trunkline.tlog import cosignature, proof
from trunkline.tlog.add_checkpoint import parse_add_checkpoint, parse_size
from trunkline.tlog.checkpoint import Checkpoint, open_checkpoint
from trunkline.tlog.policy import Policy

LOG = Signer.generate("gamma.example/log", b"\x01" * 32)
WITNESS = Signer.generate("delta.example/witness", b"\x02" * 32)

# The body of the example in C2SP tlog-checkpoint.
EXAMPLE = b"example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
# The request in the example of C2SP tlog-witness, without its signatures.
REQUEST = (
    b"old 20852014\n"
    b"PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n"
    b"jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=\n"
    b"5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=\n"
    b"/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=\n"
    b"\n" + EXAMPLE
)


def test_the_checkpoint_of_the_specification():
    checkpoint = Checkpoint.parse(EXAMPLE)
    assert checkpoint.origin == "example.com/behind-the-sofa"
    assert checkpoint.size == 20852163
    assert checkpoint.text() == EXAMPLE


def test_the_request_of_the_specification():
    request = parse_add_checkpoint(REQUEST)
    assert (request.old_size, len(request.proof)) == (20852014, 4)
    assert request.checkpoint_note == EXAMPLE
    assert request.body() == REQUEST


@pytest.mark.parametrize(
    "body",
    [
        b"",
        EXAMPLE,
        REQUEST.replace(b"old 2", b"old 02"),
        REQUEST.replace(b"old ", b"new "),
        REQUEST.replace(b"PlRN", b""),
        b"old 1\n" + b"PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n" * 64 + b"\n" + EXAMPLE,
        b"old 1\n\n" + b"x" * 1_010_000,
    ],
    ids=range(7),
)
def test_what_is_not_a_request(body):
    with pytest.raises(MalformedError):
        parse_add_checkpoint(body)


def test_a_conflicts_size():
    assert parse_size(b"20852014\n") == 20852014
    for body in (b"", b"5", b"05\n", b"-1\n", b"9" * 30 + b"\n"):
        with pytest.raises(MalformedError):
            parse_size(body)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"origin\n1\n",
        EXAMPLE[:-1],
        EXAMPLE + b"\n",
        EXAMPLE.replace(b"2085", b"02085"),
        EXAMPLE.replace(b"20852163", b"9223372036854775808"),
        EXAMPLE.replace(b"20852163", b"+1"),
        EXAMPLE.replace(b"q2I=", b""),
        b"\n" + EXAMPLE,
        EXAMPLE + b"x" * 70_000 + b"\n",
    ],
    ids=range(10),
)
def test_what_is_not_a_checkpoint(text):
    with pytest.raises(MalformedError):
        Checkpoint.parse(text)


@pytest.mark.parametrize(
    "checkpoint",
    [
        Checkpoint(origin="", size=0, root=merkle.EMPTY_ROOT),
        Checkpoint(origin="a", size=-1, root=merkle.EMPTY_ROOT),
        Checkpoint(origin="a", size=2**63, root=merkle.EMPTY_ROOT),
        Checkpoint(origin="a", size=1, root=b"short"),
        Checkpoint(origin="a\nb", size=1, root=merkle.EMPTY_ROOT),
        Checkpoint(origin="a", size=1, root=merkle.EMPTY_ROOT, extensions=("",)),
    ],
    ids=range(6),
)
def test_what_no_checkpoint_can_say(checkpoint):
    with pytest.raises(MalformedError):
        checkpoint.text()


def test_a_checkpoint_is_its_own_logs():
    text = Checkpoint(origin="other.example/log", size=0, root=merkle.EMPTY_ROOT).text()
    signed = sign_note(text, LOG)
    with pytest.raises(SignatureError, match="origin"):
        open_checkpoint(signed, LOG.vkey)
    assert open_checkpoint(signed, LOG.vkey, origin="other.example/log").size == 0


def test_cosignatures_tell_the_latest_time():
    lines = [WITNESS.cosignature(EXAMPLE, at) for at in (1_700_000_005, 1_700_000_009)]
    signed = note.parse(note.format(EXAMPLE, lines))
    assert cosignature.verify(signed, WITNESS.cosigner_vkey) == 1_700_000_009
    with pytest.raises(SignatureError, match="not a cosigning key"):
        cosignature.verify(signed, WITNESS.vkey)
    with pytest.raises(SignatureError):
        cosignature.verify(note.parse(sign_note(EXAMPLE, WITNESS)), WITNESS.cosigner_vkey)


def test_the_cosignature_of_the_specification_has_its_shape():
    line = note.parse_signatures(
        "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJ"
        "sX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n".encode()
    )[0]
    assert line.signature[:8] == (1_679_315_147).to_bytes(8, "big")
    assert cosigned.ed25519_message(EXAMPLE, 1_679_315_147).startswith(
        b"cosignature/v1\ntime 1679315147\nexample.com/behind-the-sofa\n"
    )


def make_proof(*, cosigned: bool = True) -> tuple[proof.Proof, bytes]:
    leaves = [merkle.leaf_hash(b"%d" % i) for i in range(11)]
    text = Checkpoint(origin=LOG.name, size=11, root=merkle.root(leaves)).text()
    signatures = [LOG.signature(text)]
    if cosigned:
        signatures.append(WITNESS.cosignature(text, 1_700_000_000))
    path = tuple(merkle.audit_path(leaves, 6))
    signed = note.format(text, signatures)
    return proof.Proof(index=6, path=path, checkpoint_note=signed), leaves[6]


POLICY = Policy.parse(f"log {LOG.vkey}\nwitness d {WITNESS.cosigner_vkey}\nquorum d\n")


def test_a_proof_verifies_step_by_step():
    good, leaf = make_proof()
    accepted = proof.verify(proof.parse(proof.format(good)), leaf, POLICY)
    assert accepted.checkpoint.size == 11
    with pytest.raises(InclusionError):
        proof.verify(good, merkle.leaf_hash(b"other"), POLICY)
    uncosigned, leaf = make_proof(cosigned=False)
    with pytest.raises(QuorumError):
        proof.verify(uncosigned, leaf, POLICY)
    strange = VerifierKey.parse(str(Signer.generate(LOG.name, b"\x05" * 32).vkey))
    with pytest.raises(SignatureError):
        proof.verify(good, leaf, Policy.parse(f"log {strange}\nquorum none\n"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"@v1", b"@v2"),
        (b"index 6", b"index 06"),
        (b"index ", b"Index "),
        (b"index", b"extra !\nindex"),
        (b"index", b"extra AA==\nextra AA==\nindex"),
        (b"index 6\n", b"index 6\nAAAA\n"),
        (b"index 6\n", b"index 6\n" + b"PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n" * 64),
        (b"\n\n", b"\n"),
    ],
)
def test_what_is_not_a_proof(old, new):
    data = proof.format(make_proof()[0])
    assert old in data
    with pytest.raises(MalformedError):
        proof.parse(data.replace(old, new))


def test_a_proof_is_bounded():
    with pytest.raises(MalformedError, match="too long"):
        proof.parse(bytes(3_000_000))
