"""Every record: written, signed, read back; and what is refused before and after a signature."""

import json

import msgspec
import pytest
from tests.support import audit_records as make

from trunkline.base.errors import MalformedError, SignatureError
from trunkline.crypto import note
from trunkline.crypto.canonical import parse_canonical
from trunkline.crypto.keys import VerifierKey
from trunkline.crypto.signer import Signer, sign_note
from trunkline.schema import audit
from trunkline.verdicts import Record, Verdict, decimal, open_demand

RECORDS: dict[str, tuple[Record, Signer]] = {
    "self-test": (make.self_test(), make.NODE),
    "terms": (make.terms(), make.NODE),
    "draw": (make.draw(), make.VERIFIER),
    "calibration": (make.calibration(), make.VERIFIER),
    "verdict": (make.verdict(), make.VERIFIER),
    "commitment": (make.commitment(b"a verdict"), make.VERIFIER),
    "demand": (make.demand(), make.VERIFIER),
}
each = pytest.mark.parametrize(("record", "signer"), RECORDS.values(), ids=RECORDS)


@each
def test_it_reads_back_as_it_was(record: Record, signer: Signer) -> None:
    assert type(record).parse(record.text()) == record
    assert type(record).open_note(make.signed(record, signer), signer.vkey) == record


@each
def test_its_text_is_its_type_and_one_line_of_canonical_json(
    record: Record, signer: Signer
) -> None:
    head, line, rest = record.text().split(b"\n")
    assert head.decode() == record.TYPE
    assert not rest
    value = parse_canonical(line, bytes_max=record.NOTE_BYTES_MAX)
    assert isinstance(value, dict)
    assert value["type"] == record.TYPE
    assert list(value) == sorted(value)
    assert value["key"] == str(signer.vkey)


@each
def test_another_spelling_is_refused(record: Record, signer: Signer) -> None:
    head, line, _ = record.text().split(b"\n")
    value = json.loads(line)
    spellings = (
        json.dumps(value).encode(),
        json.dumps(dict(reversed(value.items())), separators=(",", ":")).encode(),
        line + b" ",
        line.replace(b'"unix_ms":', b'"unix_ms":1,"unix_ms":'),
        line.replace(b'"type":"%b",' % head, b""),
        line.replace(b"17800", b"17800.0"),
        line + b"\n",
        b"",
    )
    for spelling in spellings:
        with pytest.raises(MalformedError):
            type(record).parse(head + b"\n" + spelling + b"\n")


@each
def test_each_member_is_needed(record: Record, signer: Signer) -> None:
    head, line, _ = record.text().split(b"\n")
    value = json.loads(line)
    for member in value.keys() - {"bound", "chains", "context_tokens", "drawn", "next", "rules"}:
        rest = {name: item for name, item in value.items() if name != member}
        text = head + b"\n" + msgspec.json.encode(rest, order="sorted") + b"\n"
        with pytest.raises(MalformedError):
            type(record).parse(text)


@each
def test_members_of_later_versions_are_ignored_and_signed(record: Record, signer: Signer) -> None:
    head, line, _ = record.text().split(b"\n")
    later = msgspec.json.encode(json.loads(line) | {"zeta": ["new"]}, order="sorted")
    text = head + b"\n" + later + b"\n"
    assert type(record).open_note(sign_note(text, signer), signer.vkey) == record
    forged = sign_note(text, signer).replace(b'"new"', b'"old"')
    with pytest.raises(SignatureError):
        type(record).open_note(forged, signer.vkey)


@each
def test_only_the_key_that_it_names_counts(record: Record, signer: Signer) -> None:
    stranger = Signer(signer.vkey.name, b"\x77" * 32)
    with pytest.raises(SignatureError):
        type(record).open_note(make.signed(record, stranger), signer.vkey)
    # Signed by a key that the reader knows, and made out in another's name.
    with pytest.raises(SignatureError, match="names another key"):
        type(record).open_note(make.signed(record, stranger), stranger.vkey)


@each
def test_a_cosigning_key_signs_no_records(record: Record, signer: Signer) -> None:
    line = signer.cosignature(record.text(), 1)
    with pytest.raises(SignatureError):
        type(record).open_note(note.format(record.text(), [line]), signer.cosigner_vkey)


@each
def test_it_has_one_signature(record: Record, signer: Signer) -> None:
    two = (signer.signature(record.text()), make.OTHER.signature(record.text()))
    with pytest.raises(MalformedError, match="exactly one"):
        type(record).open_note(note.format(record.text(), two), signer.vkey)


@each
def test_bounds_come_before_signatures(
    record: Record, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def verify(key: VerifierKey, message: bytes, signature: bytes) -> None:
        raise AssertionError("a signature was checked of what is out of bounds")

    monkeypatch.setattr(VerifierKey, "verify", verify)
    head, line, _ = record.text().split(b"\n")
    long = head + b"\n" + line[:-1] + b',"zeta":"' + b"x" * record.NOTE_BYTES_MAX + b'"}\n'
    deep = head + b"\n" + line[:-1] + b',"zeta":' + b"[" * 99 + b"]" * 99 + b"}\n"
    for text in (long, deep):
        with pytest.raises(MalformedError):
            type(record).open_note(sign_note(text, signer), signer.vkey)


def test_every_bit_of_a_verdict_counts() -> None:
    data = make.signed(make.verdict())
    for at in range(len(data)):
        flipped = data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]
        with pytest.raises((MalformedError, SignatureError)):
            Verdict.open_note(flipped, make.VERIFIER.vkey)


def test_what_could_not_be_read_back_is_not_signed() -> None:
    for changes in (
        {"alpha": "0.001 "},
        {"alpha": "-1"},
        {"alpha": "NaN"},
        {"operator": "x" * 256},
        {"operator": "\ud800"},
        {"salt": "00"},
        {"unix_ms": 2**53},
        {"unix_ms": -1},
        {"key": "a key"},
        {"key": str(make.WITNESS.cosigner_vkey)},
        {"result": "pass"},
        {"checks": make.verdict().checks * 33},
    ):
        with pytest.raises(MalformedError):
            make.verdict(**changes).text()


def test_a_verdict_that_was_asked_for_names_no_draw() -> None:
    asked = make.verdict(drawn=msgspec.UNSET)
    assert b"drawn" not in asked.text()
    assert Verdict.parse(asked.text()) == asked


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1.0, "1"),
        (0.001, "0.001"),
        (1e-7, "1e-7"),
        (1e300, "1e300"),
        (2.5e17, "2.5e17"),
    ],
)
def test_a_number_has_one_spelling(value: float, text: str) -> None:
    assert decimal(value) == text
    assert float(text) == value


@pytest.mark.parametrize("value", [float("inf"), float("nan"), -1.0])
def test_no_record_holds_such_a_number(value: float) -> None:
    with pytest.raises(MalformedError):
        decimal(value)


def test_exactly_one_calibration_has_a_digest() -> None:
    with pytest.raises(MalformedError, match="digest"):
        msgspec.structs.replace(make.calibration(), artefact="{}").text()


def test_two_engines_are_alike_in_bits_numerics_and_weights() -> None:
    ours = make.self_test()
    theirs = msgspec.structs.replace(make.self_test(make.VERIFIER), cpu="another", engine="another")
    assert ours.same_bits(theirs)
    for member in ("bits", "weights"):
        other = msgspec.structs.replace(theirs, **{member: make.digest_of("other")})
        assert not ours.same_bits(other)
    assert not ours.same_bits(msgspec.structs.replace(theirs, numerics="numerics-2"))


def a_demand(**changes: object) -> audit.Demand:
    signed = make.signed(make.demand()).decode()
    made = audit.Demand(draw="a draw", receipts=make.WANTED, demand=signed)
    return msgspec.structs.replace(made, **changes)


def test_a_demand_is_for_these_receipts_of_this_node() -> None:
    key, node = make.VERIFIER.vkey, make.NODE.vkey.name
    assert open_demand(a_demand(), key, node).operator == "gamma.example"
    more = (*make.WANTED, audit.WantedReceipt(batch=make.hash32("batch").hex(), index=4))
    for demand, asked in (
        (a_demand(draw="another draw"), node),
        (a_demand(receipts=more), node),
        (a_demand(), "beta.example/node"),
    ):
        with pytest.raises(SignatureError):
            open_demand(demand, key, asked)


@pytest.mark.parametrize(
    "receipts",
    [
        (),
        make.WANTED * (audit.DEMANDED_MAX + 1),
        (audit.WantedReceipt(batch="00", index=0),),
        (audit.WantedReceipt(batch="AB" * 32, index=0),),
        (audit.WantedReceipt(batch="zz" * 32, index=0),),
        (audit.WantedReceipt(batch="ab" * 32, index=-1),),
        (audit.WantedReceipt(batch="ab" * 32, index=2**32),),
    ],
)
def test_what_no_demand_can_be_for(receipts: tuple[audit.WantedReceipt, ...]) -> None:
    with pytest.raises(MalformedError):
        open_demand(a_demand(receipts=receipts), make.VERIFIER.vkey, make.NODE.vkey.name)
