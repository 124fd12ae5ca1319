"""Sends spans and metrics to the one OpenTelemetry endpoint that the operator has configured.

Off unless configured. It never blocks an answer: what is offered goes into a bounded queue, and
what does not fit, or the receiver will not have, is dropped and counted. A failed delivery is tried
again as the OTLP specification 1.x says (429, 502, 503, 504, no connection), with growing pauses.
The environment's ``OTEL_*`` variables are looked at only if the configuration says so.
"""

import asyncio
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import msgspec

from trunkline import __version__
from trunkline.base.errors import ConfigError, Error, MalformedError, UpstreamError
from trunkline.base.ports import Clock, Randomness
from trunkline.remote.target import parse_url
from trunkline.remote.transport import Transport
from trunkline.runtime.config import read_secret, resolve
from trunkline.runtime.logger import Logger
from trunkline.runtime.metrics import Metrics, MetricsConfig
from trunkline.runtime.otlp import (
    METRICS_PATH,
    TRACES_PATH,
    Attributes,
    Span,
    encode_metrics,
    encode_spans,
)

TRACES_WAITING_MAX: Final = 4096
"""Traces that wait to be sent; about 2 kB each."""
TRACES_AT_ONCE: Final = 128
FLUSH_S: Final = 1.0
TIMEOUT_S: Final = 10.0
RETRY_S_MIN: Final = 1.0
RETRY_S_MAX: Final = 60.0
LAST_FLUSH_S: Final = 2.0
RESPONSE_BYTES_MAX: Final = 64 * 1024
_AGAIN: Final = frozenset({429, 502, 503, 504})
_HEADER: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([ -~]+)")

ENDPOINT_VARIABLE: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
HEADERS_VARIABLE: Final = "OTEL_EXPORTER_OTLP_HEADERS"
SERVICE_VARIABLE: Final = "OTEL_SERVICE_NAME"

MakeSpans = Callable[[], Sequence[Span]]


class TelemetryConfig(MetricsConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section ``[telemetry]`` of a role that can export."""

    otlp_endpoint: str | None = None
    """Base URL of an OTLP/HTTP receiver that takes JSON: ``http://127.0.0.1:4318``. None: nothing
    is exported."""
    otlp_headers_file: str | None = None
    """Secret file, mode 600, with a ``name: value`` on each line: what the receiver asks for."""
    otlp_interval_s: float = 15.0
    """Between two exports of the metrics."""
    otlp_sample: float = 1.0
    """Share of the answers that are traced, where the app does not say by its ``traceparent``."""
    otel_environment: bool = False
    """Take what is not given here from OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_HEADERS and
    OTEL_SERVICE_NAME."""
    pass_trace: bool = True
    """Tell nodes the trace, so that what they log and export can be joined with it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.otlp_endpoint is not None:
            parse_endpoint(self.otlp_endpoint)
        if not 0.1 <= self.otlp_interval_s <= 3600:
            raise ValueError("otlp_interval_s must be between 0.1 and 3600")
        if not 0 <= self.otlp_sample <= 1:
            raise ValueError("otlp_sample must be between 0 and 1")


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where to, and as whom. ``headers`` may hold a key."""

    endpoint: str
    headers: tuple[tuple[str, str], ...]
    service: str


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a request to the receiver."""

    error: str | None = None
    again_s: float | None = None
    """Seconds after which it may be sent again; None: it is done with, either way."""
    rejected: int = 0
    """Of what was taken, by the receiver's word."""


class _Partial(msgspec.Struct, frozen=True):
    rejectedSpans: int = 0


class _Said(msgspec.Struct, frozen=True):
    partialSuccess: _Partial = _Partial()


class Exporter:
    """A queue, and the task that empties it."""

    def __init__(
        self,
        transport: Transport,
        target: Target,
        metrics: Metrics,
        *,
        interval_s: float,
        clock: Clock,
        randomness: Randomness,
        logger: Logger,
    ) -> None:
        self._transport = transport
        self._target = target
        self._metrics = metrics
        self._interval_s = interval_s
        self._clock = clock
        self._logger = logger
        self._resource: Attributes = {
            "service.name": target.service,
            "service.version": __version__,
            "service.instance.id": randomness.token(16).hex(),
        }
        self._began_ns = clock.unix_ms() * 1_000_000
        self._waiting: deque[MakeSpans] = deque()
        self._full = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failing = False
        self._spans = metrics.counter(
            "trunkline.telemetry.spans", "{span}", "Spans by what became of them", "outcome"
        )
        self._lost = metrics.counter(
            "trunkline.telemetry.traces.dropped", "{trace}", "Traces that found the queue full"
        )

    def offer(self, make: MakeSpans) -> None:
        """Send these spans some time. ``make`` is called then, and again where that fails: it must
        always give the same."""
        if len(self._waiting) >= TRACES_WAITING_MAX:
            self._lost.add()
            return
        self._waiting.append(make)
        if len(self._waiting) >= TRACES_AT_ONCE:
            self._full.set()

    def start(self) -> None:
        """Begin to send."""
        self._task = asyncio.create_task(self._run(), name="telemetry.export")
        self._task.add_done_callback(self._ended)

    async def stop(self) -> None:
        """Send what waits, if that is quick, and end."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None
        try:
            async with asyncio.timeout(LAST_FLUSH_S):
                while self._waiting and await self._send_traces() is None:
                    pass
                await self._send_metrics()
        except TimeoutError:
            return

    def _ended(self, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            # A bug. Answers go on; what is offered from now on is dropped when the queue is full.
            self._logger.crashed("telemetry.stopped", error)

    async def _run(self) -> None:
        metrics_s = self._clock.monotonic_s() + self._interval_s
        pause_s, wait_s = RETRY_S_MIN, FLUSH_S
        while True:
            await self._wait(min(wait_s, max(metrics_s - self._clock.monotonic_s(), 0.0)))
            if self._clock.monotonic_s() >= metrics_s:
                metrics_s = self._clock.monotonic_s() + self._interval_s
                await self._send_metrics()
            again_s = await self._send_traces() if self._waiting else None
            if again_s is None:
                pause_s, wait_s = RETRY_S_MIN, FLUSH_S
                continue
            wait_s = min(max(again_s, pause_s), RETRY_S_MAX)
            pause_s = min(pause_s * 2, RETRY_S_MAX)

    async def _wait(self, seconds: float) -> None:
        """Until so much time is over, or, while the receiver takes them, a batch is full."""
        if self._failing:
            await asyncio.sleep(seconds)
            return
        self._full.clear()
        if len(self._waiting) >= TRACES_AT_ONCE:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._full.wait()
        except TimeoutError:
            return

    async def _send_traces(self) -> float | None:
        """Send one batch. None: it is gone. Else seconds after which to try it again."""
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), TRACES_AT_ONCE))]
        spans = [span for make in batch for span in make()]
        delivery: Delivery | None = None
        try:
            body = encode_spans(self._resource, __version__, spans)
            delivery = await self._post(TRACES_PATH, body)
        finally:
            if delivery is None or delivery.again_s is not None:
                # Refused for now, or this task is cancelled and the last flush sends them.
                self._waiting.extendleft(reversed(batch))
        if delivery.again_s is None:
            sent = max(len(spans) - delivery.rejected, 0) if delivery.error is None else 0
            self._spans.add("sent", by=sent)
            self._spans.add("dropped", by=len(spans) - sent)
        return delivery.again_s

    async def _send_metrics(self) -> None:
        """Send all metrics. They are totals: a delivery that fails is made good by the next."""
        try:
            await self._metrics.look()
        except Error as error:
            # Some gauges are as they were.
            self._logger.warning("telemetry.stale", error=error.error_code)
        now_ns = self._clock.unix_ms() * 1_000_000
        everything = self._metrics.all
        body = encode_metrics(self._resource, __version__, everything, self._began_ns, now_ns)
        await self._post(METRICS_PATH, body)

    async def _post(self, path: str, body: bytes) -> Delivery:
        delivery = await self._try(path, body)
        if (delivery.error is not None) != self._failing:
            self._failing = delivery.error is not None
            # One line when deliveries begin to fail, one when they work again.
            if delivery.error is None:
                self._logger.info("telemetry.delivered")
            else:
                self._logger.warning("telemetry.undelivered", error=delivery.error)
        return delivery

    async def _try(self, path: str, body: bytes) -> Delivery:
        try:
            async with await self._transport.request(
                "POST",
                self._target.endpoint + path,
                headers=(("content-type", "application/json"), *self._target.headers),
                body=body,
                connect_timeout_s=TIMEOUT_S,
                head_timeout_s=TIMEOUT_S,
                idle_timeout_s=TIMEOUT_S,
            ) as response:
                said = await response.read(RESPONSE_BYTES_MAX)
        except UpstreamError as error:
            return Delivery(error=error.error_code, again_s=RETRY_S_MIN)
        if response.status < 300:
            return Delivery(rejected=_rejected(said))
        again = response.status in _AGAIN
        return Delivery(
            error=f"http_{response.status}",
            again_s=_seconds(response.header("retry-after")) if again else None,
        )


def export_target(
    config: TelemetryConfig, base: Path, service: str, environment: Mapping[str, str]
) -> Target | None:
    """Where to export to; None: nowhere. Raises :class:`ConfigError`. ``base``: the file that
    relative paths start at. ``environment`` is looked at only if the configuration says so."""
    allowed = environment if config.otel_environment else {}
    endpoint = config.otlp_endpoint or allowed.get(ENDPOINT_VARIABLE)
    if not endpoint:
        return None
    if config.otlp_headers_file is not None:
        headers = _headers(resolve(base, config.otlp_headers_file))
    else:
        headers = _listed(allowed.get(HEADERS_VARIABLE, ""))
    try:
        url = parse_endpoint(endpoint)
    except ValueError as error:
        raise ConfigError(f"{ENDPOINT_VARIABLE}: {error}") from None
    return Target(endpoint=url, headers=headers, service=allowed.get(SERVICE_VARIABLE, service))


def parse_endpoint(url: str) -> str:
    """The base URL that paths are added to. Raises ValueError without quoting it."""
    url = url.rstrip("/")
    try:
        parse_url(url + TRACES_PATH)
    except MalformedError as error:
        raise ValueError(f"otlp_endpoint: {error.message}") from None
    return url


def _headers(path: Path) -> tuple[tuple[str, str], ...]:
    found = [_HEADER.fullmatch(line.strip()) for line in read_secret(path).splitlines() if line]
    headers = [(one[1], one[2]) for one in found if one is not None]
    if len(headers) != len(found):
        raise ConfigError(f"{path}: a line is not `name: value`")
    return tuple(headers)


def _listed(text: str) -> tuple[tuple[str, str], ...]:
    """``name=value,name=value``, values percent-encoded, as OpenTelemetry's variable has them."""
    pairs = [item.partition("=") for item in text.split(",") if item.strip()]
    headers = tuple((name.strip(), unquote(value.strip())) for name, _, value in pairs)
    if not all(_HEADER.fullmatch(f"{name}: {value}") for name, value in headers):
        raise ConfigError(f"{HEADERS_VARIABLE}: name=value,name=value is expected")
    return headers


def _rejected(body: bytes) -> int:
    """Spans that the receiver took note of without keeping them, by its word."""
    try:
        return msgspec.json.decode(body, type=_Said, strict=False).partialSuccess.rejectedSpans
    except msgspec.MsgspecError:
        # An empty body, or words: 2xx alone says that they were taken.
        return 0


def _seconds(value: str | None) -> float:
    """A ``Retry-After`` in seconds; a date is as good as none, the pauses grow anyhow."""
    short = value is not None and value.isascii() and value.isdigit() and len(value) < 6
    return min(float(value or 0), RETRY_S_MAX) if short else RETRY_S_MIN
