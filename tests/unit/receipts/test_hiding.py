"""Salted digests: nothing of content can be guessed from a receipt, and each item opens alone."""

import msgspec
import pytest
from tests.unit.evidence import make_vectors as made

from trunkline.base.errors import MalformedError
from trunkline.evidence import Report, encode, verify
from trunkline.receipts import (
    ITEMS,
    REQUEST_ITEMS,
    RESPONSE_ITEMS,
    Hiding,
    Item,
    bound_bytes,
    request_digest,
    salts,
)
from trunkline.receipts import encode as encode_receipt
from trunkline.receipts.hiding import commit, salt_of


def report_of(kept: made.EvidenceBodies | None, *items: Item) -> Report:
    part = made.part(made.salted(), kept=kept) if kept is None else made.opened(kept, *items)
    return verify(encode(made.evidence(part)), policy=made.POLICY, trusted_keys=made.KEYS)


def results(report: Report) -> tuple[str, str]:
    """Of the steps request and response."""
    return report.steps[5].result, report.steps[6].result


def test_no_digest_of_content_is_in_the_receipt() -> None:
    """Whoever guesses the request or the answer can not tell from the receipt that it is right."""
    text = encode_receipt(made.salted()).decode()
    plain = made.receipt()
    for digest in (plain.request.client, plain.request.digest, plain.response.tokens):
        assert digest.removeprefix("sha256:") not in text
    assert plain.response.digest not in text
    guessed = request_digest(made.CLIENT_REQUEST)
    assert made.salted().request.client != commit("request.client", guessed, bytes(32))


def test_every_item_has_a_salt_of_its_own() -> None:
    drawn = {
        salt_of(made.BLINDING, item, answer=answer, attempt=attempt)
        for item in ITEMS
        for answer, attempt in (("a", "b"), ("a", "c"), ("d", "b"))
    }
    # A request's is the answer's: two of three; an answer's is the attempt's.
    assert len(drawn) == 2 * len(ITEMS)
    with pytest.raises(ValueError, match="hex"):
        Hiding("no hex", answer="a", attempt="b")


@pytest.mark.parametrize("item", REQUEST_ITEMS)
def test_takeovers_bind_the_same_request(item: Item) -> None:
    digest = request_digest(b"{}")
    first, later = (Hiding("ab" * 32, answer="a", attempt=name) for name in ("b", "c"))
    assert first.bind(item, digest) == later.bind(item, digest)
    assert first.bind("response.tokens", digest) != later.bind("response.tokens", digest)


def test_one_item_is_opened_and_the_others_stay_closed() -> None:
    request = made.EvidenceBodies(request=made.NODE_REQUEST, client_request=made.CLIENT_REQUEST)
    assert results(report_of(request, *REQUEST_ITEMS)) == ("pass", "not_applicable")
    response = made.EvidenceBodies(chunks=made.bodies().chunks)
    assert results(report_of(response, *RESPONSE_ITEMS)) == ("not_applicable", "pass")
    assert results(report_of(made.bodies(), *REQUEST_ITEMS)) == ("pass", "inconclusive")
    assert results(report_of(made.bodies(), *RESPONSE_ITEMS)) == ("inconclusive", "pass")


def test_without_salts_all_else_verifies() -> None:
    report = report_of(None)
    assert report.outcome == "pass"
    assert results(report) == ("not_applicable", "not_applicable")


@pytest.mark.parametrize("item", ["request.digest", "response.digest"])
def test_a_wrong_salt_opens_nothing(item: str) -> None:
    part = made.opened(made.bodies(), *ITEMS)
    wrong = bytearray(bytes.fromhex(part.salts[item]))
    for at in range(32):
        wrong[at] ^= 1
        changed = msgspec.structs.replace(part, salts=part.salts | {item: wrong.hex()})
        data = encode(made.evidence(changed))
        assert verify(data, policy=made.POLICY, trusted_keys=made.KEYS).outcome == "fail"
        wrong[at] ^= 1


def test_an_absent_digest_stays_absent() -> None:
    assert Hiding("ab" * 32, answer="a", attempt="b").bind("request.prompt", "") == ""
    assert Hiding("", answer="a", attempt="b").bind("request.prompt", "sha256:x") == "sha256:x"
    assert set(salts(made.salted(), made.BLINDING)) == {
        "request.client", "request.digest", "response.digest", "response.tokens",
    }  # fmt: skip
    assert salts(made.receipt(), made.BLINDING) == {}


def test_what_is_no_digest() -> None:
    digits = "a" * 64
    for text in (
        "", "salted:", "sha256:" + "A" * 64, "md5:" + digits, "md5:aaa" + digits, digits,
        "sha256:" + digits[1:], "sha256:a" + digits, f"sha256: {digits}", f"sha256:{digits} ",
        "sha256:" + "aa " * 32, "salted:" + "g" * 64, "salted:" + "١" * 64, "SHA256:" + digits,
    ):  # fmt: skip
        with pytest.raises(MalformedError):
            bound_bytes(text)
    assert bound_bytes("sha256:" + digits) == bound_bytes("salted:" + digits) == b"\xaa" * 32
