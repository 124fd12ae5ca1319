"""Keeping a child process alive behind a socket: start it, watch it, start it again.

Used by the engine's and the embedder's client. What is said over the socket is theirs.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable

import msgspec

from trunkline.base.errors import ConfigError, Error, MalformedError, TimedOutError, UpstreamError
from trunkline.engine.frames import (
    LENGTH_BYTES,
    Failed,
    FromChild,
    ToChild,
    body_length,
    encode,
)

BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 10.0
STABLE_AFTER_S = 60.0
"""A child that lived so long is started again without delay."""

_WATCH_SHARE = 4


class Child:
    """One child process, restarted with back-off when it dies.

    ``on_frame`` gets every frame but a start-up failure; ``on_lost`` is told when a child ended,
    with the error that work in flight should fail with; ``busy`` says whether the child owes an
    answer, which is when silence for ``stall_timeout_s`` means that it hangs.
    """

    def __init__(
        self,
        *,
        module: str,
        setup: ToChild,
        replies: "msgspec.msgpack.Decoder[FromChild]",
        on_frame: Callable[[FromChild], None],
        on_lost: Callable[[UpstreamError], None],
        busy: Callable[[], bool],
        start_timeout_s: float,
        stall_timeout_s: float,
        environment: dict[str, str],
    ) -> None:
        self._module = module
        self._setup = setup
        self._replies = replies
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._busy = busy
        self._start_timeout_s = start_timeout_s
        self._stall_timeout_s = stall_timeout_s
        self._environment = environment
        self._ready = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._fatal: ConfigError | None = None
        self._heard_at = 0.0
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The running child's process id; ``None`` between two lives."""
        return self._process.pid if self._process else None

    async def ready(self) -> None:
        """Wait until the child answered its set-up; starts it the first time.

        Raises ``ConfigError`` if it can not start as configured, ``TimedOutError`` past the
        deadline, ``UpstreamError`` once closed.
        """
        if self._closed:
            raise UpstreamError("the engine is closed", code="engine_closed")
        if self._ready.is_set():
            return
        if self._supervisor is None:
            self._supervisor = asyncio.create_task(self._supervise())
        waiter = asyncio.create_task(self._ready.wait())
        try:
            done, _ = await asyncio.wait(
                (waiter, self._supervisor),
                timeout=self._start_timeout_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            waiter.cancel()
        if self._fatal:
            raise ConfigError(self._fatal.message, code=self._fatal.error_code)
        if waiter in done:
            return
        if done:
            raise UpstreamError("the engine is closed", code="engine_closed")
        raise TimedOutError("the engine did not start in time", code="engine_start_timeout")

    def send(self, message: ToChild) -> bool:
        """Send to the child. False if there is none: whoever waits was or will be told so."""
        if self._writer is None or self._writer.is_closing():
            return False
        self._writer.write(encode(message))
        return True

    async def close(self) -> None:
        """End the child and wait until it is gone. May be called twice."""
        self._closed = True
        supervisor = self._supervisor
        if supervisor is not None:
            supervisor.cancel()
            await asyncio.gather(supervisor, return_exceptions=True)
        self._on_lost(UpstreamError("the engine is closed", code="engine_closed"))

    async def _supervise(self) -> None:
        try:
            await self._restart_for_ever()
        finally:
            # Whatever ended this, nobody may be left waiting.
            self._lost("the engine's process is no longer kept")

    async def _restart_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        delay_s = 0.0
        while not self._fatal:
            if delay_s:
                await asyncio.sleep(delay_s)
            started_at = loop.time()
            try:
                await self._live()
            except ConfigError as error:
                self._fatal = error
            except (Error, OSError) as error:
                self._lost(f"the engine's process failed: {error}")
            if loop.time() - started_at > STABLE_AFTER_S:
                delay_s = 0.0
            delay_s = min(max(2 * delay_s, BACKOFF_FIRST_S), BACKOFF_MAX_S)

    def _lost(self, why: str) -> None:
        self._ready.clear()
        self._on_lost(UpstreamError(why, code="engine_crashed"))

    async def _live(self) -> None:
        """One life of the child, from its start to its end."""
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with its:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    self._module,
                    str(its.fileno()),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    pass_fds=(its.fileno(),),
                    env={**os.environ, **self._environment},
                )
        except BaseException:
            ours.close()
            raise
        self._process = process
        writer: asyncio.StreamWriter | None = None
        watch: asyncio.Task[None] | None = None
        try:
            ours.setblocking(False)
            reader, writer = await asyncio.open_unix_connection(sock=ours)
            self._writer = writer
            writer.write(encode(self._setup))
            async with asyncio.timeout(self._start_timeout_s):
                first = await self._read(reader)
            if isinstance(first, Failed):
                raise ConfigError(first.message, code=first.code)
            self._hear(first)
            self._ready.set()
            watch = asyncio.create_task(self._watch(process))
            while True:
                self._hear(await self._read(reader))
        except TimeoutError:
            self._lost("the engine's process did not start in time")
        except (asyncio.IncompleteReadError, ConnectionError):
            status = await _reaped(process)
            self._lost(f"the engine's process ended unexpectedly ({_ending(status)})")
        finally:
            self._ready.clear()
            self._writer = None
            if watch is not None:
                watch.cancel()
            if writer is not None:
                writer.close()
            else:
                ours.close()
            await asyncio.shield(_reaped(process))
            self._process = None

    def _hear(self, frame: FromChild) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        self._on_frame(frame)

    async def _read(self, reader: asyncio.StreamReader) -> FromChild:
        length = body_length(await reader.readexactly(LENGTH_BYTES))
        try:
            return self._replies.decode(await reader.readexactly(length))
        except msgspec.DecodeError:
            raise MalformedError("the engine's process sent an unreadable frame") from None

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """Kill the child when it owes an answer and has been silent for too long."""
        loop, step_s = asyncio.get_running_loop(), self._stall_timeout_s / _WATCH_SHARE
        while True:
            slept_s = loop.time()
            await asyncio.sleep(step_s)
            # A sleep that was too long was our own standing still, in which nobody could be heard.
            self._heard_at += max(loop.time() - slept_s - step_s, 0.0)
            if not self._busy():
                # Silence counts from when there was work to be silent about.
                self._heard_at = loop.time()
            elif loop.time() - self._heard_at > self._stall_timeout_s:
                _kill(process)


def _kill(process: asyncio.subprocess.Process) -> None:
    # Not process.kill(): that polls, and so may reap the child behind the event loop's back, which
    # then reports a made-up status. A child not yet reaped still owns its id.
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


async def _reaped(process: asyncio.subprocess.Process) -> int:
    """Make sure that ``process`` is gone, and return its status. It holds nothing to save."""
    _kill(process)
    return await process.wait()


def _ending(status: int) -> str:
    if status < 0:
        return signal.Signals(-status).name
    return f"status {status}"
