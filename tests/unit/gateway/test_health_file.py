"""The memory of health on disk: replaced whole, read once, and never a reason not to start."""

import asyncio
import threading
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs
from tests.support.health import CUT, REFUSED, ManualClock, attempt, deployment

from trunkline.gateway import health_file
from trunkline.gateway.core.breaker import Admission
from trunkline.gateway.health import Health
from trunkline.gateway.health_file import BYTES_MAX, FILE, FileMemory, Keeper, decode
from trunkline.runtime.logger import get_logger


def keeper(memory: health_file.Memory, health: Health) -> Keeper:
    return Keeper(memory, health, ["a"], logger=get_logger("gateway"))


def listed(folder: Path) -> list[Path]:
    return list(folder.iterdir())


@pytest.fixture
def health() -> Health:
    return Health(ManualClock())


async def test_what_is_learnt_is_there_after_a_restart(tmp_path: Path, health: Health) -> None:
    first = keeper(FileMemory(tmp_path), health)
    await first.start()
    attempt(health, deployment(), REFUSED)
    await first.stop()
    again = Health(ManualClock())
    second = keeper(FileMemory(tmp_path), again)
    await second.start()
    assert again.of("a", "m").admission is Admission.NO
    await second.stop()
    assert {path.name for path in await asyncio.to_thread(listed, tmp_path)} == {FILE}


@pytest.mark.parametrize("data", [b"{", b"\xff\x00", b'{"type":"trunkline.health","version":2}'])
async def test_a_foreign_file_is_said_and_replaced(
    tmp_path: Path, health: Health, data: bytes
) -> None:
    (tmp_path / FILE).write_bytes(data)
    kept = keeper(FileMemory(tmp_path), health)
    with capture_logs() as lines:
        await kept.start()
    assert [line["event"] for line in lines] == ["health.unreadable"]
    attempt(health, deployment())
    await kept.stop()
    found = decode((tmp_path / FILE).read_bytes())
    assert found is not None
    assert [each.node for each in found.deployments] == ["a"]


async def test_a_huge_file_is_not_read_whole(tmp_path: Path, health: Health) -> None:
    with (tmp_path / FILE).open("wb") as file:
        file.truncate(BYTES_MAX * 4)
    assert len(FileMemory(tmp_path).read()) == BYTES_MAX + 1
    kept = keeper(FileMemory(tmp_path), health)
    await kept.start()
    await kept.stop()


def test_a_crash_between_write_and_rename_leaves_the_old_file(tmp_path: Path) -> None:
    FileMemory(tmp_path).write(b"old")
    leftover = tmp_path / f"{FILE}.new"
    leftover.write_bytes(b"half")
    leftover.chmod(0o600)
    assert FileMemory(tmp_path).read() == b"old"
    FileMemory(tmp_path).write(b"new")
    assert (tmp_path / FILE).stat().st_mode & 0o077 == 0, "whom it asks is nobody else's business"
    assert FileMemory(tmp_path).read() == b"new"


class Disk:
    """A memory that tells when it was written to, and may refuse."""

    def __init__(self) -> None:
        self.full = False
        self.data = b""
        self.wrote = threading.Semaphore(0)

    def read(self) -> bytes:
        if self.full:
            raise PermissionError
        return self.data

    def write(self, data: bytes) -> None:
        try:
            if self.full:
                raise OSError(28, "no space")
            self.data = data
        finally:
            self.wrote.release()


async def test_it_is_written_now_and_then_so_that_a_kill_loses_little(
    health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_file, "EVERY_S", 0.001)
    disk = Disk()
    kept = keeper(disk, health)
    await kept.start()
    for count in (1, 2):
        attempt(health, deployment(), CUT)
        await asyncio.to_thread(disk.wrote.acquire)
        found = msgspec.json.decode(disk.data)
        assert found["deployments"][0]["breaker"]["failures"] == count
    await kept.stop()


async def test_a_full_disk_is_said_once_and_stops_nothing(
    health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_file, "EVERY_S", 0.001)
    disk = Disk()
    disk.full = True
    kept = keeper(disk, health)
    with capture_logs() as lines:
        await kept.start()
        attempt(health, deployment())
        for _ in range(3):
            await asyncio.to_thread(disk.wrote.acquire)
        await kept.stop()
    assert [line["event"] for line in lines] == ["health.unreadable", "health.not_kept"]
