"""What evidence costs: at node, gateway, log and verifier, and on the answer's own path.

    python bench/evidence.py [--entries 1000000] [--unsynced] [--answers 2000] [--peers FOLDER]
    python bench/evidence.py --separation [--samples 400] [--behind 10000]

Prints, from one run:
- CPU per receipt: made and signed in batches of 64 and alone, checked by the gateway, verified as
  an evidence file; where that time goes; and what of it lies on the answer's path (design: at most
  50 µs);
- a real network before a scripted upstream: answers a second while all of them are signed, stored,
  logged and cosigned, until the last is final; CPU of each role per receipt;
- a log of ``--entries`` on disk: rate, memory and proofs as it grows (``bench/evidence_log.py``);
- ``--peers``: pymerkle's trees on the same entries. FOLDER/pymerkle is a virtual environment with
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
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parent))
import evidence_log
import evidence_separation
from hello import REQUEST, scripted, send
from network import Network, cpu_s, free_port_base

from trunkline.crypto.signer import Signer, sign_note
from trunkline.evidence import EvidenceKey, decode, verify
from trunkline.receipts import (
    BATCH_RECEIPTS_MAX,
    BatchBuilder,
    Receipt,
    SealedBatch,
    StreamDigest,
    encode,
    open_batch,
    verify_signed,
)
from trunkline.receipts import batch as receipt_batch
from trunkline.receipts import decode as decode_receipt
from trunkline.receipts.batch import verify_path
from trunkline.schema.attempt import SignedReceipt

VECTORS = Path(__file__).parents[1] / "docs" / "spec" / "evidence-vectors.json"
CHUNKS = 20
CHUNK = (
    b'{"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"delta":{"content":" a"}}]}'
)
PATH_US_MAX = 50.0
FINAL_S_MAX = 900.0
FORGET = [
    remembers.cache_clear
    for remembers in vars(receipt_batch).values()
    if hasattr(remembers, "cache_clear")
]
PEER = Path(__file__).with_name("peer_pymerkle.py")


def cpu_us(work: Callable[[], object], times: int) -> float:
    """Microseconds of CPU that ``work`` takes, the best of five."""
    best = float("inf")
    for _ in range(5):
        begun = time.process_time()
        for _ in range(times):
            work()
        best = min(best, (time.process_time() - begun) / times)
    return best * 1e6


def example(signer: Signer, number: int) -> Receipt:
    """The specification's receipt, as another node would give it."""
    document = json.loads(VECTORS.read_text())
    case = next(case for case in document["cases"] if case["name"] == "final")
    signed = decode(case["evidence"].encode()).parts[0].signed
    return msgspec.structs.replace(
        decode_receipt(signed.receipt.encode()),
        attempt=f"att_{number}",
        key=str(signer.vkey),
        node=signer.name,
    )


def issue(signer: Signer, receipts: list[Receipt]) -> tuple[SignedReceipt, ...]:
    """What a node does with a batch, from records to what its callers are handed."""
    builder = BatchBuilder(signer.name)
    for receipt in receipts:
        builder.add(encode(receipt))
    sealed = builder.seal(previous=None, unix_ms=1_780_000_000_000)
    return sealed.signed(sign_note(sealed.text, signer))


def forget_batches() -> None:
    """Nothing is remembered of a batch that was seen before."""
    for forget in FORGET:
        forget()


def check(signed: Sequence[SignedReceipt], signer: Signer) -> None:
    """What a gateway does with the receipts of one batch, seen for the first time."""
    forget_batches()
    for one in signed:
        verify_signed(one, signer.vkey)


def where(signer: Signer, receipts: Sequence[Receipt], times: int) -> None:
    """What a batch's receipts cost at node and gateway, by what is done, each."""
    count = len(receipts)
    encoded = [encode(receipt) for receipt in receipts]

    def seal() -> SealedBatch:
        builder = BatchBuilder(signer.name)
        for data in encoded:
            builder.add(data)
        return builder.seal(previous=None, unix_ms=1_780_000_000_000)

    sealed = seal()
    note = sign_note(sealed.text, signer)
    signed = sealed.signed(note)
    batch = open_batch(note, signer.vkey)

    def opened() -> None:
        forget_batches()
        open_batch(note, signer.vkey)

    def climbed() -> None:
        forget_batches()
        for data, one in zip(encoded, signed, strict=True):
            verify_path(data, one, batch)

    works: tuple[tuple[str, Callable[[], object]], ...] = (
        ("node: encode, and read what was written", lambda: [encode(one) for one in receipts]),
        ("node: leaves, root and paths", seal),
        ("node: sign the batch's note", lambda: sign_note(sealed.text, signer)),
        ("node: what callers are handed", lambda: sealed.signed(note)),
        ("gateway: check the note's signature", opened),
        ("gateway: read the receipt", lambda: [decode_receipt(data) for data in encoded]),
        ("gateway: leaf and path to the root", climbed),
    )
    print(f"  where it goes, batches of {count}, each receipt's share")
    for name, work in works:
        row(f"  {name}", f"{cpu_us(work, times) / count:.2f} µs")


def hash_stream() -> None:
    """What node and gateway each do to an answer's events as they pass."""
    running = StreamDigest(bytes(32), "att_1")
    for _ in range(CHUNKS):
        running.update(CHUNK)
    running.close()


def row(name: str, value: str, note: str = "") -> None:
    print(f"    {name:<46} {value:>12}   {note}".rstrip(), flush=True)


def per_receipt() -> None:
    """CPU in this process, nothing else running in it."""
    signer = Signer.generate("bench.example/node", bytes(32))
    receipts = [example(signer, number) for number in range(BATCH_RECEIPTS_MAX)]
    signed = issue(signer, receipts)
    data = signed[0].receipt.encode()
    document = json.loads(VECTORS.read_text())
    final = next(case for case in document["cases"] if case["name"] == "final")
    file, keys = (
        final["evidence"].encode(),
        [EvidenceKey(**key) for key in document["trusted_keys"]],
    )
    policy = document["policy"]
    assert verify(file, policy=policy, trusted_keys=keys).outcome == "pass"

    batch = cpu_us(lambda: issue(signer, receipts), 30) / BATCH_RECEIPTS_MAX
    alone = cpu_us(lambda: issue(signer, receipts[:1]), 300)
    each = cpu_us(lambda: signer.sign(encode(receipts[0])), 1000)
    together = cpu_us(lambda: check(signed, signer), 30) / BATCH_RECEIPTS_MAX
    lone = cpu_us(lambda: check(signed[:1], signer), 300)
    stream = cpu_us(hash_stream, 300)
    offline = cpu_us(lambda: verify(file, policy=policy, trusted_keys=keys), 100)
    print(f"CPU per receipt, {len(data)} bytes each")
    where(signer, receipts, 30)
    where(signer, receipts[:1], 300)
    print("  in all")
    row("node: record to signed, batches of 64", f"{batch:.1f} µs", "design: about 12")
    row("node: a lone receipt, a batch of one", f"{alone:.1f} µs")
    row("signing each receipt, no batch, no path", f"{each:.1f} µs", f"{each / batch:.1f} times")
    row("gateway: signature, path and text, batches of 64", f"{together:.1f} µs")
    row("gateway: a lone receipt", f"{lone:.1f} µs")
    row(f"node, gateway: hashing {CHUNKS} events, each", f"{stream:.1f} µs")
    row("verifier: an evidence file", f"{offline:.0f} µs", f"{1e6 / offline:,.0f} a second")
    row("evidence file: one part, two witnesses", f"{len(file):,} B")
    for name, path in (
        ("on the answer's path: all of these, batches of 64", batch + together + 2 * stream),
        ("on the answer's path, a lone receipt", alone + lone + 2 * stream),
    ):
        bound = f"design: at most {PATH_US_MAX:.0f}; {'within' if path <= PATH_US_MAX else 'ABOVE'}"
        row(name, f"{path:.0f} µs", bound)


def finals(base: int) -> int:
    """Answers that the gateway holds as final."""
    with urllib.request.urlopen(
        f"http://127.0.0.1:{base}/trunkline/v1/status", timeout=30
    ) as answer:
        return int(json.load(answer)["evidence"]["final"])


def end_to_end(answers: int) -> None:
    """A real network on this machine, a load, and the time until all of it is final."""
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
            f"the last {final_s - took_s:.1f} s after the last answer")  # fmt: skip
        for name, pid in pids.items():
            used = (cpu_s(pid) - before[name]) / answers * 1e6
            if used >= 1:
                row(f"CPU of {name}, all of its work", f"{used:,.0f} µs", "per answer")


def wait_final(base: int, count: int) -> None:
    """Until that many answers are final."""
    due = time.monotonic() + FINAL_S_MAX
    while finals(base) < count:
        if time.monotonic() > due:
            raise RuntimeError(f"not final within {FINAL_S_MAX:.0f} s")
        time.sleep(0.1)


def peer(folder: Path | None, entries: int) -> None:
    """pymerkle on the same entries, and ours beside it, both in memory."""
    python = None if folder is None else folder / "pymerkle" / "bin" / "python"
    print(f"Trees of {entries:,} entries in memory, appended one by one and in rounds")
    evidence_log.in_memory(entries)
    if python is None or not python.exists():
        print("    pymerkle is not there (--peers FOLDER): nothing is said about it")
        return
    done = subprocess.run(
        [str(python), str(PEER), str(entries), str(evidence_log.ENTRY_BYTES)],
        capture_output=True, text=True, check=True, timeout=600,
    )  # fmt: skip
    print(done.stdout, end="")


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
    if options.only in (None, "receipt"):
        per_receipt()
    if options.only in (None, "network"):
        end_to_end(options.answers)
    if options.only in (None, "peers"):
        peer(options.peers, 20_000)
    if options.only in (None, "log"):
        evidence_log.measure(options.entries, synced=not options.unsynced, folder=options.folder)


if __name__ == "__main__":
    main()
