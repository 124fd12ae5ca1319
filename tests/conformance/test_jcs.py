"""RFC 8785's published test data: inside the profile our bytes are the RFC's, outside we refuse."""

import json
import os
from pathlib import Path

import pytest
import rfc8785

from trunkline.base.errors import MalformedError
from trunkline.crypto.canonical import parse_canonical

VECTORS = Path(
    os.environ.get("TRUNKLINE_VECTORS") or Path(__file__).parents[3] / "shared" / "vectors"
)
JCS = VECTORS / "jcs"

# What the profile leaves out: nulls and floats (arrays, values), other keys than ASCII (the rest).
ADMITTED = {"structures", "unicode"}
REFUSED = {"arrays", "french", "values", "weird"}

pytestmark = pytest.mark.skipif(
    not JCS.is_dir(), reason="test vectors absent: set TRUNKLINE_VECTORS to their folder"
)


def parse(data: bytes) -> object:
    return parse_canonical(data, bytes_max=1000)


def output(name: str) -> bytes:
    return bytes.fromhex((JCS / "outhex" / f"{name}.txt").read_text())


def test_every_published_case_is_accounted_for() -> None:
    assert {path.stem for path in (JCS / "output").glob("*.json")} == ADMITTED | REFUSED


@pytest.mark.parametrize("name", sorted(ADMITTED))
def test_canonical_bytes_inside_the_profile_are_read(name: str) -> None:
    data = output(name)
    assert rfc8785.dumps(json.loads((JCS / "input" / f"{name}.json").read_bytes())) == data
    assert rfc8785.dumps(parse(data)) == data  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_canonical_bytes_outside_the_profile_are_refused(name: str) -> None:
    with pytest.raises(MalformedError):
        parse(output(name))


@pytest.mark.parametrize("name", sorted(ADMITTED | REFUSED))
def test_other_spellings_are_refused(name: str) -> None:
    data = (JCS / "input" / f"{name}.json").read_bytes()
    if data == output(name):
        pytest.fail("the published input is canonical already: this test shows nothing")
    with pytest.raises(MalformedError):
        parse(data)
