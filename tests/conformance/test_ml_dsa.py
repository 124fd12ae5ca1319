"""ML-DSA-44 against others: Wycheproof's edge cases, and keys from seeds."""

import json
from base64 import b64decode
from pathlib import Path

import pytest

from trunkline.crypto import ml_dsa
from trunkline.crypto.signer import MlDsaCosigner

VECTORS = json.loads((Path(__file__).parent / "vectors" / "ml-dsa-44.json").read_text())


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
