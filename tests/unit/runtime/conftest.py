"""A logger that keeps its lines, and a clock that a test moves."""

from collections.abc import Iterator

import pytest
import structlog

from trunkline.runtime.logger import Logger, get_logger


class Lines(list[dict[str, object]]):
    """What was logged, in order."""

    def events(self) -> list[object]:
        return [line["event"] for line in self]


@pytest.fixture
def lines() -> Iterator[Lines]:
    captured = Lines()
    before = structlog.get_config()

    def keep(_logger: object, level: str, event: dict[str, object]) -> None:
        captured.append({"level": level, **event})
        raise structlog.DropEvent

    structlog.configure(processors=[keep], cache_logger_on_first_use=False)
    yield captured
    structlog.configure(**before)


@pytest.fixture
def logger(lines: Lines) -> Logger:
    return get_logger("test")


class ManualClock:
    def __init__(self) -> None:
        self.now_ms = 1_780_000_000_000

    def unix_ms(self) -> int:
        return self.now_ms

    def monotonic_s(self) -> float:
        return self.now_ms / 1000


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


class NoRandomness:
    """Half of every back-off."""

    def token(self, size_bytes: int) -> bytes:
        return bytes(size_bytes)


@pytest.fixture
def randomness() -> NoRandomness:
    return NoRandomness()
