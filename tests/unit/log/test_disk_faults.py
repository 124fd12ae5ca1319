"""Disk faults in both twins, at every system call: failed and not stored, failed but stored.

Whatever fails, the log that starts again keeps every index that it acknowledged, sequences nothing
twice, and satisfies fsck.
"""

import asyncio
import errno
import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.log.conftest import LOG
from tests.unit.log.rounds import BEFORE, ROUNDS, play_and_recover, run_rounds, service

from trunkline.log.app import create_log
from trunkline.log.disk import Disk
from trunkline.log.files import Folder
from trunkline.log.fsck import fsck
from trunkline.log.store import LogStore
from trunkline.runtime.store import DiskError
from trunkline.tlog.tile import Tile

KINDS = ("refused", "stored", "torn", "gone")


class FaultyDisk(Disk):
    """Fails some of its calls, counted from 0 over all restarts."""

    def __init__(self, plan):
        """``plan``: kind and, for torn writes, bytes that get through, by the call's number."""
        self.plan = plan
        self.calls = 0
        self.gone = False
        """No call gets through any more, until the next start."""

    def _call(self, work, partly=None):
        number, self.calls = self.calls, self.calls + 1
        kind, at = self.plan.get(number, ("", 0))
        if self.gone or kind == "refused":
            raise OSError(errno.ENOSPC, "no space left on device")
        if kind in ("torn", "gone") and partly is not None:
            partly(at)
        elif kind != "gone":
            work()
        self.gone = kind == "gone"
        if kind and (kind != "torn" or partly is not None):
            raise OSError(errno.EIO, "input/output error")

    def write(self, path, data):
        self._call(
            lambda: super(FaultyDisk, self).write(path, data),
            lambda at: path.write_bytes(data[: at % (len(data) + 1)]),
        )

    def rename(self, source, target):
        self._call(lambda: super(FaultyDisk, self).rename(source, target))

    def make_folder(self, path):
        self._call(lambda: super(FaultyDisk, self).make_folder(path))

    def sync_folder(self, path):
        self._call(lambda: super(FaultyDisk, self).sync_folder(path))

    def delete(self, path):
        self._call(lambda: super(FaultyDisk, self).delete(path))

    def delete_folder(self, path):
        self._call(lambda: super(FaultyDisk, self).delete_folder(path))


async def run_once(data, disk, rounds):
    """Start the log, play rounds until it stops by itself; what was acknowledged."""
    disk.gone = False
    return await run_rounds(service(data, Folder(data, disk=disk)), rounds)


async def play(data, disk):
    """Run under faults, starting again after each stop; then on a healthy disk, and check."""

    async def check():
        return fsck(data)

    await play_and_recover(partial(run_once, data, disk), disk, check)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A log with 250 entries, to be copied."""
    data = tmp_path_factory.mktemp("template") / "log"
    create_log(data, LOG)
    asyncio.run(run_once(data, FaultyDisk({}), [(0, BEFORE)]))
    return data


def fresh(template, path):
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(template, path)
    return path


def calls_of_a_run(template, path):
    disk = FaultyDisk({})
    asyncio.run(run_once(fresh(template, path), disk, ROUNDS))
    return disk.calls


@pytest.mark.parametrize("kind", KINDS)
def test_each_call_fails_once(template, tmp_path, kind):
    """Every system call of those rounds, one after the other."""
    calls = calls_of_a_run(template, tmp_path / "log")
    assert calls > 40
    # The kinds take turns: together they meet every call.
    for number in range(KINDS.index(kind), calls, len(KINDS)):
        disk = FaultyDisk({number: (kind, number * 7)})
        asyncio.run(play(fresh(template, tmp_path / "log"), disk))


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.integers(0, 120),
        st.tuples(st.sampled_from(KINDS), st.integers(0, 10_000)),
        max_size=8,
    )
)
def test_any_plan_of_faults(template, tmp_path, plan):
    asyncio.run(play(fresh(template, tmp_path / "log"), FaultyDisk(plan)))


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("number", range(len(ROUNDS)))
def test_the_databases_commit_fails(template, tmp_path, monkeypatch, stored, number):
    """The one step whose outcome only the database knows: the log stops, and asks it."""
    data = fresh(template, tmp_path / "log")
    real, swaps = LogStore.swap, iter(range(100))

    async def swap(self, *arguments):
        failing = next(swaps) == number
        if stored or not failing:
            await real(self, *arguments)
        if failing:
            raise DiskError("disk I/O error")

    with monkeypatch.context() as patched:
        patched.setattr(LogStore, "swap", swap)
        acknowledged = asyncio.run(run_once(data, FaultyDisk({}), ROUNDS))
    # The round whose commit failed was not acknowledged, stored or not, and none came after it.
    assert sorted(acknowledged) == list(range(BEFORE, ROUNDS[number][0]))
    asyncio.run(play(data, FaultyDisk({})))


def test_a_folder_left_by_a_failed_round_is_made_durable_too(tmp_path):
    class Watched(FaultyDisk):
        synced = ()

        def sync_folder(self, path):
            super().sync_folder(path)
            self.synced = (*self.synced, path.relative_to(tmp_path).as_posix())

    # Calls: the staged write, three folders made, then the rename.
    disk = Watched({4: ("refused", 0)})
    folder = Folder(tmp_path, disk=disk)
    folder.prepare()
    files = [(Tile(level=0, index=0, width=1), b"\0" * 32)]
    with pytest.raises(OSError, match="no space"):
        folder.write_tiles(files)
    assert (tmp_path / "tile/0/000.p").is_dir()
    folder.write_tiles(files)
    assert set(disk.synced) == {".", "tile", "tile/0", "tile/0/000.p"}
    disk.synced = ()
    folder.write_tiles([(Tile(level=0, index=0, width=2), b"\0" * 64)])
    assert disk.synced == ("tile/0/000.p",)


# The real thing: a file system that is full. In a process of its own, which may mount one; where it
# may not, the kernel's limit on a file's size stands in, which fails the database's writes as well.
FULL = """
import asyncio, json, resource, signal, sys
from pathlib import Path
from tests.unit.log import test_disk_faults as made
from trunkline.log.fsck import fsck
from trunkline.log.store import create_log

data, limited = Path(sys.argv[1]) / "log", sys.argv[2] == "limited"
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
create_log(data, made.LOG)
ballast = data.parent / "ballast"

def full(wanted):
    if limited:
        soft = 60_000 if wanted else resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, resource.RLIM_INFINITY))
    elif wanted:
        ballast.write_bytes(bytes(250_000))
    else:
        ballast.unlink()

async def main():
    kept = await made.run_once(data, made.FaultyDisk({}), [(0, 100)])
    full(True)
    rounds = [(n, n + 20) for n in range(100, 700, 20)]
    kept |= await made.run_once(data, made.FaultyDisk({}), rounds)
    refused = 700 - len(kept)
    full(False)
    again = await made.run_once(data, made.FaultyDisk({}), [(0, 700)])
    report = fsck(data)
    return {
        "refused": refused,
        "lost": len(kept.items() - again.items()),
        "indexes": sorted(again.values()) == list(range(700)),
        "problems": report.problems,
    }

print(json.dumps(asyncio.run(main())))
"""


def test_a_disk_that_is_really_full(tmp_path):
    mounted = (
        f"mount -t tmpfs -o size=700k tmpfs {tmp_path} && exec {sys.executable} -c '{FULL}'"
        f" {tmp_path} mounted"
    )
    may_mount = subprocess.run(
        ["unshare", "-Urm", "mount", "-t", "tmpfs", "tmpfs", tmp_path], capture_output=True
    )
    command = [sys.executable, "-c", FULL, str(tmp_path), "limited"]
    if may_mount.returncode == 0:
        command = ["unshare", "-Urm", "sh", "-c", mounted]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["refused"] > 0
    assert (found["lost"], found["indexes"], found["problems"]) == (0, True, [])
