"""Keys that count for a time: rotated, revoked, and never against honest history."""

import msgspec
import pytest
from tests.unit.evidence import make_vectors as made

from trunkline.base.errors import Error, MalformedError
from trunkline.crypto.keys import VerifierKey
from trunkline.crypto.signer import sign_note
from trunkline.evidence import EvidenceKey, Report, encode, operators, verify
from trunkline.receipts import open_batch
from trunkline.receipts.key_statement import (
    KeyStatement,
    Revocation,
    open_statement,
    parse_statement,
)
from trunkline.tlog.checkpoint import Checkpoint

change = msgspec.structs.replace
WITNESSED_S = made.WITNESSED_S


def check(
    *pinned: EvidenceKey, stated: tuple[str, ...] = (), receipt: made.Receipt | None = None
) -> Report:
    """Under ``pinned`` keys, of a file that brings the operator's statements ``stated``."""
    part = made.part(made.receipt() if receipt is None else receipt)
    file = change(made.evidence(part), keys=(made.operator(*stated),))
    return verify(encode(file), policy=made.POLICY, trusted_keys=pinned)


def result(report: Report, title: str) -> str:
    (found,) = [step.result for step in report.steps if step.title == title]
    return found


def test_a_pinned_operator_vouches_for_its_nodes_key() -> None:
    report = check(made.operator(), stated=(made.key_statement(),))
    assert report.outcome == "pass"
    assert (result(report, "node keys"), result(report, "key validity")) == ("pass", "pass")


def test_statements_may_come_from_the_reader_as_well() -> None:
    assert check(made.operator(made.key_statement())).outcome == "pass"


def test_an_operator_that_only_the_file_names_vouches_for_nothing() -> None:
    report = check(stated=(made.key_statement(),))
    assert report.outcome == "inconclusive"
    assert result(report, "node keys") == "inconclusive"
    assert result(report, "key validity") == "not_applicable"


def test_a_statement_by_anybody_else_says_nothing() -> None:
    forged = KeyStatement(
        operator=made.OPERATOR.name, key=str(made.ALPHA.vkey), from_s=0, to_s=2**40
    )
    for signer in (made.BETA, made.signer(made.OPERATOR.name, 9)):
        report = check(made.operator(), stated=(made.state(forged, signer),))
        assert report.outcome == "inconclusive"


def test_an_operator_speaks_for_its_own_receipts_only() -> None:
    other = change(made.receipt(), operator="beta.example")
    report = check(made.operator(), stated=(made.key_statement(),), receipt=other)
    assert result(report, "node keys") == "inconclusive"


@pytest.mark.parametrize(
    ("from_s", "to_s", "expected"),
    [
        (1_780_000_001, WITNESSED_S + 1, "pass"),
        (1_780_000_002, WITNESSED_S + 9, "fail"),
        (1_770_000_000, WITNESSED_S, "fail"),
    ],
)
def test_the_interval_is_closed_at_its_start_and_open_at_its_end(
    from_s: int, to_s: int, expected: str
) -> None:
    report = check(made.operator(), stated=(made.key_statement(from_s, to_s),))
    assert (report.outcome, result(report, "key validity")) == (expected, expected)


def test_a_key_that_was_renewed_counts_in_both_intervals() -> None:
    early = made.key_statement(1_770_000_000, 1_779_000_000)
    late = made.key_statement(1_779_000_000, 1_790_000_000)
    assert check(made.operator(), stated=(early, late)).outcome == "pass"
    assert check(made.operator(), stated=(early,)).outcome == "fail"


def test_history_from_before_a_revocation_stays_verifiable() -> None:
    said = (made.key_statement(), made.revocation(WITNESSED_S + 1))
    assert check(made.operator(), stated=said).outcome == "pass"


def test_what_was_logged_after_a_revocation_is_refused_whatever_its_own_clock_says() -> None:
    """The batch says 1780000001, before the revocation; the witnesses saw it a second later."""
    said = (made.key_statement(), made.revocation(WITNESSED_S))
    report = check(made.operator(), stated=said)
    assert (report.outcome, result(report, "key validity")) == ("fail", "fail")


def test_a_revocation_that_only_the_reader_knows_counts_for_a_pinned_node_key() -> None:
    revoked = made.operator(made.revocation(0))
    assert check(made.KEYS[0]).outcome == "pass"
    assert check(made.KEYS[0], revoked).outcome == "fail"


def test_the_earliest_revocation_counts() -> None:
    late = (made.key_statement(), made.revocation(WITNESSED_S + 99))
    assert check(made.operator(made.revocation(1)), stated=late).outcome == "fail"


def test_without_a_witness_nobody_says_when() -> None:
    file = change(made.evidence(made.part(made.receipt())), keys=())
    policy = f"log {made.LOG.vkey}\nquorum none\n"
    pinned = [made.operator(made.key_statement())]
    report = verify(encode(file), policy=policy, trusted_keys=pinned)
    assert result(report, "key validity") == "inconclusive"


def test_statements_read_back() -> None:
    key = str(made.ALPHA.vkey)
    for one in (
        KeyStatement(operator="alpha.example", key=key, from_s=1, to_s=2),
        Revocation(operator="alpha.example", key=key, from_s=0),
    ):
        note = sign_note(one.text(), made.OPERATOR)
        assert open_statement(note, made.OPERATOR.vkey) == one
        for at in range(len(note)):
            damaged = note[:at] + bytes([note[at] ^ 1]) + note[at + 1 :]
            with pytest.raises(Error):
                open_statement(damaged, made.OPERATOR.vkey)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b"trunkline.key/v1\na\n%s\n2\n1\n",
        b"trunkline.key/v1\na\n%s\n1\n1\n",
        b"trunkline.key/v1\na\n%s\n1\n",
        b"trunkline.key/v1\na\nnone\n1\n2\n",
        b"trunkline.key/v1\na\n%s\n01\n2\n",
        b"trunkline.key/v1\na\n%s\n1\n9007199254740992\n",
        b"trunkline.key/v2\na\n%s\n1\n2\n",
        b"trunkline.revocation/v1\na\n%s\n1\n2\n",
        b"trunkline.revocation/v1\na\n%s\n1",
        b"trunkline.revocation/v1\na\n\xff\n1\n",
    ],
)
def test_what_is_no_statement(text: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_statement(text.replace(b"%s", str(made.ALPHA.vkey).encode()))


def signed_records() -> dict[str, bytes]:
    """One of everything that is signed as a note, all by one key of one name."""
    key, name = made.OPERATOR, made.OPERATOR.name
    vkey = str(made.ALPHA.vkey)
    checkpoint = Checkpoint(origin=name, size=1, root=bytes(32))
    sealed = made.BatchBuilder(name)
    sealed.add(made.encode_receipt(made.receipt()))
    texts = {
        "batch": sealed.seal(previous=None, unix_ms=1).text,
        "checkpoint": checkpoint.text(),
        "key statement": KeyStatement(operator=name, key=vkey, from_s=1, to_s=2).text(),
        "revocation": Revocation(operator=name, key=vkey, from_s=1).text(),
    }
    return {kind: sign_note(text, key) for kind, text in texts.items()}


def reads(kind: str, note: bytes) -> bool:
    key = made.OPERATOR.vkey
    try:
        match kind:
            case "batch":
                open_batch(note, key)
            case "checkpoint":
                Checkpoint.parse(note[: note.rindex(b"\n\n") + 1])
            case "key statement":
                return isinstance(open_statement(note, key), KeyStatement)
            case _:
                return isinstance(open_statement(note, key), Revocation)
    except Error:
        return False
    return True


@pytest.mark.parametrize("taken", ["batch", "checkpoint", "key statement", "revocation"])
@pytest.mark.parametrize("signed", ["batch", "checkpoint", "key statement", "revocation"])
def test_no_signed_record_can_be_taken_for_another(signed: str, taken: str) -> None:
    """Each pair, all signed by one key: only the same kind is read."""
    assert reads(taken, signed_records()[signed]) is (signed == taken)


def test_a_receipt_is_read_as_none_of_them() -> None:
    data = made.encode_receipt(made.receipt())
    for kind in signed_records():
        assert not reads(kind, sign_note(data + b"\n", made.OPERATOR))


@pytest.mark.parametrize(("before", "result_"), [(4095, "pass"), (4096, "inconclusive")])
def test_of_an_operators_statements_no_more_are_looked_at_than_are_said_and_each_once(
    before: int, result_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[bytes] = []

    def counted(data: bytes, key: VerifierKey) -> KeyStatement | Revocation:
        looked_at.append(data)
        return open_statement(data, key)

    monkeypatch.setattr(operators, "open_statement", counted)
    file = encode(made.wordy(before))
    report = verify(file, policy=made.POLICY, trusted_keys=(made.operator(),))
    assert result(report, "node keys") == result_
    assert len(set(looked_at)) == len(looked_at) == 4096
    # What the reader brings is looked at as well.
    pinned = made.operator(made.key_statement())
    report = verify(file, policy=made.POLICY, trusted_keys=(pinned,))
    assert result(report, "node keys") == "pass"
