"""What evidence costs: at node, gateway, log and verifier, and on the answer's own path.

    python bench/evidence.py [--entries 1000000] [--unsynced] [--answers 2000] [--peers FOLDER]
    python bench/evidence.py --separation [--samples 400] [--behind 10000]

Prints, from one run, each beside what it is compared with:
- CPU on the answer's path, step by step over the floor that hashes and signatures set, in batches
  of 64 and alone (``bench/evidence_path.py``); beside it a signature for each receipt;
- an evidence file: its size beside its receipt's, its check beside that of its signatures;
- a real network before a scripted upstream: answers a second while all of them are signed, stored,
  logged and cosigned, until the last is final; CPU of each role per answer, and evidence's share;
- a log of ``--entries`` on disk: rate, memory and proofs as it grows (``bench/evidence_log.py``);
- pymerkle's trees beside ours, in memory and on disk. FOLDER/pymerkle is a virtual environment with
  it (``python -m venv FOLDER/pymerkle && FOLDER/pymerkle/bin/pip install pymerkle``).

``--separation`` asks instead whether the slow path can be felt on the fast one
(``bench/evidence_separation.py``).
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import evidence_log
import evidence_path
import evidence_separation
from evidence_log import Trees
from evidence_path import CHUNKS, Cost, medians_us, row
from hello import REQUEST, scripted, send
from network import Network, cpu_s, free_port_base

from trunkline.crypto import note
from trunkline.evidence import EvidenceKey, decode, verify

VECTORS = Path(__file__).parents[1] / "docs" / "spec" / "evidence-vectors.json"
FINAL_S_MAX = 900.0
PEER = Path(__file__).with_name("peer_pymerkle.py")
PEER_ENTRIES = 20_000
PATH_ROLES = ("gateway", "node")


def offline() -> None:
    """An evidence file: what it weighs, and what checking it takes."""
    document = json.loads(VECTORS.read_text())
    final = next(case for case in document["cases"] if case["name"] == "final")
    file, policy = final["evidence"].encode(), document["policy"]
    keys = [EvidenceKey(**key) for key in document["trusted_keys"]]
    assert verify(file, policy=policy, trusted_keys=keys).outcome == "pass"
    part = decode(file).parts[0]
    assert part.proof is not None
    signed = (part.signed.batch.encode(), part.proof[part.proof.index("\n\n") + 2 :].encode())
    signatures = sum(len(note.parse(data).signatures) for data in signed)

    def whole() -> None:
        evidence_path.forget()
        verify(file, policy=policy, trusted_keys=keys)

    taken = medians_us({"file": whole, "signature": evidence_path.check_signature})
    floor = signatures * taken["signature"]
    receipt = len(part.signed.receipt.encode())
    print("An evidence file of one receipt, cosigned by two witnesses")
    row("its size", f"{len(file):,} B", f"{len(file) / receipt:.1f} times its receipt's")
    row("all steps of its check", f"{taken['file']:.0f} µs", f"{1e6 / taken['file']:,.0f} a second")
    row(f"  its {signatures} signatures alone", f"{floor:.0f} µs",
        f"the steps take {taken['file'] / floor:.2f} times that")  # fmt: skip


def finals(base: int) -> int:
    """Answers that the gateway holds as final."""
    with urllib.request.urlopen(
        f"http://127.0.0.1:{base}/trunkline/v1/status", timeout=30
    ) as answer:
        return int(json.load(answer)["evidence"]["final"])


def end_to_end(answers: int, evidence: tuple[Cost, Cost] | None) -> None:
    """A real network on this machine, a load, and the time until all of it is final.

    ``evidence``: what of gateway's and nodes' CPU is its, in batches of 64 and alone.
    """
    upstream = free_port_base() + 40
    body = json.dumps({**REQUEST, "stream": True}, separators=(",", ":")).encode()
    with (
        scripted(upstream, CHUNKS),
        Network("--provider", f"scripted=http://127.0.0.1:{upstream}/v1") as network,
    ):
        asyncio.run(send(network.port_base, body, "/v1/chat/completions", 100, 8))
        wait_final(network.port_base, 100)
        pids = {role["name"]: role["pid"] for role in network.status()["roles"]}
        before = {name: cpu_s(pid) for name, pid in pids.items()}
        begun = time.monotonic()
        took_s = asyncio.run(send(network.port_base, body, "/v1/chat/completions", answers, 16))
        wait_final(network.port_base, 100 + answers)
        final_s = time.monotonic() - begun
        print(
            f"End to end: {answers} streamed answers of {CHUNKS} events, 16 at a time, one machine"
        )
        row("answers a second, each with a stored receipt", f"{answers / took_s:,.0f}")
        row("receipts a second, final: logged and cosigned", f"{answers / final_s:,.0f}",
            f"{took_s / final_s:.2f} of that; the last {final_s - took_s:.1f} s later")  # fmt: skip
        used = {name: (cpu_s(pid) - before[name]) / answers * 1e6 for name, pid in pids.items()}
        path = sum(us for name, us in used.items() if name.startswith(PATH_ROLES))
        for name, us in used.items():
            if us >= 1:
                row(f"CPU of {name}, all of its work", f"{us:,.0f} µs",
                    f"an answer; {us / path:.2f} of gateway and nodes")  # fmt: skip
        for cost, how in zip(evidence or (), ("batches of 64", "alone"), strict=False):
            row(f"of it evidence on the path, {how}", f"{cost.ours:,.0f} µs",
                f"an answer; {cost.ours / path:.3f} of gateway and nodes")  # fmt: skip


def wait_final(base: int, count: int) -> None:
    """Until that many answers are final."""
    due = time.monotonic() + FINAL_S_MAX
    while finals(base) < count:
        if time.monotonic() > due:
            raise RuntimeError(f"not final within {FINAL_S_MAX:.0f} s")
        time.sleep(0.1)


def peers(folder: Path | None, entries: int) -> None:
    """pymerkle on the same entries beside ours, in memory and on disk."""
    print(f"Trees of {entries:,} entries; µs of CPU to append one, and to prove and verify one")
    ours = (evidence_log.in_memory(entries), evidence_log.on_disk(entries))
    theirs = pymerkle(folder, entries)
    for place, one in enumerate(ours):
        show_tree(one)
        if theirs:
            other = theirs[place]
            show_tree(other, f"{other.append_us / one.append_us:.1f} times, "
                      f"{other.proof_us / one.proof_us:.2f} times")  # fmt: skip
    if not theirs:
        print("    pymerkle is not there (--peers FOLDER): nothing is said about it")


def show_tree(tree: Trees, beside: str = "") -> None:
    row(tree.name, f"{tree.append_us:.1f} µs", f"{tree.proof_us:,.0f} µs   {beside}")


def pymerkle(folder: Path | None, entries: int) -> list[Trees]:
    """Its figures; none where it is not installed."""
    python = None if folder is None else folder / "pymerkle" / "bin" / "python"
    if python is None or not python.exists():
        return []
    done = subprocess.run(
        [str(python), str(PEER), str(entries), str(evidence_log.ENTRY_BYTES)],
        capture_output=True, text=True, check=True, timeout=600,
    )  # fmt: skip
    return [Trees(**found) for found in json.loads(done.stdout)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--unsynced", action="store_true", help="for --entries beyond a million")
    parser.add_argument("--folder", type=Path, help="grow the log here, and go on if it is there")
    parser.add_argument("--answers", type=int, default=2000)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--separation", action="store_true")
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--behind", type=int, default=10_000)
    parser.add_argument("--only", choices=("receipt", "network", "log", "peers"))
    options = parser.parse_args()
    if options.separation:
        evidence_separation.measure(options.samples, options.behind)
        return
    path = None
    if options.only in (None, "receipt"):
        path = evidence_path.measure()
        offline()
    if options.only in (None, "network"):
        end_to_end(options.answers, path)
    if options.only in (None, "peers"):
        peers(options.peers, PEER_ENTRIES)
    if options.only in (None, "log"):
        evidence_log.measure(options.entries, synced=not options.unsynced, folder=options.folder)


if __name__ == "__main__":
    main()
