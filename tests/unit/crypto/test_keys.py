"""Keys: what is refused, and that the private half never shows."""

import pytest

from trunkline.base.errors import MalformedError, SignatureError
from trunkline.crypto.digest import digest, parse_digest, sha256
from trunkline.crypto.keys import VerifierKey
from trunkline.crypto.signer import MlDsaCosigner, Signer, parse_cosigner

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
        "x" * 3000,
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


CHECKPOINT = b"log.example\n3\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"


def test_an_ml_dsa_key_file_reads_back():
    cosigner = MlDsaCosigner("w.example", b"\x07" * 32)
    again = parse_cosigner(cosigner.skey())
    assert str(again.cosigner_vkey) == str(cosigner.cosigner_vkey)
    assert VerifierKey.parse(str(cosigner.cosigner_vkey)) == cosigner.cosigner_vkey
    assert cosigner.cosigner_vkey.algorithm == 6
    assert "BwcH" not in repr(cosigner)
    assert not hasattr(cosigner, "__dict__")
    assert parse_cosigner(SKEY).cosigner_vkey.algorithm == 4
    for bad in (cosigner.skey().replace("+BgcH", "+BggH"), cosigner.skey().replace("w.", "v.")):
        with pytest.raises(MalformedError):
            parse_cosigner(bad)
    with pytest.raises(MalformedError):
        Signer.parse(cosigner.skey())


def test_an_ml_dsa_cosignature_is_of_one_name_time_and_tree():
    cosigner = MlDsaCosigner("w.example", b"\x07" * 32)
    key, line = cosigner.cosigner_vkey, cosigner.cosignature(CHECKPOINT, 1_700_000_000)
    key.verify(CHECKPOINT, line.signature)
    other_name = VerifierKey.create(name="v.example", algorithm=6, public=key.public)
    late = (1_700_000_001).to_bytes(8, "big") + line.signature[8:]
    refused = (
        (key, CHECKPOINT.replace(b"3", b"4"), line.signature),
        (key, CHECKPOINT.replace(b"log", b"lag"), line.signature),
        (key, b"log.example\n3\n", line.signature),
        (key, CHECKPOINT, late),
        (key, CHECKPOINT, line.signature[:-1]),
        (key, CHECKPOINT, b"\xff" * 8 + line.signature[8:]),
        (other_name, CHECKPOINT, line.signature),
    )
    for by, text, signature in refused:
        with pytest.raises(SignatureError):
            by.verify(text, signature)
    for text in (b"x" * 256 + CHECKPOINT[11:], b"log.example\n3\nshort\n", CHECKPOINT[11:]):
        with pytest.raises(MalformedError):
            cosigner.cosignature(text, 1)
    with pytest.raises(MalformedError):
        cosigner.cosignature(CHECKPOINT, 0)
