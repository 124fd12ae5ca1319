"""What fuzzing begins with: the specifications' own vectors, taken apart, for each format.

Imports nothing that is fuzzed: whatever is imported before the fuzzer, it does not see into.
``audit-seeds.json`` is signed by the keys of ``tests/support/audit_records.py``.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Final

SPEC: Final = Path(__file__).parents[2] / "docs" / "spec"


def _seeds() -> dict[str, list[bytes]]:
    evidence = json.loads((SPEC / "evidence-vectors.json").read_text())
    receipts = json.loads((SPEC / "receipt-vectors.json").read_text())
    audits = json.loads((SPEC / "verdict-vectors.json").read_text())
    records = {item["name"]: item["note"].encode() for item in audits["records"]}
    refused = [item["note"].encode() for item in audits["not_a_verdict"]]
    files: list[bytes] = [case["evidence"].encode() for case in evidence["cases"]]
    parts: list[dict[str, Any]] = [part for file in files for part in json.loads(file)["parts"]]
    proofs = [part["proof"].encode() for part in parts if part.get("proof")]
    checkpoints = [proof.partition(b"\n\n")[2] for proof in proofs]
    texts = [note.partition(b"\n\n")[0] + b"\n" for note in checkpoints]
    batches = [part["signed"]["batch"].encode() for part in parts]
    hash_line = b"A" * 43 + b"=\n"
    signed = [part["signed"]["receipt"].encode() for part in parts]
    signed += [item["receipt"].encode() for item in receipts["batch"]["receipts"]]
    vkeys = [key["vkey"].encode() for key in evidence["trusted_keys"]]
    vkeys += [word.encode() for word in evidence["policy"].split() if "+" in word]
    asked = json.loads(Path(__file__).with_name("audit-seeds.json").read_text())
    nonces = asked["nonces"].encode()
    return {
        "add_checkpoint": [b"old 1\n" + hash_line + b"\n" + note for note in checkpoints],
        "batch": [batch.partition(b"\n\n")[0] + b"\n" for batch in batches],
        "batch_note": batches,
        "bundle": [b"\0\0\2ab", b"\1\0\1a\0\0", b"\0" + len(batches[0]).to_bytes(2) + batches[0]],
        "canonical": [*signed, b'{"a":[1,true,"\\n"]}'],
        "checkpoint": texts,
        "cosignatures": checkpoints,
        "demand_body": [json.dumps(asked["demand"]).encode()],
        "evidence": files,
        "hashes": [b"\0" + bytes(32), b"\1" + bytes(64)],
        "key_statement": [
            b"trunkline.key/v1\nalpha.example\n%b\n1\n2\n" % vkeys[0],
            b"trunkline.revocation/v1\nalpha.example\n%b\n0\n" % vkeys[0],
        ],
        "nonces": [nonces.partition(b"\n\n")[0] + b"\n"],
        "nonces_note": [nonces],
        "note": [*checkpoints, *batches],
        "policy": [evidence["policy"].encode()],
        "proof": proofs,
        "receipt": signed,
        "size": [b"0\n", b"12345\n"],
        "split_view": [
            json.dumps(
                {
                    "type": "trunkline.split-view/v1",
                    "log": evidence["policy"].split()[1],
                    "smaller": checkpoints[0].decode(),
                    "larger": checkpoints[-1].decode(),
                    "proof": [hash_line.decode().strip()],
                }
            ).encode()
        ],
        "tile_path": [b"tile/0/000", b"tile/entries/x001/234.p/17", b"tile/63/x001/x002/003"],
        "vkey": vkeys,
        "verdict": [records["verdict"], records["verdict_asked_for"], *refused],
        **{
            name: [records[name]]
            for name in ("calibration", "commitment", "demand", "draw", "self_test")
        },
    }


SEEDS: Final = _seeds()
NAMES: Final = tuple(SEEDS)


def write(target: str, folder: Path) -> None:
    """Put a target's seeds into ``folder``, a file each."""
    for data in SEEDS[target]:
        (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
