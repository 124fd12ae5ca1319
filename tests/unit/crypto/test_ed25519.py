"""Which Ed25519 signatures count: the spec's vectors, here and with another library."""

import json

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from tests.unit.crypto import make_ed25519 as made

from trunkline.crypto import ed25519

CASES = json.loads(made.FILE.read_text())["cases"]
ABOUT_THE_EQUATION = (
    "mixed order", "the same with a part of order 2", "one bit flipped", "another message",
    "the key's negative", "S = 0", "off the curve",
)  # fmt: skip


def values(case):
    return tuple(bytes.fromhex(case[name]) for name in ("public", "message", "signature"))


def test_the_file_is_what_the_script_writes():
    assert made.FILE.read_text() == made.render()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["comment"])
def test_the_vectors(case):
    assert ed25519.is_valid(*values(case)) is case["valid"]


def test_what_readers_differ_about_is_refused_before_the_library_is_asked(monkeypatch):
    monkeypatch.setattr(ed25519, "crypto_sign_open", takes_all)
    taken = {case["comment"] for case in CASES if ed25519.is_valid(*values(case))}
    valid = {case["comment"] for case in CASES if case["valid"]}
    left = {comment for comment in taken if not any(one in comment for one in ABOUT_THE_EQUATION)}
    assert left <= valid <= taken


def takes_all(signed, public):
    """A library that takes all signatures."""
    return signed[ed25519.SIGNATURE_BYTES :]


def test_openssl_takes_all_that_is_taken_here_and_more():
    def takes(case):
        public, message, signature = values(case)
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True

    taken = [case for case in CASES if takes(case)]
    assert [case for case in CASES if case["valid"]] == [case for case in taken if case["valid"]]
    # Why the rules are needed: a library in wide use differs about these.
    assert len([case for case in taken if not case["valid"]]) > 20


@pytest.mark.parametrize("cut", [(31, 64), (33, 64), (32, 63), (32, 65), (0, 0)])
def test_other_lengths_are_refused(cut):
    public, message, signature = values(CASES[0])
    assert ed25519.is_valid(public, message, signature)
    assert not ed25519.is_valid((public + b"\0")[: cut[0]], message, (signature + b"\0")[: cut[1]])
