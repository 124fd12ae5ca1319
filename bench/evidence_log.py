"""A log that grows large on disk: does appending, memory and proving stay as cheap?

Part of ``bench/evidence.py``. The log's own sequencer, store and folder, without HTTP and
witnesses: every round stages, syncs and publishes its tiles and swaps the checkpoint as in service.
For very large logs the tiles may be written unsynced: the same files, and the disk's own time for
each out of the way; the index is synced all the same. An entry is as long as a batch's signed note.
A proof is what a reader does: the tiles that it takes, read from disk, hashed up and verified
against the root. It is measured at each tenth of the whole, and the last tenth is compared with the
first. In a folder of the caller's own a run that was ended goes on where it was.
"""

import asyncio
import logging
import os
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from trunkline.crypto import merkle
from trunkline.crypto.signer import Signer
from trunkline.log.core.cosigning import Signed
from trunkline.log.core.tree import Tree, edge_tiles, grow, load
from trunkline.log.crash import no_crash
from trunkline.log.disk import Disk
from trunkline.log.files import Folder
from trunkline.log.sequencer import ROUND_ENTRIES_MAX, Sequencer
from trunkline.log.store import Current, LogStore, create_log
from trunkline.runtime.clock import SystemClock
from trunkline.runtime.logger import get_logger
from trunkline.tlog import tile_proof
from trunkline.tlog.checkpoint import Checkpoint, open_checkpoint
from trunkline.tlog.tile import tile_at

ENTRY_BYTES = 260
"""As a signed batch note of one node is."""
PROOFS = 200
TENTHS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The log at one size."""

    size: int
    rate: float
    """Entries a second, over this tenth."""
    cpu_us: float
    """CPU of the log's process per entry, there."""
    memory_mib: float
    proof_us: float
    """Median wall time to read, build and verify an inclusion proof."""
    proof_p99_us: float
    proof_cpu_us: float
    """Median CPU of the same."""
    disk_bytes: float
    """On disk per entry, index and tiles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trees:
    """What a tree's entries cost on average, in microseconds of CPU."""

    name: str
    append_us: float
    proof_us: float
    """Made and verified."""


def entry(number: int) -> bytes:
    return b"%0*d" % (ENTRY_BYTES, number)


class Unsynced(Disk):
    """Writes the same files, and leaves when they reach the disk to the kernel."""

    def write(self, path: Path, data: bytes) -> None:
        path.write_bytes(data)

    def sync_folder(self, path: Path) -> None:
        return


class Growing:
    """One log in a folder of its own."""

    def __init__(self, folder: Path, *, synced: bool) -> None:
        self._signer = Signer.generate("bench.example/log", bytes(32))
        self._data = folder / "log"
        if not (self._data / "checkpoint").exists():
            create_log(self._data, self._signer)
        self._folder = Folder(self._data, disk=None if synced else Unsynced())
        self._newest: Signed | None = None
        self.size = 0

    async def run(
        self, marks: list[int], told: Callable[[Row], None] = lambda row: None
    ) -> list[Row]:
        """Append up to each mark, and measure there. Marks that are passed already are left out."""
        store = LogStore.open(self._data)
        current = await store.load()
        self.size = current.size
        sequencer = Sequencer(
            tree=self._tree(current),
            checkpoint=current.checkpoint,
            store=store,
            tiles=self._folder,
            signer=self._signer,
            clock=SystemClock(),
            logger=get_logger("bench"),
            publish=self._publish,
            interval_ms=0,
            entries_max=4 * ROUND_ENTRIES_MAX,
            bytes_max=64 * 1024 * 1024,
            reach=no_crash,
        )
        task = asyncio.create_task(sequencer.run())
        rows = []
        for mark in marks:
            begun, used, before = time.monotonic(), time.process_time(), self.size
            if mark <= before:
                continue
            await self._append(sequencer, mark)
            added = self.size - before
            rate = added / (time.monotonic() - begun)
            rows.append(self._row(rate, (time.process_time() - used) / added * 1e6))
            told(rows[-1])
        sequencer.stop()
        await task
        await store.aclose()
        return rows

    def _tree(self, current: Current) -> Tree:
        self._folder.discard_beyond(current.size, ROUND_ENTRIES_MAX)
        checkpoint = open_checkpoint(current.checkpoint, self._signer.vkey)
        tiles = {tile: self._folder.read_tile(tile) for tile in edge_tiles(current.size)}
        return load(current.size, checkpoint.root, tiles)

    async def _publish(self, signed: Signed) -> None:
        self._newest = signed
        await asyncio.to_thread(self._folder.write_checkpoint, signed.note)

    async def _append(self, sequencer: Sequencer, to: int) -> None:
        while self.size < to:
            count = min(2 * ROUND_ENTRIES_MAX, to - self.size)
            await asyncio.gather(*(sequencer.add(entry(self.size + n)) for n in range(count)))
            self.size += count

    def _row(self, rate: float, cpu_us: float) -> Row:
        assert self._newest is not None
        checkpoint = open_checkpoint(self._newest.note, self._signer.vkey)
        assert checkpoint.size == self.size
        took, used = map(sorted, zip(*self._prove(checkpoint), strict=True))
        return Row(
            size=self.size,
            rate=rate,
            cpu_us=cpu_us,
            memory_mib=resident_bytes() / 2**20,
            proof_us=statistics.median(took) * 1e6,
            proof_p99_us=took[int(len(took) * 0.99)] * 1e6,
            proof_cpu_us=statistics.median(used) * 1e6,
            disk_bytes=folder_bytes(self._data) / self.size,
        )

    def _prove(self, checkpoint: Checkpoint) -> Iterator[tuple[float, float]]:
        """Seconds of wall time and of CPU, of each proof."""
        chosen = random.Random(checkpoint.size)  # noqa: S311 - a sample that can be repeated
        for _ in range(PROOFS):
            index = chosen.randrange(checkpoint.size)
            begun, used = time.perf_counter(), time.process_time()
            names = tile_proof.tiles_needed_for_inclusion(index, checkpoint.size)
            tiles = self._folder.read_tiles(names)
            path = tile_proof.inclusion_proof(index, checkpoint.size, tiles)
            leaf = merkle.leaf_hash(entry(index))
            merkle.verify_inclusion(leaf, index, checkpoint.size, path, checkpoint.root)
            yield time.perf_counter() - begun, time.process_time() - used
            # What was proven is also what is stored.
            bundle = tile_at(None, index // 256, checkpoint.size)
            assert entry(index) in self._folder.read_tile(bundle)


def resident_bytes() -> int:
    """Memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def folder_bytes(folder: Path) -> int:
    """What a folder takes on disk, blocks and all."""
    return sum(
        (Path(root) / name).stat().st_blocks * 512
        for root, _, names in os.walk(folder)
        for name in names
    )


def head(*, synced: bool) -> None:
    how = "every round synced" if synced else "tiles unsynced"
    print(f"A log on disk, entries of {ENTRY_BYTES} bytes, rounds of {ROUND_ENTRIES_MAX}, {how}")
    print(
        f"    {'entries':>12} {'entries/s':>10} {'CPU/entry':>10} {'memory':>9} "
        f"{'proof':>9} {'p99':>9} {'disk/entry':>10}"
    )


def show(row: Row) -> None:
    print(
        f"    {row.size:>12,} {row.rate:>10,.0f} {row.cpu_us:>7.1f} µs {row.memory_mib:>5.0f} MiB "
        f"{row.proof_us:>6.0f} µs {row.proof_p99_us:>6.0f} µs {row.disk_bytes:>8.0f} B",
        flush=True,
    )


def quiet() -> None:
    """A line per round is the operator's, not the bench's."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))


def measure(entries: int, *, synced: bool, folder: Path | None = None) -> None:
    """Grow a log to ``entries``, and print a row per tenth. ``folder``: where, kept afterwards."""
    quiet()
    head(synced=synced)
    begun = time.monotonic()
    marks = [max(1024, entries * tenth // TENTHS) for tenth in range(1, TENTHS + 1)]
    if folder is not None:
        rows = asyncio.run(Growing(folder, synced=synced).run(marks, show))
    else:
        with tempfile.TemporaryDirectory(prefix="trunkline-bench-log-") as made:
            rows = asyncio.run(Growing(Path(made), synced=synced).run(marks, show))
    first, last = rows[0], rows[-1]
    print(
        f"    last tenth to first: {last.cpu_us / first.cpu_us:.2f} times the CPU, "
        f"{last.rate / first.rate:.2f} times the rate, "
        f"{last.memory_mib - first.memory_mib:+.0f} MiB, "
        f"{last.proof_us / first.proof_us:.2f} times the proof; {time.monotonic() - begun:.0f} s"
    )


def in_memory(entries: int) -> Trees:
    """The tree alone, without a disk: entries in rounds, and proofs from the tiles they left."""
    tree, tiles = Tree(), dict[str, bytes]()
    begun = time.process_time()
    for start in range(0, entries, ROUND_ENTRIES_MAX):
        batch = [entry(number) for number in range(start, min(start + ROUND_ENTRIES_MAX, entries))]
        growth = grow(tree, batch, [merkle.leaf_hash(data) for data in batch])
        tree = growth.tree
        tiles |= {tile.path: data for tile, data in growth.files if tile.level is not None}
    append = (time.process_time() - begun) / entries
    root = tree.root()
    step = max(1, entries // PROOFS)
    begun = time.process_time()
    for index in range(0, entries, step):
        path = tile_proof.inclusion_proof(index, entries, tiles)
        merkle.verify_inclusion(merkle.leaf_hash(entry(index)), index, entries, path, root)
    prove = (time.process_time() - begun) / len(range(0, entries, step))
    name = f"Trunkline, rounds of {ROUND_ENTRIES_MAX}, in memory"
    return Trees(name=name, append_us=append * 1e6, proof_us=prove * 1e6)


def on_disk(entries: int) -> Trees:
    """The log as in service, every round synced; proofs from the tiles on disk."""
    quiet()
    with tempfile.TemporaryDirectory(prefix="trunkline-bench-log-") as made:
        (found,) = asyncio.run(Growing(Path(made), synced=True).run([entries]))
    name = f"Trunkline, rounds of {ROUND_ENTRIES_MAX}, on disk"
    return Trees(name=name, append_us=found.cpu_us, proof_us=found.proof_cpu_us)
