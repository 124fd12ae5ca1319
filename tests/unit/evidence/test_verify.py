"""Each step of the verification: what it shows, what breaks it, and what it leaves open."""

import json
from collections.abc import Callable

import msgspec
import pytest
from tests.unit.evidence import make_vectors as made

from trunkline.base.errors import MalformedError
from trunkline.crypto import ed25519, ml_dsa
from trunkline.crypto.signer import Signer, sign_note
from trunkline.evidence import (
    Evidence,
    EvidenceKey,
    EvidencePart,
    Report,
    Step,
    encode,
    verify,
)
from trunkline.receipts import Receipt, ReceiptAttempt, ReceiptSampling, open_batch
from trunkline.schema.attempt import SignedReceipt
from trunkline.tlog.checkpoint import Checkpoint

change = msgspec.structs.replace


def check(file: Evidence, **given: object) -> Report:
    options = {"policy": made.POLICY, "trusted_keys": made.KEYS} | given
    return verify(encode(file), **options)  # type: ignore[arg-type]


def step(report: Report, title: str) -> Step:
    return next(step for step in report.steps if step.title == title)


def failed(report: Report) -> list[str]:
    return [step.title for step in report.steps if step.result == "fail"]


def unclear(report: Report) -> list[str]:
    return [step.title for step in report.steps if step.result == "inconclusive"]


def test_a_final_answer_passes_every_step() -> None:
    report = check(
        made.evidence(made.part(made.receipt(), kept=made.bodies())), request=made.CLIENT_REQUEST
    )
    assert [step.number for step in report.steps] == list(range(1, 15))
    assert [step.result for step in report.steps] == ["pass"] * 12 + ["not_applicable"] * 2
    assert (report.outcome, report.state, report.answer) == ("pass", "final", "ans_1")
    assert report.receipts == (made.receipt(),)


def test_without_bodies_the_content_is_not_applicable() -> None:
    report = check(made.evidence(made.part(made.receipt())))
    assert report.outcome == "pass"
    assert step(report, "request").result == "not_applicable"
    assert step(report, "response").result == "not_applicable"


def test_provisional_evidence_is_inconclusive() -> None:
    report = check(made.evidence(made.part(made.receipt(), final=False)))
    assert (report.outcome, report.state) == ("inconclusive", "provisional")
    assert unclear(report) == ["log", "witnesses", "inclusion"]
    assert failed(report) == []


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b"[" * 100_000, b'{"type":1}'])
def test_bytes_that_are_no_evidence_fail(data: bytes) -> None:
    report = verify(data)
    assert (report.outcome, report.state) == ("fail", "provisional")
    assert failed(report) == ["file"]
    assert len(report.steps) == 14


def test_a_file_is_utf_8_in_members_that_nobody_reads_too() -> None:
    data = encode(made.evidence(made.part(made.receipt())))
    for later in (b'{"later":"\xff",', b'{"\xff":1,'):
        assert failed(verify(later + data[1:])) == ["file"]
    assert failed(verify(b'{"later":"\xc3\xa9",' + data[1:])) == []


# Step 2 and 3


def test_a_receipt_in_other_bytes_fails() -> None:
    part = made.part(made.receipt())
    spoilt = change(part, signed=change(part.signed, receipt=part.signed.receipt + " "))
    report = check(made.evidence(spoilt))
    assert failed(report) == ["receipts"]
    assert report.receipts == ()


def test_a_verdict_is_no_receipt() -> None:
    part = made.part(made.receipt())
    text = part.signed.receipt.replace("trunkline.receipt/v1", "trunkline.verdict/v1")
    report = check(made.evidence(change(part, signed=change(part.signed, receipt=text))))
    assert failed(report) == ["receipts"]


def test_a_record_that_does_not_say_what_it_is_is_no_receipt() -> None:
    part = made.part(made.receipt())
    text = part.signed.receipt.replace('"type":"trunkline.receipt/v1",', "")
    report = check(made.evidence(change(part, signed=change(part.signed, receipt=text))))
    assert failed(report)[0] == "receipts"


def test_a_key_that_only_the_file_names_identifies_nobody() -> None:
    file = made.evidence(made.part(made.receipt()))
    for keys in (None, (), made.KEYS[1:]):
        report = check(file, trusted_keys=keys)
        assert report.outcome == "inconclusive"
        assert unclear(report) == ["node keys"]
        assert "only from the file" in step(report, "node keys").detail


@pytest.mark.parametrize("where", ["pinned", "file"])
@pytest.mark.parametrize(
    "key",
    [
        change(made.KEYS[0], vkey=str(made.signer("alpha.example/node", 9).vkey)),
        change(made.KEYS[0], operator="mallory.example"),
    ],
)
def test_a_key_record_that_says_otherwise_fails(where: str, key: EvidenceKey) -> None:
    file = made.evidence(made.part(made.receipt()))
    if where == "pinned":
        report = check(file, trusted_keys=(key,))
    else:
        report = check(change(file, keys=(key,)))
    assert failed(report) == ["node keys"]


def test_only_a_node_key_pins_a_node() -> None:
    key = change(made.KEYS[0], role="witness")
    report = check(made.evidence(made.part(made.receipt())), trusted_keys=(key,))
    assert unclear(report) == ["node keys"]


@pytest.mark.parametrize("key", ["", "nonsense", str(made.ALPHA.vkey) + "A", str(made.BETA.vkey)])
def test_a_key_that_is_no_key_of_the_node_fails(key: str) -> None:
    report = check(made.evidence(made.part(change(made.receipt(), key=key))))
    assert "node keys" in failed(report)


# Step 4 and 5


def test_a_batch_by_another_key_fails() -> None:
    report = check(made.evidence(made.part(made.receipt(), made.BETA)))
    assert failed(report) == ["signatures"]


def test_a_checkpoint_is_no_batch() -> None:
    part = made.part(made.receipt(), final=False)
    text = Checkpoint(origin="trunkline.batch/v1", size=1, root=bytes(32)).text()
    note = sign_note(text, made.ALPHA).decode()
    report = check(made.evidence(change(part, signed=change(part.signed, batch=note))))
    assert failed(report) == ["signatures"]


def edit_signed(**changes: object) -> Callable[[SignedReceipt], SignedReceipt]:
    return lambda signed: change(signed, **changes)


@pytest.mark.parametrize(
    "edit",
    [
        edit_signed(index=0),
        edit_signed(index=3),
        edit_signed(path=()),
        edit_signed(path=("A" * 43 + "=",)),
        lambda signed: change(signed, path=(*signed.path, signed.path[0])),
    ],
)
def test_a_wrong_path_fails(edit: Callable[[SignedReceipt], SignedReceipt]) -> None:
    part = made.part(made.receipt())
    report = check(made.evidence(change(part, signed=edit(part.signed))))
    assert failed(report) == ["batch paths"]


# Step 6


@pytest.mark.parametrize(
    ("request_", "kept", "result"),
    [
        (None, None, "not_applicable"),
        (made.CLIENT_REQUEST, None, "pass"),
        (made.CLIENT_REQUEST + b" ", None, "fail"),
        (made.NODE_REQUEST, None, "fail"),
        (None, made.bodies(), "pass"),
        (None, change(made.bodies(), client_request=None), "pass"),
        (None, change(made.bodies(), client_request=b"{}"), "fail"),
        (None, change(made.bodies(), request=b"{}"), "fail"),
        (made.CLIENT_REQUEST, change(made.bodies(), request=b"{}"), "fail"),
    ],
)
def test_requests_are_compared(request_: bytes | None, kept: object, result: str) -> None:
    part = change(made.part(made.receipt()), bodies=kept)
    report = check(made.evidence(part), request=request_)
    assert step(report, "request").result == result


# Step 7


def stream(chunks: list[bytes]) -> bytes:
    return b"".join(b"data: %s\n\n" % chunk for chunk in [*chunks, b"[DONE]"])


@pytest.mark.parametrize(
    "chunks",
    [
        made.CHUNKS[:-1],
        [*made.CHUNKS, b"{}"],
        [*made.CHUNKS[:2], made.CHUNKS[3], made.CHUNKS[2], *made.CHUNKS[4:]],
        [*made.CHUNKS[:5], b'{"n":6}'],
        [],
    ],
)
def test_another_answer_fails(chunks: list[bytes]) -> None:
    kept = check(made.evidence(made.part(made.receipt(), kept=made.bodies(chunks))))
    given = check(made.evidence(made.part(made.receipt())), response=stream(chunks))
    assert failed(kept) == failed(given) == ["response"]


def test_a_saved_stream_is_compared() -> None:
    file = made.evidence(made.part(made.receipt()))
    report = check(file, response=b": a comment\n\n" + stream(made.CHUNKS))
    assert report.outcome == "pass"
    assert step(report, "response").result == "pass"
    whole = b"".join(b"data: %s\n\n" % chunk for chunk in made.CHUNKS)
    for size in (len(whole) - 1, len(whole) - 2, len(whole) - 3):
        assert failed(check(file, response=whole[:size])) == ["response"]


def test_a_whole_answer_is_compared() -> None:
    answer = b'{"choices":[]}'
    file = made.evidence(made.part(made.receipt(chunks=[answer])))
    assert check(file, response=answer + b"\n").outcome == "pass"
    assert failed(check(file, response=b'{"choices":[{}]}')) == ["response"]


@pytest.mark.parametrize("format_", ["anthropic.messages", "openai.responses", "unheard.of"])
def test_a_translated_answer_is_inconclusive_without_bodies(format_: str) -> None:
    item = made.receipt()
    item = change(item, request=change(item.request, format=format_))
    report = check(made.evidence(made.part(item)), response=stream(made.CHUNKS))
    assert unclear(report) == ["response"]
    assert report.outcome == "inconclusive"


def test_kept_bodies_can_not_stand_in_for_a_response_that_was_given() -> None:
    file = made.evidence(made.part(made.receipt(), kept=made.bodies()))
    assert failed(check(file, response=stream(made.CHUNKS[:2]))) == ["response"]
    spoilt = made.evidence(made.part(made.receipt(), kept=made.bodies(made.CHUNKS[:2])))
    assert failed(check(spoilt, response=stream(made.CHUNKS))) == ["response"]


def test_what_came_before_a_takeover_is_not_covered_by_the_stream_digest() -> None:
    report = check(
        made.evidence(made.part(made.resumed(), made.BETA)), response=stream(made.CHUNKS)
    )
    assert unclear(report) == ["response"]
    assert "the first 4" in step(report, "response").detail
    tail = check(
        made.evidence(made.part(made.resumed(), made.BETA)),
        response=stream([*made.CHUNKS[:5], b"{}"]),
    )
    assert failed(tail) == ["response"]


# Step 8


def pair(first: Receipt, second: Receipt) -> Evidence:
    return made.evidence(made.part(first), made.part(second, made.BETA))


def test_two_parts_make_one_answer() -> None:
    report = check(pair(*made.two_parts()), response=stream(made.CHUNKS))
    assert report.outcome == "pass"
    assert "2 signed parts" in step(report, "parts").detail


def test_a_cached_answer_says_so() -> None:
    report = check(made.evidence(made.part(made.cached())))
    assert report.outcome == "pass"
    detail = step(report, "parts").detail
    assert "taken from the node's cache" in detail
    assert f"at 1779999999000 (Unix ms), receipt {'0f' * 32}" in detail


def test_an_answer_is_cached_or_made() -> None:
    report = check(made.evidence(made.part(made.cached(source="nonces"))))
    assert failed(report) == ["parts"]


def test_a_single_resumed_part_names_the_attempt_that_died() -> None:
    report = check(made.evidence(made.part(made.resumed(), made.BETA)))
    assert report.outcome == "pass"
    assert "alpha.example/node (upstream_truncated)" in step(report, "parts").detail
    assert "3 tokens were taken over" in step(report, "parts").detail


def second(**changes: object) -> Callable[[Receipt, Receipt], Evidence]:
    return lambda first, last: pair(first, change(last, **changes))


def nested(member: str, **changes: object) -> Callable[[Receipt, Receipt], Evidence]:
    return lambda first, last: pair(
        first, change(last, **{member: change(getattr(last, member), **changes)})
    )


OTHER = "sha256:" + "00" * 32


@pytest.mark.parametrize(
    "edit",
    [
        second(answer="ans_2"),
        second(attempt="att_1"),
        second(created_s=1),
        second(route=()),
        second(
            route=(ReceiptAttempt(attempt="att_9", error="x", node=made.ALPHA.name, tokens=(3,)),)
        ),
        second(
            route=(ReceiptAttempt(attempt="att_1", error="x", node=made.BETA.name, tokens=(3,)),)
        ),
        second(
            route=(ReceiptAttempt(attempt="att_1", error="x", node=made.ALPHA.name, tokens=(2,)),)
        ),
        second(
            route=(ReceiptAttempt(attempt="att_1", error="x", node=made.ALPHA.name, tokens=(3, 1)),)
        ),
        nested("request", client=OTHER),
        nested("request", digest=OTHER),
        nested("sampling", caller_nonce="00" * 32),
        nested("sampling", seed="00" * 32),
        nested("sampling", source="nonces"),
        lambda first, _: made.evidence(
            made.part(change(first, sampling=change(first.sampling, node_nonce="00" * 32)))
        ),
        lambda first, _: made.evidence(
            made.part(change(first, sampling=change(first.sampling, seed="00" * 32)))
        ),
        nested("response", resumed=()),
        nested("response", resumed_digest=""),
        nested("response", resumed=(), resumed_digest=""),
        nested("response", resumed=(3, 0)),
        nested("response", finish=("stop", "stop")),
        nested("model", weights=OTHER),
        nested("model", numerics="numerics-2"),
        lambda first, last: made.evidence(made.part(last, made.BETA), made.part(first)),
        lambda first, last: pair(change(first, answer="ans_2"), last),
        lambda first, last: pair(
            change(first, sampling=ReceiptSampling(caller_nonce="ca" * 32, source="nonces")), last
        ),
        lambda first, last: made.evidence(
            *(made.part(first), made.part(last, made.BETA), made.part(last, made.BETA))
        ),
    ],
)
def test_parts_that_do_not_belong_together_fail(
    edit: Callable[[Receipt, Receipt], Evidence],
) -> None:
    assert failed(check(edit(*made.two_parts()))) == ["parts"]


def test_bodies_of_one_part_only_are_inconclusive() -> None:
    first, last = made.two_parts()
    file = made.evidence(
        made.part(first, kept=made.bodies(made.CHUNKS[:4])), made.part(last, made.BETA)
    )
    report = check(file)
    assert unclear(report) == ["request", "response"]
    assert step(report, "response").detail.startswith("part 1: ")


# Steps 9 to 12


def logged(**how: object) -> Evidence:
    part = made.part(made.receipt(), final=False)
    return made.evidence(change(part, proof=made.prove(part.signed.batch, **how)))  # type: ignore[arg-type]


def test_the_files_own_policy_is_not_the_readers() -> None:
    report = check(logged(), policy=None)
    assert (report.outcome, report.state) == ("inconclusive", "final")
    assert unclear(report) == ["policy"]


def test_without_any_policy_nothing_vouches_for_the_log() -> None:
    report = check(change(logged(), policy=None), policy=None)
    assert unclear(report) == ["policy", "log", "witnesses", "inclusion"]
    assert report.state == "provisional"


def test_a_policy_in_the_file_must_parse_and_the_readers_is_an_error() -> None:
    assert "policy" in failed(check(change(logged(), policy="quorum nobody\n"), policy=None))
    for policy in ("quorum nobody\n", "\ud800"):
        with pytest.raises(MalformedError):
            check(logged(), policy=policy)


def test_another_log_fails() -> None:
    report = check(logged(log=made.OTHER_LOG))
    assert failed(report) == ["log"]
    assert report.state == "provisional"


def test_too_few_witnesses_are_inconclusive() -> None:
    report = check(logged(witnesses=made.WITNESSES[:1]))
    assert unclear(report) == ["witnesses"]
    assert (report.outcome, report.state) == ("inconclusive", "provisional")


def test_a_false_cosignature_fails() -> None:
    class Forger(Signer):
        """Signs something else under the witness's name and key id."""

        def sign(self, message: bytes) -> bytes:
            return super().sign(message + b"!")

    forger = Forger(made.WITNESSES[0].name, bytes([4]) * 32)
    report = check(logged(witnesses=(forger, made.WITNESSES[1])))
    assert failed(report) == ["witnesses"]


def test_a_policy_without_witnesses_says_what_that_means() -> None:
    report = check(logged(witnesses=()), policy=f"log {made.LOG.vkey}\nquorum none\n")
    assert report.outcome == "pass"
    assert "no witnesses" in step(report, "witnesses").detail


@pytest.mark.parametrize(
    "edit",
    [
        lambda proof: proof.replace("index 2", "index 1"),
        lambda proof: proof.replace("index 2", "index 7"),
    ],
)
def test_another_place_in_the_log_fails(edit: Callable[[str], str]) -> None:
    part = made.part(made.receipt())
    assert part.proof is not None
    report = check(made.evidence(change(part, proof=edit(part.proof))))
    assert failed(report) == ["inclusion"]


def test_the_proof_of_another_batch_fails() -> None:
    other = made.sign(change(made.receipt(), answer="ans_2"))
    part = change(made.part(made.receipt()), proof=made.prove(other.batch))
    assert failed(check(made.evidence(part))) == ["inclusion"]


@pytest.mark.parametrize("proof", ["", "nonsense", "c2sp.org/tlog-proof@v1\nindex 1\n\n"])
def test_a_proof_that_does_not_parse_fails(proof: str) -> None:
    part: EvidencePart = change(made.part(made.receipt()), proof=proof)
    report = check(made.evidence(part))
    assert "log" in failed(report)
    assert report.state == "provisional"


def test_a_log_that_shows_two_trees_of_one_size_has_forked() -> None:
    first, last = (
        made.part(item, by)
        for item, by in zip(made.two_parts(), (made.ALPHA, made.BETA), strict=True)
    )
    file = made.evidence(
        first, change(last, proof=made.prove(last.signed.batch, before=(b"x", b"y")))
    )
    report = check(file)
    assert failed(report) == ["log"]
    assert "two trees" in step(report, "log").detail


def test_details_can_not_steer_a_terminal() -> None:
    odd = "\x1b[2J" + "x" * 500
    item = change(made.receipt(), attempt=odd, operator=odd)
    report = check(change(made.evidence(made.part(item)), answer=odd))
    assert all("\x1b" not in step.detail and len(step.detail) < 1000 for step in report.steps)


def test_each_signature_of_a_file_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    document = json.loads(made.VECTORS.read_text())
    final = next(case for case in document["cases"] if case["name"] == "final")
    keys = [EvidenceKey(**key) for key in document["trusted_keys"]]
    checked: list[bytes] = []
    check = ed25519.crypto_sign_open

    def counted(signed: bytes, public: bytes) -> bytes:
        checked.append(signed)
        return check(signed, public)

    monkeypatch.setattr(ed25519, "crypto_sign_open", counted)
    open_batch.cache_clear()
    file = final["evidence"].encode()
    assert verify(file, policy=document["policy"], trusted_keys=keys).outcome == "pass"
    # The node's, the log's, and two witnesses'.
    assert len(set(checked)) == len(checked) == 4


@pytest.mark.parametrize(
    ("lines", "result", "verdicts"),
    [(made.AS_MANY, "pass", "pass"), (made.TOO_MANY, "inconclusive", "not_applicable")],
    ids=["as many as are checked", "more"],
)
def test_of_ml_dsa_signatures_no_more_are_checked_than_are_said(
    lines: tuple[int, ...], result: str, verdicts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = 0
    check_one = ml_dsa.is_valid

    def counted(public: bytes, message: bytes, signature: bytes) -> bool:
        nonlocal checks
        checks += 1
        return check_one(public, message, signature)

    monkeypatch.setattr(ml_dsa, "is_valid", counted)
    report = check(
        made.crowded(lines), policy=made.ANY_POLICY, trusted_keys=(*made.KEYS, made.VERIFIER_KEY)
    )
    assert checks == 1024
    found = [step(report, title).result for title in ("log", "witnesses", "inclusion")]
    assert found == [result] * 3
    assert step(report, "verdicts").result == verdicts


def test_a_checkpoint_that_does_not_verify_is_checked_once_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checks: list[bytes] = []
    monkeypatch.setattr(ml_dsa, "is_valid", lambda *given: bool(checks.append(given[2])))
    file = made.crowded((3,))
    report = check(change(file, verdicts=()), policy=made.ANY_POLICY)
    assert step(report, "witnesses").result == "fail"
    assert len(checks) == 1
