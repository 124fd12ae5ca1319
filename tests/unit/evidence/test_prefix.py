"""A part that goes on after text: what its receipt has to say, and what the text itself shows."""

import msgspec
import pytest
from tests.unit.evidence import make_vectors as made
from tests.unit.evidence.test_verify import check, failed, step

from trunkline.receipts import Receipt, ReceiptAttempt, prefix_digest, tokens_digest

change = msgspec.structs.replace


def stream(*chunks: bytes) -> bytes:
    return b"".join(b"data: %b\n\n" % chunk for chunk in (*chunks, b"[DONE]"))


def response(item: Receipt, **changes: object) -> Receipt:
    return change(item, response=change(item.response, **changes))


def test_a_single_continued_part_says_how_much_text_it_took_over() -> None:
    report = check(made.evidence(made.part(made.continued(), made.BETA)))
    assert report.outcome == "pass"
    assert "12 characters of text were taken over" in step(report, "parts").detail


def test_the_text_before_is_held_against_what_the_receipt_binds() -> None:
    file = made.evidence(made.part(made.continued(), made.BETA))
    good = step(check(file, response=stream(*made.SHOWN, *made.CHUNKS[4:])), "response")
    assert good.result == "inconclusive"
    assert "say the text that was taken over" in good.detail
    for other in (made.SHOWN[:1], made.SHOWN[::-1], (b'{"choices":7}', b"{}"), ()):
        report = check(file, response=stream(*other, *made.CHUNKS[4:]))
        assert "response" in failed(report)


@pytest.mark.parametrize(
    "wrong",
    [
        response(made.continued(), prefix=""),
        response(made.continued(), prefix_characters=0),
        response(made.continued(), prefix_characters=11),
        response(made.continued(), finish=("stop", "stop")),
        response(made.continued(), resumed=(3,), resumed_digest=tokens_digest([[1, 2, 3]])),
        change(made.continued(), route=()),
        response(made.continued(), prefix="", prefix_characters=0),
    ],
)
def test_what_contradicts_itself_fails(wrong: Receipt) -> None:
    assert failed(check(made.evidence(made.part(wrong, made.BETA)))) == ["parts"]


def parts(first: Receipt, last: Receipt) -> list[str]:
    signed = made.part(first), made.part(last, made.BETA)
    return failed(check(made.evidence(*signed)))


def test_a_part_after_a_signed_one_goes_on_with_the_same_model() -> None:
    last = made.continued()
    first = change(made.receipt(chunks=made.CHUNKS[:4]), model=last.model, sampling=last.sampling)
    assert parts(first, last) == []
    weights = change(last.model, weights="sha256:" + "3e" * 32)
    assert parts(first, change(last, model=weights)) == ["parts"]
    longer = made.TEXT + " the quiet"
    before = ReceiptAttempt(
        attempt="att_0", characters=len(longer), error="stalled", node=made.ALPHA.name, tokens=()
    )
    more = response(first, prefix=prefix_digest(longer), prefix_characters=len(longer))
    shrunk = change(
        last, route=(change(before, characters=0), change(last.route[0], characters=12))
    )
    assert parts(change(more, route=(before,)), shrunk) == ["parts"]
