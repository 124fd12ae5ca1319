"""Diagnostics: one JSON line each, and no way to put content into it."""

import io
import logging

import msgspec
import pytest
import structlog

from trunkline.base.errors import ConnectError
from trunkline.runtime.logger import FIELD_CHARS_MAX, configure, get_logger


@pytest.fixture
def stream():
    before = structlog.get_config()
    handlers = logging.getLogger().handlers[:]
    written = io.StringIO()
    configure(stream=written)
    yield written
    structlog.configure(**before)
    logging.getLogger().handlers[:] = handlers


def records(stream: io.StringIO) -> list[dict[str, object]]:
    return [msgspec.json.decode(line) for line in stream.getvalue().splitlines()]


def test_one_json_line_per_event(stream):
    get_logger("gateway").bind(answer="ans_1").info("attempt.failed", attempts=2, ok=False)
    (line,) = records(stream)
    at = line.pop("at")
    assert at.endswith("Z")
    assert line == {
        "event": "attempt.failed", "level": "info", "room": "gateway",
        "answer": "ans_1", "attempts": 2, "ok": False,
    }  # fmt: skip


def test_levels(stream):
    logger = get_logger("x")
    logger.debug("thing.seen")
    logger.warning("thing.odd")
    logger.error("thing.broken")
    assert [line["level"] for line in records(stream)] == ["warning", "error"]


def test_content_does_not_get_through(stream):
    get_logger("x").info(
        "call.done",
        prompt="words",
        messages="words",
        api_key="words",
        note=["words"],
        raw=b"words",
        long="w" * 1000,
    )
    (line,) = records(stream)
    assert "words" not in stream.getvalue()
    assert line["note"] == "<list>"
    assert line["raw"] == "<bytes>"
    assert len(line["long"]) == FIELD_CHARS_MAX + 1


def test_a_crash_is_named_without_its_message(stream):
    try:
        raise ValueError("words of the prompt")
    except ValueError as error:
        get_logger("x").crashed("call.crashed", error, path="/v1")
    (line,) = records(stream)
    assert line["error"] == "internal_error"
    assert line["error_type"] == "ValueError"
    assert "test_a_crash_is_named_without_its_message" in line["raised_at"]
    assert "words" not in stream.getvalue()


def test_canonical_line(stream):
    line = get_logger("gateway").line("call.served", answer="ans_1")
    line.set(model="m")
    line.count("attempts")
    line.count("attempts", 2)
    line.emit()
    line.emit()
    failed = get_logger("gateway").line("call.served")
    failed.failed(ConnectError("words", code="upstream_refused"))
    failed.emit()
    first, second = records(stream)
    assert (first["level"], first["model"], first["attempts"]) == ("info", "m", 3)
    assert (second["level"], second["error"]) == ("warning", "upstream_refused")
    assert "words" not in stream.getvalue()


def test_libraries_are_heard_without_their_details(stream):
    logging.getLogger("asyncio").error("Task exception was never retrieved\nfuture: words")
    logging.getLogger("asyncio").info("chatter")
    logging.getLogger("uvicorn.error").error("words")
    logging.getLogger("uvicorn.access").info("GET /?key=words")
    (line,) = records(stream)
    assert (line["library"], line["said"]) == ("asyncio", "Task exception was never retrieved")
    assert "words" not in stream.getvalue()


def test_a_terminal_gets_text():
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    before = structlog.get_config()
    handlers = logging.getLogger().handlers[:]
    terminal = Terminal()
    try:
        configure(stream=terminal)
        get_logger("x").info("thing.done", count=1)
    finally:
        structlog.configure(**before)
        logging.getLogger().handlers[:] = handlers
    assert "thing.done" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")
