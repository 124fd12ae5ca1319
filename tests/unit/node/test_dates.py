"""What a node dates never goes back, whatever its clock and however often it begins anew."""

from pathlib import Path

from tests.unit.node.harness import SIGNER
from tests.unit.node.test_self_test import TestedEngine

from trunkline.node import store
from trunkline.node.dates import Dates, last_dated
from trunkline.node.self_test import SelfTests
from trunkline.runtime.logger import get_logger
from trunkline.runtime.store import Connection

HOUR_MS = 3_600_000
NOW_MS = 1_780_000_000_000


class Hands:
    """A clock that stands at ``now_ms``."""

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms

    def unix_ms(self) -> int:
        return self.now_ms

    def monotonic_s(self) -> float:
        return self.now_ms / 1000


def queued(_connection: Connection, _key: str, _note: bytes) -> None:
    """The log has it at once."""


async def test_a_self_test_is_older_than_what_the_next_process_signs(tmp_path: Path) -> None:
    """Else what an engine of before computes would hold for answers of the one after it."""
    store.create_store(tmp_path)
    database = store.open_store(tmp_path)
    ahead = Dates(Hands(NOW_MS + HOUR_MS), await database.read(last_dated))
    await SelfTests(
        TestedEngine(),
        SIGNER,
        database,
        dates=ahead,
        logger=get_logger("test"),
        busy=lambda: False,
        enqueue=queued,
    ).run()
    after = Dates(Hands(NOW_MS), await database.read(last_dated))
    assert after.unix_ms() == ahead.unix_ms() == NOW_MS + HOUR_MS
    assert after.next_ms() > ahead.unix_ms()
    await database.aclose()
