"""Step 14: whose verdicts count, about what, and what they add up to."""

import msgspec
import pytest
from tests.unit.evidence import make_vectors as made

from trunkline.base.errors import MalformedError
from trunkline.crypto.signer import Signer, sign_note
from trunkline.evidence import (
    Evidence,
    EvidenceKey,
    EvidenceVerdict,
    Report,
    Step,
    decode,
    encode,
    verify,
)
from trunkline.evidence.file import VERDICTS_MAX
from trunkline.verdicts import Verdict

change = msgspec.structs.replace
KNOWN = (*made.KEYS, made.VERIFIER_KEY)
SECOND = Signer("delta.example/verifier", b"\x09" * 32)
SECOND_KEY = EvidenceKey(
    name=SECOND.vkey.name, vkey=str(SECOND.vkey), role="verifier", operator="delta.example"
)


def check(file: Evidence, **given: object) -> Report:
    options = {"policy": made.POLICY, "trusted_keys": (*KNOWN, SECOND_KEY)} | given
    return verify(encode(file), **options)  # type: ignore[arg-type]


def found(*verdicts: EvidenceVerdict, **given: object) -> Step:
    report = check(made.audited(*verdicts), **given)
    last = report.steps[-1]
    assert (last.number, last.title) == (14, "verdicts")
    # Whatever verdicts say, the receipt is in the log.
    assert report.state == "final" or given
    if last.result in ("fail", "inconclusive"):
        assert report.outcome == last.result
    return last


def second(**changes: object) -> EvidenceVerdict:
    said = made.verdict(key=str(SECOND.vkey), operator="delta.example", **changes)
    return made.attach(said, SECOND)


def test_a_verdict_names_verifier_regime_result_and_standing() -> None:
    step = found(made.attach(made.verdict()))
    assert step.result == "pass"
    assert step.detail == (
        "gamma.example/verifier, operator gamma.example: pass (replay, regime exact), standing good"
    )


def test_a_file_without_verdicts_is_written_as_it_was_before_there_were_any() -> None:
    plain = made.evidence(made.part(made.receipt()))
    assert b"verdicts" not in encode(plain)
    assert encode(decode(encode(plain))) == encode(plain)
    assert check(plain).steps[-1].result == "not_applicable"
    audited = made.audited(made.attach(made.verdict()))
    assert decode(encode(audited)) == audited


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        (("pass",), "pass"),
        (("fail",), "fail"),
        (("inconclusive",), "not_applicable"),
        (("not_applicable",), "not_applicable"),
        (("pass", "fail"), "fail"),
        (("pass", "inconclusive"), "pass"),
        (("pass", "not_applicable"), "pass"),
        (("inconclusive", "not_applicable"), "not_applicable"),
        (("inconclusive", "fail"), "fail"),
    ],
)
def test_what_verdicts_add_up_to(results: tuple[str, ...], expected: str) -> None:
    first, *rest = results
    said = [made.attach(made.verdict(result=first)), *(second(result=one) for one in rest)]
    assert found(*said).result == expected
    assert found(*reversed(said)).result == expected


def test_an_answer_of_a_failed_subject_does_not_pass() -> None:
    passed = made.attach(made.verdict())
    assert found(passed, second(standing="failed")).result == "inconclusive"
    assert found(second(standing="failed", result="not_applicable")).result == "inconclusive"


def test_only_a_verifier_that_the_reader_pinned_counts() -> None:
    failing = made.attach(made.verdict(result="fail"))
    node = change(made.VERIFIER_KEY, role="node")
    for keys in (made.KEYS, (*made.KEYS, node), (*made.KEYS, SECOND_KEY)):
        step = found(failing, trusted_keys=keys)
        assert step.result == "not_applicable"
        assert "not a verifier that you know" in step.detail
    stated = change(made.audited(failing), keys=KNOWN)
    assert check(stated, trusted_keys=made.KEYS).outcome == "pass"


def test_the_pinned_operator_is_the_verdicts() -> None:
    other = change(made.VERIFIER_KEY, operator="mallory.example")
    step = found(made.attach(made.verdict()), trusted_keys=(*made.KEYS, other))
    assert step.result == "fail"


@pytest.mark.parametrize(
    "changes",
    [
        {"receipt": "0e" * 32},
        {"subject": change(made.verdict().subject, key=str(made.BETA.vkey))},
    ],
    ids=["receipt", "node"],
)
def test_a_verdict_is_about_a_receipt_of_this_file(changes: dict[str, object]) -> None:
    assert found(made.attach(made.verdict(**changes))).result == "fail"


def test_a_verdict_on_either_part_is_about_the_answer() -> None:
    first, last = made.two_parts()
    file = made.evidence(made.part(first), made.part(last, made.BETA))
    said = tuple(made.attach(made.verdict(item)) for item in (first, last))
    for verdicts in (said, said[:1], said[1:]):
        assert check(change(file, verdicts=verdicts)).outcome == "pass"


def test_without_a_receipt_nothing_is_said_of_it() -> None:
    part = made.part(made.receipt())
    spoilt = change(part, signed=change(part.signed, receipt=part.signed.receipt + " "))
    file = change(made.evidence(spoilt), verdicts=(made.attach(made.verdict()),))
    assert check(file).steps[-1].result == "not_applicable"


def test_a_pass_counts_once_it_is_in_the_log_and_a_failure_at_once() -> None:
    for result, expected in (("pass", "not_applicable"), ("fail", "fail")):
        said = made.verdict(result=result)
        alone = made.attach(said, witnesses=made.WITNESSES[:1])
        for unlogged in (change(made.attach(said), proof=None), alone):
            assert found(unlogged).result == expected
    no_policy = change(made.audited(made.attach(made.verdict())), policy=None)
    assert check(no_policy, policy=None).steps[-1].result == "not_applicable"
    failed = change(made.attach(made.verdict(standing="failed")), proof=None)
    assert found(failed).result == "inconclusive"


def test_a_false_proof_fails() -> None:
    said = made.attach(made.verdict())
    other = made.attach(made.verdict(salt="00" * 32))
    elsewhere = made.attach(made.verdict(), log=made.OTHER_LOG)
    for proof in (other.proof, elsewhere.proof, "", "\x00", "not a proof"):
        assert found(change(said, proof=proof)).result == "fail"


@pytest.mark.parametrize("text", ["", "a verdict", "\x00", "x" * (Verdict.NOTE_BYTES_MAX + 1)])
def test_what_is_no_verdict_fails(text: str) -> None:
    assert found(change(made.attach(made.verdict()), verdict=text)).result == "fail"


def test_another_record_is_no_verdict() -> None:
    whole = made.part(made.receipt())
    batch = whole.signed.batch
    item = EvidenceVerdict(verdict=batch, proof=made.prove(batch))
    assert found(item, trusted_keys=(*KNOWN, change(made.KEYS[0], role="verifier"))).result == (
        "fail"
    )


def test_the_number_of_verdicts_is_bounded() -> None:
    item = made.attach(made.verdict())
    assert found(*[item] * VERDICTS_MAX).result == "pass"
    with pytest.raises(MalformedError):
        encode(made.audited(*[item] * (VERDICTS_MAX + 1)))


def test_every_byte_of_a_verdict_and_its_proof_counts() -> None:
    """Flip any: it is no pass any more."""
    item = made.attach(made.verdict())
    for member in ("verdict", "proof"):
        data = getattr(item, member).encode()
        for at in range(len(data)):
            changed = data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]
            text = changed.decode("utf-8", "ignore")
            assert found(change(item, **{member: text})).result != "pass", at


def test_a_signature_by_another_key_does_not_count() -> None:
    unsigned_by_it = EvidenceVerdict(verdict=sign_note(made.verdict().text(), made.BETA).decode())
    assert found(unsigned_by_it).result == "fail"
