"""Keys: what is refused, and that the private half never shows."""

import pytest

from trunkline.base.errors import MalformedError
from trunkline.crypto.digest import digest, parse_digest, sha256
from trunkline.crypto.keys import VerifierKey
from trunkline.crypto.signer import Signer

# The published test key of the Tessera vectors (see shared/vectors/README.md).
SKEY = "PRIVATE+KEY+example.com/log/testdata+33d7b496+AeymY/SZAX0jZcJ8enZ5FY1Dz+wTML2yWSkK+9DSF3eg"
VKEY = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx"


def test_a_published_key_pair_reads():
    signer = Signer.parse(SKEY)
    assert str(signer.vkey) == VKEY
    assert signer.skey() == SKEY
    assert signer.name == "example.com/log/testdata"


def test_the_private_key_is_not_shown():
    signer = Signer.parse(SKEY)
    assert "AeymY" not in repr(signer)
    assert not hasattr(signer, "__dict__")


def test_the_cosigning_key_has_its_own_id():
    signer = Signer.parse(SKEY)
    assert signer.cosigner_vkey.algorithm == 4
    assert signer.cosigner_vkey.public == signer.vkey.public
    assert signer.cosigner_vkey.key_id != signer.vkey.key_id


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "name",
        VKEY.replace("33d7b496", "33d7b497"),
        VKEY.replace("33d7b496", "33D7B496"),
        VKEY.replace("example.com", "example com"),
        VKEY.replace("+AeHT", "+AuHT"),
        VKEY[:-4],
        VKEY + "\n",
        "x" * 600,
        "name+00000000+",
        "\ud800" + VKEY,
    ],
)
def test_what_is_not_a_verifier_key(vkey):
    with pytest.raises(MalformedError):
        VerifierKey.parse(vkey)


@pytest.mark.parametrize(
    "skey",
    [
        "",
        VKEY,
        SKEY.replace("33d7b496", "33d7b497"),
        SKEY.replace("+Aeym", "+Beym"),
        SKEY[:-4],
        SKEY + "\n",
        SKEY + "A" * 600,
    ],
)
def test_what_is_not_a_private_key(skey):
    with pytest.raises(MalformedError) as caught:
        Signer.parse(skey)
    assert "AeymY" not in str(caught.value)


def test_a_seed_has_32_bytes():
    with pytest.raises(MalformedError):
        Signer.generate("name", b"short")


def test_digests():
    assert parse_digest(digest(b"abc")) == sha256(b"abc")
    for text in ("", "sha256:", "sha256:" + "A" * 64, digest(b"") + "\n", digest(b"")[:-1]):
        with pytest.raises(MalformedError):
            parse_digest(text)
