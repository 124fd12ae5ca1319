"""Diagnostics: one line per event, JSON unless a person is watching.

Refuses by construction to print what people wrote: a field is a number, a flag or a short label,
never bytes, a list or an object; names that promise content or credentials are blanked; an
exception is named by its type, its stable code and where it was raised, never by its message.
"Logger" means diagnostics; the transparency log is another thing.
"""

import logging
import sys
import traceback
from typing import Final, TextIO

import msgspec
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from trunkline.base.errors import Error

Field = str | int | float | bool | None
"""What a line may hold. Text is cut at ``FIELD_CHARS_MAX``."""

FIELD_CHARS_MAX: Final = 200
FRAMES_MAX: Final = 12

_CONTENT_NAMES: Final = frozenset(
    {
        "answer_text", "api_key", "authorization", "body", "chunk", "completion", "content",
        "cookie", "data", "delta", "input", "messages", "output", "password", "payload", "prompt",
        "query", "query_string", "request", "response", "secret", "seed", "skey", "text", "tools",
    }
)  # fmt: skip
_BLANK: Final = "[withheld]"


class Logger:
    """A room's diagnostics. Event names are ``noun.past``: ``attempt.failed``."""

    __slots__ = ("_target",)

    def __init__(self, target: FilteringBoundLogger) -> None:
        self._target = target

    def bind(self, **fields: Field) -> "Logger":
        """A logger whose lines all carry ``fields``."""
        return Logger(self._target.bind(**_safe(fields)))

    def debug(self, event: str, **fields: Field) -> None:
        self._target.debug(event, **_safe(fields))

    def info(self, event: str, **fields: Field) -> None:
        self._target.info(event, **_safe(fields))

    def warning(self, event: str, **fields: Field) -> None:
        self._target.warning(event, **_safe(fields))

    def error(self, event: str, **fields: Field) -> None:
        self._target.error(event, **_safe(fields))

    def crashed(self, event: str, error: BaseException, **fields: Field) -> None:
        """Report an exception nobody expected: its type, code and call path, not its message."""
        self._target.error(event, **_safe(fields | describe(error)))

    def line(self, event: str, **fields: Field) -> "CanonicalLine":
        """Start the one line that will sum up a unit of work (a call, an attempt, a delivery)."""
        return CanonicalLine(self, event, fields)


class CanonicalLine:
    """Gathers the fields of one unit of work and writes them as a single line at its end.

    ``emit`` writes once; later calls are ignored, so it may stand in a ``finally``.
    """

    __slots__ = ("_event", "_fields", "_logger", "_written")

    def __init__(self, logger: Logger, event: str, fields: dict[str, Field]) -> None:
        self._logger = logger
        self._event = event
        self._fields = dict(fields)
        self._written = False

    def set(self, **fields: Field) -> None:
        """Add or replace fields."""
        self._fields.update(fields)

    def count(self, name: str, by: int = 1) -> None:
        """Add ``by`` to a counting field."""
        present = self._fields.get(name)
        self._fields[name] = (present if isinstance(present, int) else 0) + by

    def failed(self, error: BaseException) -> None:
        """Name the failure that ended the work."""
        self._fields.update(describe(error, frames=not isinstance(error, Error)))

    def emit(self) -> None:
        """Write the line, at level warning if the work failed."""
        if self._written:
            return
        self._written = True
        if "error" in self._fields:
            self._logger.warning(self._event, **self._fields)
        else:
            self._logger.info(self._event, **self._fields)


def describe(error: BaseException, *, frames: bool = True) -> dict[str, Field]:
    """An exception as fields that hold no content: code, type and call path."""
    fields: dict[str, Field] = {
        "error": error.error_code if isinstance(error, Error) else "internal_error",
        "error_type": type(error).__qualname__,
    }
    if frames:
        path = traceback.extract_tb(error.__traceback__)[-FRAMES_MAX:]
        where = (f"{_short(frame.filename)}:{frame.lineno}:{frame.name}" for frame in path)
        # A call path is longer than a label and holds no content.
        fields["raised_at"] = _Path(" > ".join(where))
    return fields


def get_logger(room: str) -> Logger:
    """The logger of one room. Works before :func:`configure` too, with structlog's defaults."""
    return Logger(structlog.get_logger(room=room))


def configure(*, level: str = "info", stream: TextIO | None = None) -> None:
    """Set up diagnostics for this process; called once, by whoever starts it.

    Lines go to ``stream`` (standard error): JSON, or aligned text where that is a terminal.
    What libraries say through ``logging`` is passed on from level warning, first line only.
    """
    target = sys.stderr if stream is None else stream
    common: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
    ]
    last: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if target.isatty()
        else _render_json
    )
    structlog.configure(
        processors=[*common, last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(target),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_LibraryHandler(level=logging.WARNING)]
    quiet_server()


def quiet_server() -> None:
    """Silence the HTTP server's own loggers: they print addresses, query strings and messages."""
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.setLevel(logging.CRITICAL + 1)
        library.propagate = name == "uvicorn"


class _Path(str):
    """Text made by this module, exempt from the label length."""

    __slots__ = ()


class _LibraryHandler(logging.Handler):
    """Passes on a library's warning by its first line: what follows may quote an exception."""

    def emit(self, record: logging.LogRecord) -> None:
        said = str(record.msg).partition("\n")[0]
        kind = record.exc_info[0].__qualname__ if record.exc_info and record.exc_info[0] else None
        get_logger("library").warning(
            "library.warned", library=record.name, said=said, error_type=kind
        )


def _safe(fields: dict[str, Field]) -> dict[str, Field]:
    return {name: _BLANK if name in _CONTENT_NAMES else _label(fields[name]) for name in fields}


def _label(value: object) -> Field:
    # Typed wider than Field on purpose: a caller that mypy did not see is held to it here.
    if isinstance(value, _Path):
        return str(value)
    if isinstance(value, str):
        return value if len(value) <= FIELD_CHARS_MAX else value[:FIELD_CHARS_MAX] + "…"
    return value if value is None or isinstance(value, int | float) else f"<{type(value).__name__}>"


def _render_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    return msgspec.json.encode(event).decode()


def _short(filename: str) -> str:
    _, found, inside = filename.rpartition("/trunkline/")
    return inside if found else filename.rpartition("/")[2]
