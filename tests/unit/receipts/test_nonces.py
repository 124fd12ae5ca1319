"""Commitments to nonces: read back as written, and only their own nonces are in them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.base.errors import InclusionError, MalformedError, SignatureError
from trunkline.crypto import merkle
from trunkline.crypto.signer import Signer, sign_note
from trunkline.receipts import NonceCommitment, open_nonces, verify_nonce
from trunkline.receipts.nonces import (
    NONCES_COUNT_MAX,
    NONCES_NOTE_BYTES_MAX,
    PATH_HASHES_MAX,
    nonce_at,
    nonce_leaves,
)

NODE = Signer.generate("alpha.example/node", b"\x07" * 32)
OTHER = Signer.generate("beta.example/node", b"\x08" * 32)
SECRET = b"\x09" * 32


def commitment(**more: object) -> NonceCommitment:
    leaves = nonce_leaves(SECRET, 5)
    fields: dict[str, object] = {
        "node": NODE.name, "count": 5, "root": merkle.root(leaves), "unix_ms": 1_780_000_000_000,
    }  # fmt: skip
    return NonceCommitment(**(fields | more))  # type: ignore[arg-type]


def test_each_nonce_is_in_its_place_and_in_no_other() -> None:
    made = commitment()
    leaves = nonce_leaves(SECRET, 5)
    for index in range(5):
        path = merkle.audit_path(leaves, index)
        verify_nonce(made, index, nonce_at(SECRET, index), path)
        with pytest.raises(InclusionError):
            verify_nonce(made, index, nonce_at(SECRET, (index + 1) % 5), path)
        with pytest.raises(InclusionError):
            verify_nonce(made, index, nonce_at(b"\x0a" * 32, index), path)
    assert len({nonce_at(SECRET, index) for index in range(NONCES_COUNT_MAX)}) == NONCES_COUNT_MAX


def test_bounds_come_before_hashing() -> None:
    path = merkle.audit_path(nonce_leaves(SECRET, 5), 0)
    with pytest.raises(MalformedError, match="32 bytes"):
        verify_nonce(commitment(), 0, b"short", path)
    with pytest.raises(MalformedError, match="too long"):
        verify_nonce(commitment(), 0, nonce_at(SECRET, 0), path * (PATH_HASHES_MAX + 1))
    with pytest.raises(InclusionError):
        verify_nonce(commitment(), 5, nonce_at(SECRET, 5), path)


def test_a_note_is_the_named_nodes_alone() -> None:
    signed = sign_note(commitment().text(), NODE)
    assert open_nonces(signed, NODE.vkey) == commitment()
    with pytest.raises(SignatureError):
        open_nonces(signed, OTHER.vkey)
    with pytest.raises(SignatureError, match="another node"):
        open_nonces(sign_note(commitment().text(), OTHER), OTHER.vkey)
    with pytest.raises(SignatureError, match="plain"):
        open_nonces(signed, NODE.cosigner_vkey)
    with pytest.raises(MalformedError, match="one signature"):
        open_nonces(signed + signed.rpartition(b"\n\n")[2], NODE.vkey)
    with pytest.raises(MalformedError, match="too long"):
        open_nonces(signed + b"x" * NONCES_NOTE_BYTES_MAX, NODE.vkey)


@pytest.mark.parametrize(
    "more",
    [
        {"node": "no name"}, {"count": 0}, {"count": NONCES_COUNT_MAX + 1}, {"root": bytes(31)},
        {"unix_ms": -1}, {"unix_ms": 2**53},
    ],
)  # fmt: skip
def test_what_could_not_be_read_back_is_not_signed(more: dict[str, object]) -> None:
    with pytest.raises(MalformedError):
        commitment(**more).text()


@given(st.binary() | st.text(alphabet="\n0123456789=Aa/").map(str.encode))
def test_any_bytes_are_a_commitment_as_written_or_malformed(data: bytes) -> None:
    try:
        assert NonceCommitment.parse(data).text() == data
    except MalformedError:
        return


@given(st.integers(0, 200), st.integers(0, 255))
def test_a_changed_byte_is_another_commitment_or_none(at: int, value: int) -> None:
    text = bytearray(commitment().text())
    at %= len(text)
    changed = text[at] != value
    text[at] = value
    try:
        assert (NonceCommitment.parse(bytes(text)) != commitment()) == changed
    except MalformedError:
        assert changed
