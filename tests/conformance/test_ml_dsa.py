"""ML-DSA-44 against others: Wycheproof's edge cases, keys from seeds, torchwood's checkpoint."""

import json
from base64 import b64decode
from pathlib import Path

import pytest

from trunkline.base.errors import SignatureError
from trunkline.crypto import ml_dsa, note
from trunkline.crypto.keys import VerifierKey
from trunkline.crypto.signer import MlDsaCosigner
from trunkline.tlog import cosignature
from trunkline.tlog.checkpoint import Checkpoint, open_checkpoint
from trunkline.tlog.policy import Policy

FOLDER = Path(__file__).parent / "vectors"
VECTORS = json.loads((FOLDER / "ml-dsa-44.json").read_text())


@pytest.mark.parametrize("case", VECTORS["verify"], ids=lambda case: case["comment"])
def test_verifying(case):
    values = (b64decode(case[name]) for name in ("public", "message", "signature"))
    assert ml_dsa.is_valid(*values) is case["valid"]


@pytest.mark.parametrize("case", VECTORS["sign"], ids=range(len(VECTORS["sign"])))
def test_a_seed_gives_the_key(case):
    cosigner = MlDsaCosigner("w.example", bytes.fromhex(case["seed"]))
    assert cosigner.cosigner_vkey.public == b64decode(case["public"])
    message, signature = b64decode(case["message"]), b64decode(case["signature"])
    assert ml_dsa.is_valid(cosigner.cosigner_vkey.public, message, signature)


@pytest.fixture
def torchwood():
    """Key and signed checkpoint of FiloSottile/torchwood fac5716, litewitness's testdata."""
    vkey, _, signed = (FOLDER / "torchwood-checkpoint.txt").read_text().partition("\n\n")
    return VerifierKey.parse(vkey), signed.encode()


def test_a_checkpoint_signed_by_torchwood(torchwood):
    key, signed = torchwood
    assert open_checkpoint(signed, key).size == 1
    # Its log states no time, as a log may.
    assert cosignature.verify(note.parse(signed), key) == 0
    policy = Policy.parse(f"log {key}\nquorum none\n")
    assert policy.accepts(signed).checkpoint.origin == "example.com/mldsa-log"


def test_what_it_signs_is_origin_size_and_root(torchwood):
    key, signed = torchwood
    parsed = note.parse(signed)
    good = Checkpoint.parse(parsed.text)
    others = (
        Checkpoint(origin=good.origin + "x", size=good.size, root=good.root),
        Checkpoint(origin=good.origin, size=good.size + 1, root=good.root),
        Checkpoint(origin=good.origin, size=good.size, root=bytes(32)),
    )
    for other in others:
        with pytest.raises(SignatureError):
            note.Note(text=other.text(), signatures=parsed.signatures).verify(key)
    # The specification leaves extension lines out of what is signed.
    extended = Checkpoint(
        origin=good.origin, size=good.size, root=good.root, extensions=("anything",)
    )
    note.Note(text=extended.text(), signatures=parsed.signatures).verify(key)
