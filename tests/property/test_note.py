"""Signed notes, keys and the spellings in them: any bytes give a value or MalformedError."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.base.errors import MalformedError, SignatureError
from trunkline.crypto import note
from trunkline.crypto.encoding import (
    decode_base64,
    decode_decimal,
    decode_hash,
    encode_base64,
)
from trunkline.crypto.keys import VerifierKey, is_key_name
from trunkline.crypto.signer import Signer, sign_note

SIGNER = Signer.generate("alpha.example/node", bytes(range(32)))

names = st.text(min_size=1, max_size=20).filter(is_key_name)
texts = (
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=80)
    .flatmap(lambda line: st.just(line + "\n") | st.just(line + "\n\nmore\n"))
    .map(str.encode)
)
signatures = st.builds(
    note.NoteSignature,
    name=names,
    key_id=st.integers(0, 2**32 - 1),
    signature=st.binary(min_size=1, max_size=80),
)
broken = st.one_of(
    st.binary(max_size=200),
    st.binary(max_size=60).map(lambda b: b"text\n\n\xe2\x80\x94 " + b + b"\n"),
    st.text(max_size=60).map(lambda t: ("text\n\n— name " + t + "\n").encode("utf-8", "replace")),
)


@given(texts, st.lists(signatures, min_size=1, max_size=5))
def test_a_note_reads_back_as_written(text, lines):
    written = note.format(text, lines)
    read = note.parse(written)
    assert (read.text, read.signatures) == (text, tuple(lines))
    assert note.format(read.text, read.signatures) == written


@given(broken)
def test_any_bytes_are_a_note_or_malformed(data):
    with suppress(MalformedError):
        read = note.parse(data)
        assert note.format(read.text, read.signatures) == data
    with suppress(MalformedError):
        assert b"".join(line.line() for line in note.parse_signatures(data)) == data


@given(texts, st.data())
def test_a_flipped_bit_breaks_a_note(text, data):
    signed = sign_note(text, SIGNER)
    note.parse(signed).verify(SIGNER.vkey)
    bit = data.draw(st.integers(0, len(signed) * 8 - 1))
    flipped = bytearray(signed)
    flipped[bit // 8] ^= 1 << (bit % 8)
    with pytest.raises((MalformedError, SignatureError)):
        note.parse(bytes(flipped)).verify(SIGNER.vkey)


@given(names, st.binary(min_size=32, max_size=32))
def test_keys_read_back_as_written(name, seed):
    signer = Signer.generate(name, seed)
    assert VerifierKey.parse(str(signer.vkey)) == signer.vkey
    assert VerifierKey.parse(str(signer.cosigner_vkey)) == signer.cosigner_vkey
    assert Signer.parse(signer.skey()).vkey == signer.vkey


@given(st.text(max_size=80) | st.from_regex(r"[a-z ]{0,4}\+[0-9a-f]{8}\+[A-Za-z0-9+/=]{0,60}"))
def test_any_text_is_a_key_or_malformed(text):
    with suppress(MalformedError):
        assert str(VerifierKey.parse(text)) == text
    with suppress(MalformedError):
        assert Signer.parse("PRIVATE+KEY+" + text).skey() == "PRIVATE+KEY+" + text


@given(st.text(max_size=50) | st.binary(max_size=50))
def test_spellings_are_unique(text):
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    with suppress(MalformedError):
        assert encode_base64(decode_base64(text)).encode() == raw
    with suppress(MalformedError):
        assert b"%d" % decode_decimal(text) == raw
    with suppress(MalformedError):
        assert len(decode_hash(text)) == 32


@given(st.binary(max_size=200))
def test_base64_reads_back(data):
    assert decode_base64(encode_base64(data)) == data


@given(st.integers(0, 2**63 - 1))
def test_decimals_read_back(value):
    assert decode_decimal(str(value)) == value
