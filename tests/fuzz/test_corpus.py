"""Every input that fuzzing kept, again, with plain Python; and bounds before any signature."""

from pathlib import Path

import pytest
from tests.fuzz import seeds, targets

from trunkline.base.errors import Error
from trunkline.crypto.keys import VerifierKey
from trunkline.crypto.note import NOTE_BYTES_MAX
from trunkline.evidence import EVIDENCE_BYTES_MAX
from trunkline.tlog.policy import POLICY_BYTES_MAX
from trunkline.tlog.proof import PROOF_BYTES_MAX

CORPUS = Path(__file__).parent / "corpus"
CORPUS_BYTES_MAX = 1024 * 1024


@pytest.mark.parametrize("target", targets.TARGETS)
def test_what_was_found_before_stays_clean(target: str) -> None:
    kept = sorted((CORPUS / target).glob("*.bin"))
    assert kept, f"no corpus for {target}: make fuzz, with --keep"
    for data in (*seeds.SEEDS[target], *(path.read_bytes() for path in kept)):
        targets.one(target, data)


def test_seeds_are_what_they_should_be() -> None:
    """Each target's first seed is read, so that mutations begin behind the parser's door."""
    assert set(seeds.NAMES) == set(targets.TARGETS)
    for target in seeds.NAMES:
        targets.TARGETS[target](seeds.SEEDS[target][0])


def test_the_corpus_is_small_and_all_of_it_is_used() -> None:
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < CORPUS_BYTES_MAX
    assert {path.parent.name for path in files} == set(targets.TARGETS)
    assert {path.suffix for path in files} == {".bin"}


TOO_LONG = {
    "note": b"a\n" * (NOTE_BYTES_MAX // 2 + 1),
    "cosignatures": b"a\n" * (NOTE_BYTES_MAX // 2 + 1),
    "nonces_note": seeds.SEEDS["nonces_note"][0] + b"x" * 8192,
    "demand_body": seeds.SEEDS["demand_body"][0] + b" " * 128 * 1024,
    "batch_note": seeds.SEEDS["batch_note"][0] + b"x" * 8192,
    "checkpoint": seeds.SEEDS["checkpoint"][0] + b"x\n" * 64 * 1024,
    "evidence": seeds.SEEDS["evidence"][0] + b" " * EVIDENCE_BYTES_MAX,
    "receipt": seeds.SEEDS["receipt"][0] + b" " * 256 * 1024,
    "canonical": b"[" * 300 * 1024,
    "policy": b"#\n" * (POLICY_BYTES_MAX // 2 + 1),
    "proof": seeds.SEEDS["proof"][0] + b"x" * PROOF_BYTES_MAX,
    "add_checkpoint": seeds.SEEDS["add_checkpoint"][0] + b"x" * 1_010_000,
    "split_view": seeds.SEEDS["split_view"][0] + b" " * 2 * 1024 * 1024,
}
for record in targets.RECORDS:
    TOO_LONG[record] = seeds.SEEDS[record][0] + b"x" * 70 * 1024
TOO_DEEP = {
    "demand_body": b'{"receipts":' * 1000 + b"1" + b"}" * 1000,
    "canonical": b"[" * 1000 + b"]" * 1000,
    "receipt": b'{"a":' * 1000 + b"1" + b"}" * 1000,
    "evidence": b'{"parts":' * 1000 + b"1" + b"}" * 1000,
    "split_view": b'{"proof":' * 1000 + b"1" + b"}" * 1000,
}


@pytest.mark.parametrize(
    ("target", "data"), [*TOO_LONG.items(), *TOO_DEEP.items()],
    ids=[*(f"{name} too long" for name in TOO_LONG), *(f"{name} too deep" for name in TOO_DEEP)],
)  # fmt: skip
def test_bounds_come_before_signatures(
    target: str, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def verify(key: VerifierKey, message: bytes, signature: bytes) -> None:
        raise AssertionError("a signature was checked of what is out of bounds")

    monkeypatch.setattr(VerifierKey, "verify", verify)
    with pytest.raises(Error):
        targets.TARGETS[target](data)
