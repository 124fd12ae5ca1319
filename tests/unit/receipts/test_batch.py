"""Batches: what one signature covers, and everything that must break it."""

from collections.abc import Callable

import msgspec
import pytest

from trunkline.base.errors import (
    CorruptStateError,
    InclusionError,
    MalformedError,
    SignatureError,
    VerificationError,
)
from trunkline.crypto import merkle
from trunkline.crypto.keys import VerifierKey
from trunkline.crypto.signer import Signer, sign_note
from trunkline.receipts import (
    BATCH_RECEIPTS_MAX,
    Batch,
    BatchBuilder,
    Receipt,
    batch_text,
    encode,
    open_batch,
    receipt_leaf,
    verify_signed,
)
from trunkline.schema.attempt import SignedReceipt
from trunkline.tlog.checkpoint import Checkpoint

Make = Callable[..., Receipt]


def sign(signer: Signer, receipts: list[bytes], **changes: object) -> tuple[SignedReceipt, ...]:
    builder = BatchBuilder(signer.name)
    for data in receipts:
        builder.add(data)
    sealed = builder.seal(previous=None, unix_ms=7)
    if changes:
        values = {"node": signer.name, "count": len(receipts), "root": sealed.root}
        text = batch_text(**(values | {"previous": None, "unix_ms": 7} | changes))  # type: ignore[arg-type]
        return sealed.signed(sign_note(text, signer))
    return sealed.signed(sign_note(sealed.text, signer))


@pytest.mark.parametrize("count", [1, 2, 3, 5, 33, BATCH_RECEIPTS_MAX])
def test_every_receipt_of_a_batch_verifies_alone(
    make_receipt: Make, alpha: Signer, count: int
) -> None:
    encoded = [encode(make_receipt(attempt=f"att_{index}")) for index in range(count)]
    for index, signed in enumerate(sign(alpha, encoded)):
        verified = verify_signed(signed, alpha.vkey)
        assert verified.receipt.attempt == f"att_{index}"
        assert verified.leaf == receipt_leaf(encoded[index])
        assert verified.batch.count == count
        assert (verified.batch.previous, verified.batch.unix_ms) == (None, 7)


@pytest.mark.parametrize("count", range(1, BATCH_RECEIPTS_MAX + 1))
def test_the_tree_is_that_of_rfc_6962(count: int) -> None:
    builder = BatchBuilder("n")
    leaves = [builder.add(b"%d" % index) for index in range(count)]
    sealed = builder.seal(previous=None, unix_ms=0)
    assert sealed.root == merkle.root(leaves)
    assert sealed.leaves == tuple(leaves)
    assert [list(path) for path in sealed.paths] == [
        merkle.audit_path(leaves, index) for index in range(count)
    ]


def test_another_key_is_refused(make_receipt: Make, alpha: Signer, beta: Signer) -> None:
    (signed,) = sign(alpha, [encode(make_receipt())])
    for key in (beta.vkey, Signer.generate(alpha.name, bytes(32)).vkey, alpha.cosigner_vkey):
        with pytest.raises(SignatureError):
            verify_signed(signed, key)


def test_a_receipt_names_the_key_that_signs_it(
    make_receipt: Make, alpha: Signer, beta: Signer
) -> None:
    (signed,) = sign(beta, [encode(make_receipt())])
    with pytest.raises(SignatureError) as caught:
        verify_signed(signed, beta.vkey)
    assert caught.value.error_code == "wrong_key"
    (signed,) = sign(alpha, [encode(make_receipt(node="other.example/node"))])
    with pytest.raises(SignatureError) as caught:
        verify_signed(signed, alpha.vkey)
    assert caught.value.error_code == "wrong_node"


def test_a_batch_names_the_node_that_signs_it(
    make_receipt: Make, alpha: Signer, beta: Signer
) -> None:
    (signed,) = sign(alpha, [encode(make_receipt())], node=beta.name)
    with pytest.raises(SignatureError) as caught:
        verify_signed(signed, alpha.vkey)
    assert caught.value.error_code == "wrong_node"


def test_a_receipt_of_another_batch_is_refused(make_receipt: Make, alpha: Signer) -> None:
    first, second = encode(make_receipt()), encode(make_receipt(answer="ans_2"))
    (signed,) = sign(alpha, [first])
    (other,) = sign(alpha, [second])
    with pytest.raises(InclusionError):
        verify_signed(msgspec.structs.replace(signed, receipt=other.receipt), alpha.vkey)


@pytest.mark.parametrize("change", [{"index": 1}, {"index": -1}, {"index": 2**70}, {"path": ()}])
def test_a_place_in_the_batch_is_exact(
    make_receipt: Make, alpha: Signer, change: dict[str, object]
) -> None:
    encoded = [encode(make_receipt(attempt=f"att_{index}")) for index in range(2)]
    signed = sign(alpha, encoded)[0]
    with pytest.raises(InclusionError):
        verify_signed(msgspec.structs.replace(signed, **change), alpha.vkey)


@pytest.mark.parametrize("path", [("!",), ("AAAA",), ("A" * 43 + "=",) * 7, ("\ud800",)])
def test_a_path_is_short_and_well_spelt(
    make_receipt: Make, alpha: Signer, path: tuple[str, ...]
) -> None:
    (signed,) = sign(alpha, [encode(make_receipt())])
    with pytest.raises((MalformedError, VerificationError)):
        verify_signed(msgspec.structs.replace(signed, path=path), alpha.vkey)


def test_a_second_signature_is_refused(make_receipt: Make, alpha: Signer, beta: Signer) -> None:
    (signed,) = sign(alpha, [encode(make_receipt())])
    text = signed.batch.partition("\n\n")[0] + "\n"
    extra = beta.signature(text.encode()).line().decode()
    with pytest.raises(MalformedError):
        verify_signed(msgspec.structs.replace(signed, batch=signed.batch + extra), alpha.vkey)


def test_text_round_trips(alpha: Signer) -> None:
    batch = Batch(node=alpha.name, count=3, root=bytes(32), previous=b"\x01" * 32, unix_ms=0)
    assert Batch.parse(batch.text()) == batch
    assert open_batch(sign_note(batch.text(), alpha), alpha.vkey) == batch
    assert (batch.audited, batch.drawable) == (None, 3)
    counted = msgspec.structs.replace(batch, audited=2)
    assert Batch.parse(counted.text()) == counted
    assert counted.drawable == 2


GOOD = f"trunkline.batch/v1\nn\n1\n{'A' * 43}=\n-\n0\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("batch/v1", "batch/v2"),
        ("\nn\n", "\n\n"),
        ("\nn\n", "\na b\n"),
        ("\nn\n", "\na+b\n"),
        ("\n1\n", "\n0\n"),
        ("\n1\n", "\n65\n"),
        ("\n1\n", "\n01\n"),
        ("\n1\n", "\n+1\n"),
        ("\n1\n", "\n١\n"),
        ("A=", "B="),
        ("A=", "A"),
        ("\n-\n", "\n\n"),
        ("\n0\n", "\n9007199254740992\n"),
        ("\n0\n", "\n0"),
        ("\n0\n", "\n0\n\n"),
        ("\n0\n", "\r\n0\n"),
        ("\n0\n", "\n0\n2\n"),
        ("\n0\n", "\n0\n01\n"),
        ("\n0\n", "\n0\n-\n"),
        ("\n0\n", "\n0\n1"),
        ("\n0\n", "\n0\n1\n1\n"),
    ],
)
def test_other_texts_are_refused(old: str, new: str) -> None:
    assert Batch.parse(GOOD.encode()).count == 1
    assert old in GOOD
    with pytest.raises(MalformedError):
        Batch.parse(GOOD.replace(old, new).encode())


def test_a_batch_is_no_checkpoint_and_a_checkpoint_no_batch() -> None:
    with pytest.raises(MalformedError):
        Checkpoint.parse(GOOD.encode())
    # The nearest miss: a node called "1" whose batch's third line is read as a root.
    with pytest.raises(MalformedError):
        Checkpoint.parse(GOOD.replace("\nn\n", "\n1\n").encode())
    checkpoint = Checkpoint(
        origin="trunkline.batch/v1", size=1, root=bytes(32), extensions=("-", "0", "0")
    )
    with pytest.raises(MalformedError):
        Batch.parse(checkpoint.text())


def test_a_builder_takes_neither_none_nor_too_many(alpha: Signer) -> None:
    builder = BatchBuilder(alpha.name)
    with pytest.raises(CorruptStateError):
        builder.seal(previous=None, unix_ms=0)
    for index in range(BATCH_RECEIPTS_MAX):
        assert not builder.full
        builder.add(b"%d" % index)
    assert builder.full
    assert len(builder) == BATCH_RECEIPTS_MAX
    with pytest.raises(CorruptStateError):
        builder.add(b"one more")


@pytest.mark.parametrize(
    "wrong",
    [
        {"node": ""},
        {"count": 0},
        {"root": b""},
        {"previous": b""},
        {"unix_ms": -1},
        {"audited": 2},
        {"audited": -1},
    ],
)
def test_no_text_is_written_that_could_not_be_read(wrong: dict[str, object]) -> None:
    values = {"node": "n", "count": 1, "root": bytes(32), "previous": None, "unix_ms": 0}
    with pytest.raises(ValueError, match=r"node|batch|root"):
        batch_text(**(values | wrong))  # type: ignore[arg-type]


def test_the_receipts_of_a_batch_share_one_check_of_its_signature(
    make_receipt: Make, alpha: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = []
    verify = VerifierKey.verify

    def counted(key: VerifierKey, message: bytes, signature: bytes) -> None:
        checked.append(message)
        verify(key, message, signature)

    monkeypatch.setattr(VerifierKey, "verify", counted)
    first = sign(alpha, [encode(make_receipt(attempt=f"att_{index}")) for index in range(8)])
    second = sign(alpha, [encode(make_receipt(attempt="att_8"))])
    open_batch.cache_clear()
    for signed in (*first, *second, *first):
        verify_signed(signed, alpha.vkey)
    assert len(checked) == 2


def test_a_batch_that_does_not_verify_is_checked_each_time(
    make_receipt: Make, alpha: Signer, beta: Signer
) -> None:
    (signed,) = sign(alpha, [encode(make_receipt())])
    verify_signed(signed, alpha.vkey)
    impostor = VerifierKey.create(
        name=alpha.name, algorithm=alpha.vkey.algorithm, public=beta.vkey.public
    )
    for _ in range(2):
        with pytest.raises(SignatureError):
            verify_signed(signed, impostor)


def test_what_is_remembered_of_one_path_never_stands_for_another(
    make_receipt: Make, alpha: Signer
) -> None:
    """The paths of one batch meet, and still each is checked whole."""
    encoded = [encode(make_receipt(attempt=f"att_{index}")) for index in range(5)]
    signed = sign(alpha, encoded)
    for one in signed:
        verify_signed(one, alpha.vkey)
    hashes = {text for one in signed for text in one.path}
    for one in signed:
        for place, right in enumerate(one.path):
            for other in hashes - {right}:
                path = (*one.path[:place], other, *one.path[place + 1 :])
                with pytest.raises(InclusionError):
                    verify_signed(msgspec.structs.replace(one, path=path), alpha.vkey)
