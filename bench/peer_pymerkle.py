"""pymerkle's trees, run by ``bench/evidence.py`` with the Python that has it.

FOLDER/pymerkle/bin/python bench/peer_pymerkle.py ENTRIES ENTRY_BYTES

Prints a JSON list of what ``bench/evidence_log.py`` calls ``Trees``.
"""

import json
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from pymerkle import InmemoryTree, SqliteTree, verify_inclusion

PROOFS = 200


Tree = InmemoryTree | SqliteTree


def measure(name: str, tree: Tree, count: int, size: int) -> dict[str, str | float]:
    begun = time.process_time()
    for number in range(count):
        tree.append_entry(b"%0*d" % (size, number))
    append = (time.process_time() - begun) / count
    # Its indexes begin with one.
    root, step = tree.get_root(), max(1, count // PROOFS)
    begun, made = time.process_time(), 0
    for index in range(1, count + 1, step):
        proof = tree.prove_inclusion(index, count)
        verify_inclusion(tree.get_leaf(index), root, proof)
        made += 1
    prove = (time.process_time() - begun) / made
    return {"name": name, "append_us": append * 1e6, "proof_us": prove * 1e6}


def main() -> None:
    count, size = int(sys.argv[1]), int(sys.argv[2])
    label = f"pymerkle {version('pymerkle')}"
    found = [measure(f"{label}, in memory", InmemoryTree(algorithm="sha256"), count, size)]
    with tempfile.TemporaryDirectory() as folder:
        tree = SqliteTree(str(Path(folder) / "tree.db"), algorithm="sha256")
        # It commits each entry: a tenth says enough.
        found.append(measure(f"{label}, SQLite, a tenth", tree, max(1, count // 10), size))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
