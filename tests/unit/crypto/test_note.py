"""Signed notes against the examples printed in the C2SP texts, and each way to be wrong."""

import pytest

from trunkline.base.errors import MalformedError, SignatureError
from trunkline.crypto import note
from trunkline.crypto.keys import VerifierKey
from trunkline.crypto.signer import Signer, sign_note

# The example of C2SP signed-note, "Verifier keys".
VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
NOTE = (
    "This is an example message.\n"
    "\n"
    "— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3"
    "mFXmRKuwHjG1Yu72IneyaQM=\n"
).encode()
SIGNER = Signer.generate("beta.example/node", b"\x07" * 32)


def test_the_specifications_example_verifies():
    key = VerifierKey.parse(VKEY)
    parsed = note.parse(NOTE)
    parsed.verify(key)
    assert parsed.text == b"This is an example message.\n"
    assert str(key) == VKEY


def test_signatures_by_unknown_keys_are_ignored():
    stranger = Signer.generate("stranger.example", b"\x01" * 32)
    parsed = note.parse(NOTE)
    both = note.format(parsed.text, (stranger.signature(b"something else\n"), *parsed.signatures))
    note.parse(both).verify(VerifierKey.parse(VKEY))


def test_an_unknown_key_may_have_any_name():
    parsed = note.parse(NOTE)
    line = note.NoteSignature(name="u" * 5000, key_id=7, signature=b"?")
    with_it = note.parse(note.format(parsed.text, (line, *parsed.signatures)))
    with_it.verify(VerifierKey.parse(VKEY))
    # A key that counts, on the other hand, is somebody's here.
    with pytest.raises(MalformedError):
        VerifierKey.create(name="u" * 256, algorithm=1, public=b"\x01" * 32)


def test_one_bad_line_by_a_known_key_condemns_the_note():
    text = b"fine\n"
    lines = (SIGNER.signature(text), SIGNER.signature(b"other\n"))
    with pytest.raises(SignatureError):
        note.parse(note.format(text, lines)).verify(SIGNER.vkey)


def test_a_note_without_the_keys_signature_does_not_verify():
    with pytest.raises(SignatureError, match="no signature by"):
        note.parse(NOTE).verify(SIGNER.vkey)


def test_a_cosignature_key_verifies_its_timestamp_too():
    text = b"example.com/log\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"
    line = SIGNER.cosignature(text, 1_700_000_000)
    SIGNER.cosigner_vkey.verify(text, line.signature)
    later = (1_700_000_001).to_bytes(8, "big") + line.signature[8:]
    with pytest.raises(SignatureError):
        SIGNER.cosigner_vkey.verify(text, later)
    with pytest.raises(SignatureError):
        SIGNER.vkey.verify(text, line.signature[8:])
    with pytest.raises(SignatureError, match="72 bytes"):
        SIGNER.cosigner_vkey.verify(text, line.signature[8:])
    with pytest.raises(SignatureError, match="too large"):
        SIGNER.cosigner_vkey.verify(text, b"\xff" * 72)


@pytest.mark.parametrize("timestamp_s", [0, -1, 2**63])
def test_a_cosignature_has_a_time(timestamp_s):
    with pytest.raises(MalformedError):
        SIGNER.cosignature(b"text\n", timestamp_s)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"text\n",
        b"text\n\n",
        NOTE[:-1],
        NOTE.replace(b"example message", b"tab\tmessage"),
        NOTE.replace(b"message", b"\xff"),
        NOTE.replace("— ".encode(), b"- "),
        NOTE + b"\n",
        "text\n\n— name \n".encode(),
        "text\n\n— name AAAAAA==\n".encode(),
        "text\n\n— na+me AAAAAAAA\n".encode(),
        "text\n\n—  AAAAAAAA\n".encode(),
        "text\n\n— name AAAAAAB=\n".encode(),
        "text\n\n— name AAAAAAAA AAAA\n".encode(),
        b"text\n\n" + "— name AAAAAAAA\n".encode() * 101,
        b"x" * 1_000_000 + NOTE,
    ],
    ids=range(17),
)
def test_what_is_not_a_note_is_malformed(data):
    with pytest.raises(MalformedError):
        note.parse(data)


def test_a_hundred_signatures_are_read():
    many = b"text\n\n" + "— name AAAAAAAA\n".encode() * 100
    assert len(note.parse(many).signatures) == 100


@pytest.mark.parametrize("text", [b"", b"no newline", b"tab\t\n", b"\xff\n"])
def test_what_no_note_can_hold_is_not_signed(text):
    with pytest.raises(MalformedError):
        sign_note(text, SIGNER)


def test_a_note_needs_a_signature():
    with pytest.raises(MalformedError):
        note.format(b"text\n", ())


def test_a_note_of_one_signature_is_opened_by_its_signer_alone():
    def open_(data: bytes, key: VerifierKey = SIGNER.vkey, bytes_max: int = 1000) -> bytes:
        return note.open_sole(data, key, bytes.upper, what="a test", bytes_max=bytes_max)

    data = sign_note(b"fine\n", SIGNER)
    assert open_(data) == b"FINE\n"
    with pytest.raises(MalformedError, match=r"a test of .* bytes is too long"):
        open_(data, bytes_max=len(data) - 1)
    with pytest.raises(MalformedError, match="exactly one signature"):
        open_(note.format(b"fine\n", [SIGNER.signature(b"fine\n")] * 2))
    with pytest.raises(SignatureError, match="no signature"):
        open_(data, Signer.generate("stranger.example", b"\x01" * 32).vkey)
    with pytest.raises(SignatureError, match="does not verify"):
        open_(note.format(b"fine\n", [SIGNER.signature(b"other\n")]))
    with pytest.raises(SignatureError, match="a plain Ed25519 key") as caught:
        open_(data, SIGNER.cosigner_vkey)
    assert caught.value.error_code == "wrong_key"
