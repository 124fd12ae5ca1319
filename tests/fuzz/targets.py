"""What is fuzzed: one function per format, from any bytes to a value or a clean error.

Each may end in an :class:`trunkline.base.errors.Error` and in nothing else, and where a format has
one spelling of a value, what was read must be written again as the very bytes that were given.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from tests.support import audit_records

from trunkline.base.errors import Error
from trunkline.crypto import note
from trunkline.crypto.canonical import parse_canonical
from trunkline.crypto.keys import VerifierKey
from trunkline.evidence import EvidenceKey, split_view, verify
from trunkline.evidence import decode as decode_evidence
from trunkline.node.core import demand as decide
from trunkline.receipts import Batch, NonceCommitment, open_batch, open_nonces
from trunkline.receipts import decode as decode_receipt
from trunkline.receipts.key_statement import parse_statement
from trunkline.tlog import proof, tile
from trunkline.tlog.add_checkpoint import parse_add_checkpoint, parse_size
from trunkline.tlog.checkpoint import Checkpoint
from trunkline.tlog.policy import Policy
from trunkline.verdicts import (
    Calibration,
    Commitment,
    Demand,
    Draw,
    Record,
    SelfTest,
    Verdict,
)

RECORDS: Final[Mapping[str, type[Record]]] = {
    "calibration": Calibration,
    "commitment": Commitment,
    "demand": Demand,
    "draw": Draw,
    "self_test": SelfTest,
    "verdict": Verdict,
}
VECTORS: Final = Path(__file__).parents[2] / "docs" / "spec"
_DOCUMENT: Final = json.loads((VECTORS / "evidence-vectors.json").read_text())
POLICY_TEXT: Final[str] = _DOCUMENT["policy"]
POLICY: Final = Policy.parse(POLICY_TEXT)
KEYS: Final = tuple(EvidenceKey(**key) for key in _DOCUMENT["trusted_keys"])
_VERIFIERS: Final = {
    EvidenceKey(**key)
    for case in _DOCUMENT["cases"]
    for key in case.get("trusted_keys", ())
    if key["role"] == "verifier"
}
NODE_KEY: Final = VerifierKey.parse(KEYS[0].vkey)


def _note(data: bytes) -> None:
    read = note.parse(data)
    assert note.format(read.text, read.signatures) == data


def _checkpoint(data: bytes) -> None:
    assert Checkpoint.parse(data).text() == data


def _cosignatures(data: bytes) -> None:
    POLICY.accepts(data)


def _tile_path(data: bytes) -> None:
    try:
        path = data.decode()
    except UnicodeDecodeError:
        return
    assert tile.Tile.parse(path).path == path


def _bundle(data: bytes) -> None:
    width = 1 + (data[0] if data else 0)
    assert tile.encode_bundle(tile.decode_bundle(data[1:], width)) == data[1:]


def _hashes(data: bytes) -> None:
    width = 1 + (data[0] if data else 0)
    assert b"".join(tile.decode_hashes(data[1:], width)) == data[1:]


def _add_checkpoint(data: bytes) -> None:
    assert parse_add_checkpoint(data).body() == data


def _size(data: bytes) -> None:
    assert b"%d\n" % parse_size(data) == data


def _proof(data: bytes) -> None:
    assert proof.format(proof.parse(data)) == data


def _policy(data: bytes) -> None:
    assert Policy.parse(data).logs is not None


def _vkey(data: bytes) -> None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return
    key = VerifierKey.parse(text)
    assert VerifierKey.parse(str(key)) == key


def _receipt(data: bytes) -> None:
    decode_receipt(data)


def _canonical(data: bytes) -> None:
    parse_canonical(data, bytes_max=256 * 1024)


def _batch(data: bytes) -> None:
    assert Batch.parse(data).text() == data


def _batch_note(data: bytes) -> None:
    open_batch(data, NODE_KEY)


def _evidence(data: bytes) -> None:
    report = verify(data, policy=POLICY_TEXT, trusted_keys=(*KEYS, *_VERIFIERS))
    assert report.outcome in ("pass", "fail", "inconclusive")
    decode_evidence(data)


def _split_view(data: bytes) -> None:
    assert split_view.verify(data, POLICY).outcome in ("pass", "fail", "inconclusive")
    split_view.decode(data)


def _key_statement(data: bytes) -> None:
    assert parse_statement(data).text() == data


def _nonces(data: bytes) -> None:
    assert NonceCommitment.parse(data).text() == data


def _nonces_note(data: bytes) -> None:
    open_nonces(data, audit_records.NODE.vkey)


def _demand_body(data: bytes) -> None:
    decide.asked(decide.read(data), RULES, audit_records.NOW_MS)


def _record(kind: type[Record]) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        parsed = note.parse(data)
        record = kind.parse(parsed.text)
        # Members of later versions are read over, and only signed again with the bytes.
        assert len(record.text()) <= len(parsed.text)
        assert kind.parse(record.text()) == record
        kind.open_note(data, VerifierKey.parse(record.key))

    return read


RULES: Final = decide.Rules(
    node=audit_records.NODE.name,
    log=audit_records.LOG.vkey,
    verifiers=(audit_records.VERIFIER.vkey, audit_records.OTHER.vkey),
    rate_ppm_max=1_000_000,
    since_ms=0,
)

TARGETS: Final[Mapping[str, Callable[[bytes], None]]] = {
    "add_checkpoint": _add_checkpoint,
    "batch": _batch,
    "batch_note": _batch_note,
    "bundle": _bundle,
    "canonical": _canonical,
    "checkpoint": _checkpoint,
    "cosignatures": _cosignatures,
    "demand_body": _demand_body,
    "evidence": _evidence,
    "hashes": _hashes,
    "key_statement": _key_statement,
    "nonces": _nonces,
    "nonces_note": _nonces_note,
    "note": _note,
    "policy": _policy,
    "proof": _proof,
    "receipt": _receipt,
    "size": _size,
    "split_view": _split_view,
    "tile_path": _tile_path,
    "vkey": _vkey,
    **{name: _record(kind) for name, kind in RECORDS.items()},
}


def one(target: str, data: bytes) -> None:
    """Feed ``data`` to a target. Whatever this raises is a finding."""
    try:
        TARGETS[target](data)
    except Error:
        return
