"""Trust policies: the specification's example, each rule it states, and what a policy accepts."""

import pytest

from trunkline.base.errors import MalformedError, QuorumError, SignatureError
from trunkline.crypto import merkle, note
from trunkline.crypto.signer import MlDsaCosigner, Signer
from trunkline.tlog.checkpoint import Checkpoint
from trunkline.tlog.policy import Policy

LOG = Signer.generate("gamma.example/log", b"\x01" * 32)
WITNESSES = [Signer.generate(f"w{i}.example", bytes((16 + i,)) * 32) for i in range(6)]
NAMES = ["X1", "X2", "X3", "Y1", "Y2", "Y3"]
DEFINITIONS = f"log {LOG.vkey} https://gamma.example\n" + "".join(
    f"witness {name} {key.cosigner_vkey}\n" for name, key in zip(NAMES, WITNESSES, strict=True)
)
EXAMPLE = (
    DEFINITIONS
    + "  # two organisations\n\n"
    + "group X-witnesses 2 X1 X2 X3\n"
    + "group Y-witnesses any Y1\tY2 Y3 \n"
    + "group X-and-Y all X-witnesses Y-witnesses\n"
    + "quorum X-and-Y\n"
)
TEXT = Checkpoint(origin=LOG.name, size=0, root=merkle.EMPTY_ROOT).text()
NOW_S = 1_700_000_000


def checkpoint_note(*cosigners: int, signer: Signer = LOG, text: bytes = TEXT) -> bytes:
    cosignatures = (WITNESSES[i].cosignature(text, NOW_S + i) for i in cosigners)
    return note.format(text, (signer.signature(text), *cosignatures))


def test_the_specifications_example():
    policy = Policy.parse(EXAMPLE)
    assert policy.logs[0].url == "https://gamma.example"
    assert policy.is_quorum({"X1", "X3", "Y2"})
    assert not policy.is_quorum({"X1", "X2", "X3"})
    assert not policy.is_quorum({"X1", "Y1", "Y2", "Y3"})
    accepted = policy.accepts(checkpoint_note(0, 2, 4))
    assert accepted.witnesses == (("X1", NOW_S), ("X3", NOW_S + 2), ("Y2", NOW_S + 4))
    assert accepted.checkpoint.size == 0
    assert accepted.log_key == LOG.vkey
    with pytest.raises(QuorumError):
        policy.accepts(checkpoint_note(0, 1, 2))


def test_without_a_quorum_the_log_alone_is_enough():
    policy = Policy.parse(f"log {LOG.vkey}\nquorum none\n")
    assert policy.accepts(checkpoint_note()).witnesses == ()


def test_one_witness_may_be_the_quorum():
    policy = Policy.parse(DEFINITIONS + "quorum Y1\n")
    assert policy.accepts(checkpoint_note(3, 5)).witnesses == (("Y1", NOW_S + 3), ("Y3", NOW_S + 5))
    with pytest.raises(QuorumError):
        policy.accepts(checkpoint_note(0, 1, 2, 4, 5))


def test_another_logs_checkpoint_is_refused():
    stranger = Signer.generate("other.example/log", b"\x09" * 32)
    impostor = Signer.generate(LOG.name, b"\x09" * 32)
    policy = Policy.parse(EXAMPLE)
    for signer in (stranger, impostor):
        with pytest.raises(SignatureError):
            policy.accepts(checkpoint_note(0, 2, 4, signer=signer))
    other = TEXT.replace(b"gamma", b"delta")
    with pytest.raises(SignatureError):
        policy.accepts(checkpoint_note(0, 2, 4, text=other))


def test_a_log_and_its_witnesses_are_looked_at_apart():
    policy = Policy.parse(EXAMPLE)
    too_few = checkpoint_note(0, 1)
    assert policy.signed(too_few) == Checkpoint.parse(TEXT)
    with pytest.raises(QuorumError):
        policy.cosigned(too_few)
    by_another = checkpoint_note(0, 2, 4, signer=Signer.generate(LOG.name, b"\x09" * 32))
    assert policy.cosigned(by_another) == policy.accepts(checkpoint_note(0, 2, 4)).witnesses
    with pytest.raises(SignatureError):
        policy.signed(by_another)


def test_a_log_known_from_elsewhere():
    policy = Policy.parse(DEFINITIONS.partition("\n")[2] + "quorum X1\n")
    assert policy.logs == ()
    with pytest.raises(SignatureError):
        policy.accepts(checkpoint_note(0))
    assert policy.accepts(checkpoint_note(0), log_key=LOG.vkey).checkpoint.origin == LOG.name


def test_a_bad_cosignature_by_a_known_witness_condemns_the_note():
    policy = Policy.parse(EXAMPLE)
    stray = WITNESSES[5].cosignature(b"another text\n", NOW_S)
    good = note.parse(checkpoint_note(0, 2, 4))
    with pytest.raises(SignatureError):
        policy.accepts(note.format(good.text, (*good.signatures, stray)))


def test_names_are_octets():
    key = WITNESSES[0].cosigner_vkey
    policy = Policy.parse(b"witness \xff " + str(key).encode() + b"\nquorum \xff")
    assert policy.is_quorum({policy.witnesses[0].name})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no quorum line"),
        (DEFINITIONS, "no quorum line"),
        (EXAMPLE + "quorum X1\n", "one quorum line"),
        (DEFINITIONS + "quorum none X1\n", "quorum <name>"),
        (DEFINITIONS + "quorum Z\n", "defined above"),
        ("quorum X1\n" + DEFINITIONS, "line 1: the quorum's name is defined above"),
        (DEFINITIONS + "group g 1 Z\nquorum g\n", "defined above"),
        (DEFINITIONS + "group g 1 none\nquorum g\n", "defined above"),
        (DEFINITIONS + "group g 0 X1\nquorum g\n", "threshold"),
        (DEFINITIONS + "group g 3 X1 X2\nquorum g\n", "threshold"),
        (DEFINITIONS + "group g 01 X1 X2\nquorum g\n", "decimal"),
        (DEFINITIONS + "group g all\nquorum g\n", "group <name>"),
        (DEFINITIONS + "group g all X1 X1\nquorum g\n", "once"),
        (DEFINITIONS + "group g all X1\ngroup h all X1\nquorum g\n", "once"),
        (DEFINITIONS + "group X1 all X2\nquorum X1\n", "taken"),
        (DEFINITIONS + "group none all X2\nquorum none\n", "taken"),
        (DEFINITIONS + f"log {LOG.vkey}\nquorum none\n", "listed already"),
        (DEFINITIONS + f"witness Z {WITNESSES[0].cosigner_vkey}\nquorum none\n", "listed already"),
        (f"log {LOG.cosigner_vkey}\nquorum none\n", "type"),
        (f"witness a {WITNESSES[0].vkey}\nquorum none\n", "type"),
        ("log\nquorum none\n", "log <vkey>"),
        ("witness a\nquorum none\n", "witness <name>"),
        ("log name+00000000+AA==\nquorum none\n", "line 1"),
        ("Quorum none\n", "line 1"),
        ("quorum none\r\n", "control"),
        ("quorum\x7f none\n", "control"),
        (
            DEFINITIONS
            + "".join(f"group g{i} 1 {f'g{i - 1}' if i else 'X1'}\n" for i in range(300)),
            "more than 256",
        ),
        ("#" * 300_000, "too long"),
    ],
)
def test_what_is_not_a_policy(text, why):
    with pytest.raises(MalformedError, match=why):
        Policy.parse(text)


def test_witnesses_of_both_kinds_count_in_one_group():
    strong = MlDsaCosigner("pq.example/witness", b"\x31" * 32)
    policy = Policy.parse(
        DEFINITIONS + f"witness PQ {strong.cosigner_vkey}\ngroup two 2 X1 PQ\nquorum two\n"
    )
    parsed = note.parse(checkpoint_note(0))
    line = strong.cosignature(parsed.text, 1_700_000_000)
    both = note.format(parsed.text, (*parsed.signatures, line))
    assert [name for name, _ in policy.accepts(both).witnesses] == ["X1", "PQ"]
    with pytest.raises(QuorumError):
        policy.accepts(checkpoint_note(0))
    # A kind of signature that nobody here knows is ignored, and no pass.
    unknown = note.NoteSignature(name=strong.name, key_id=1, signature=b"\xfe" * 99)
    with pytest.raises(QuorumError):
        policy.accepts(note.format(parsed.text, (*parsed.signatures, unknown)))
    bad = note.NoteSignature(
        name=line.name, key_id=line.key_id, signature=line.signature[:-1] + b"\1"
    )
    with pytest.raises(SignatureError):
        policy.accepts(note.format(parsed.text, (*parsed.signatures, bad)))
    with pytest.raises(MalformedError, match="0x04 or 0x06"):
        Policy.parse(f"witness a {LOG.vkey}\nquorum a\n")
