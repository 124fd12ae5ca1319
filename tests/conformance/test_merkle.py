"""RFC 6962 proofs, good and bad, as the transparency-dev project publishes them."""

import json
import os
from base64 import b64decode
from pathlib import Path

import pytest

from trunkline.base.errors import ConsistencyError, InclusionError
from trunkline.crypto import merkle

REPOSITORY = Path(__file__).resolve().parents[2]
VECTORS = Path(os.environ.get("TRUNKLINE_VECTORS", REPOSITORY.parent / "shared" / "vectors"))
MERKLE = VECTORS / "merkle"

pytestmark = pytest.mark.skipif(
    not MERKLE.is_dir(),
    reason=f"third-party vectors are absent: no {MERKLE} (set TRUNKLINE_VECTORS)",
)


def cases(kind: str) -> list[Path]:
    return sorted((MERKLE / kind).rglob("*.json"))


def proof_of(case: dict) -> list[bytes]:
    return [b64decode(text) for text in case["proof"] or []]


def test_the_vectors_are_all_here():
    assert len(cases("inclusion")) + len(cases("consistency")) == 196


@pytest.mark.parametrize("path", cases("inclusion"), ids=lambda p: str(p.relative_to(MERKLE)))
def test_inclusion(path):
    case = json.loads(path.read_text())

    def check() -> None:
        merkle.verify_inclusion(
            b64decode(case["leafHash"] or ""),
            case["leafIdx"],
            case["treeSize"],
            proof_of(case),
            b64decode(case["root"] or ""),
        )

    if case["wantErr"]:
        with pytest.raises(InclusionError):
            check()
    else:
        check()


@pytest.mark.parametrize("path", cases("consistency"), ids=lambda p: str(p.relative_to(MERKLE)))
def test_consistency(path):
    case = json.loads(path.read_text())

    def check() -> None:
        merkle.verify_consistency(
            case["size1"],
            case["size2"],
            proof_of(case),
            b64decode(case["root1"] or ""),
            b64decode(case["root2"] or ""),
        )

    if case["wantErr"]:
        with pytest.raises(ConsistencyError):
            check()
    else:
        check()
