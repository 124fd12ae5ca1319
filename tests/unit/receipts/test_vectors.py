"""The vectors beside the specification are what the script makes, and what Trunkline computes."""

import json

import pytest
from tests.unit.receipts import make_vectors as made

from trunkline.base.errors import MalformedError, VerificationError
from trunkline.crypto.canonical import parse_canonical
from trunkline.crypto.digest import parse_digest
from trunkline.crypto.keys import VerifierKey
from trunkline.receipts import (
    Hiding,
    ReceiptCached,
    binds,
    decode,
    encode,
    prompt_digest,
    receipt_leaf,
    request_digest,
    salts,
    stream_digest,
    tokens_digest,
    verify_signed,
)
from trunkline.receipts.hiding import bound
from trunkline.schema.attempt import SignedReceipt

DOCUMENT = json.loads(made.VECTORS.read_text())


def test_the_file_is_up_to_date() -> None:
    assert made.VECTORS.read_text() == made.document(), (
        "run: python -m tests.unit.receipts.make_vectors"
    )


def test_a_cached_answer() -> None:
    data = DOCUMENT["cached"]["receipt"].encode()
    receipt = decode(data)
    assert encode(receipt) == data
    assert receipt_leaf(data).hex() == DOCUMENT["cached"]["leaf"]
    assert receipt.cached == ReceiptCached(ended_ms=3, receipt="0f" * 32)


def test_digests() -> None:
    request = DOCUMENT["request"]
    assert request_digest(request["body"].encode()) == request["digest"]
    assert prompt_digest(DOCUMENT["prompt"]["ids"]) == DOCUMENT["prompt"]["digest"]
    for case in DOCUMENT["tokens"]:
        assert tokens_digest(case["choices"]) == case["digest"]
    for case in DOCUMENT["stream"]:
        chunks = [chunk.encode() for chunk in case["chunks"]]
        bound = parse_digest(request["digest"])
        assert stream_digest(bound, case["attempt"], chunks) == case["digest"]


def test_salted_digests() -> None:
    """Computed in the script with ``hmac`` and ``hashlib``, straight from the specification."""
    salted = DOCUMENT["salted"]
    receipt = decode(salted["receipt"].encode())
    opened = salts(receipt, bytes.fromhex(salted["blinding"]))
    assert opened == {case["item"]: case["salt"] for case in salted["items"]}
    bind = Hiding(salted["blinding"], answer=receipt.answer, attempt=receipt.attempt).bind
    for case in salted["items"]:
        assert bind(case["item"], case["digest"]) == bound(receipt, case["item"])
        assert binds(receipt, case["item"], case["digest"], opened)
        assert binds(receipt, case["item"], case["digest"], {}) is None


def test_batch() -> None:
    batch = DOCUMENT["batch"]
    key = VerifierKey.parse(batch["vkey"])
    for index, case in enumerate(batch["receipts"]):
        data = case["receipt"].encode()
        signed = SignedReceipt(
            receipt=case["receipt"], batch=batch["note"], index=index, path=tuple(case["path"])
        )
        verified = verify_signed(signed, key)
        assert encode(decode(data)) == data
        assert verified.leaf.hex() == receipt_leaf(data).hex() == case["leaf"]


def counted(note: str) -> list[SignedReceipt]:
    return [
        SignedReceipt(receipt=case["receipt"], batch=note, index=index, path=tuple(case["path"]))
        for index, case in enumerate(DOCUMENT["counted"]["receipts"])
    ]


def test_a_batch_that_says_how_many_may_be_audited() -> None:
    key = VerifierKey.parse(DOCUMENT["batch"]["vkey"])
    for signed in counted(DOCUMENT["counted"]["note"]):
        assert verify_signed(signed, key).batch.audited == DOCUMENT["counted"]["audited"]
    assert verify_signed(signed, key).batch.text().endswith(b"\n1\n")
    for note in DOCUMENT["counted"]["contradicted"]:
        problems = []
        for signed in counted(note):
            try:
                verify_signed(signed, key)
            except VerificationError as error:
                problems.append(error.error_code)
        assert problems == ["audit_contradicted"]
    for note in DOCUMENT["counted"]["refused"]:
        with pytest.raises(MalformedError):
            verify_signed(counted(note)[0], key)


@pytest.mark.parametrize("text", DOCUMENT["not_canonical"])
def test_what_is_not_canonical(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_canonical(text.encode(), bytes_max=100)
