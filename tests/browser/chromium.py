"""A headless Chromium for tests, driven over the DevTools protocol on two pipes.

No driver program and no WebSocket: messages are JSON, each ended by a NUL byte. Only pages on
loopback are opened.
"""

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

DEADLINE_S = 240.0
PROGRAM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--remote-debugging-pipe",
)
# Chromium reads commands from descriptor 3 and answers on 4, whatever else the parent has open.
LAUNCH = (
    "import fcntl, os, sys; "
    "r, w = (fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3]); "
    "os.dup2(r, 3); os.dup2(w, 4); os.close(r); os.close(w); os.execv(sys.argv[3], sys.argv[3:])"
)


class Page:
    """One tab: commands out, answers and events in."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._pending = b""
        self._number = 0
        self._session: str | None = None
        self._url = ""
        self.requested: list[str] = []
        """URLs that the page asked for since it was opened."""

    def attach(self) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "DOM", "Runtime"):
            self.call(f"{domain}.enable")

    def open(self, url: str) -> None:
        """Go to ``url`` and wait until it has loaded."""
        self.requested.clear()
        self._url = url
        went = self.call("Page.navigate", url=url)
        assert "errorText" not in went, went["errorText"]
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def call(self, method: str, **params: object) -> dict[str, Any]:
        """One command, and its answer."""
        self._number += 1
        message: dict[str, object] = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + DEADLINE_S
        while True:
            answer = self._read(deadline)
            if answer.get("method") == "Network.requestWillBeSent":
                self._heard(answer["params"])
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return cast(dict[str, Any], answer["result"])

    def _heard(self, asked: dict[str, Any]) -> None:
        # The browser asks for the icon of the page before this one when it likes.
        if asked["documentURL"] == self._url:
            self.requested.append(asked["request"]["url"])

    def evaluate(self, script: str) -> Any:
        """What an expression gives in the page; a promise is waited for."""
        answer = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, condition: str) -> None:
        """Wait until an expression holds in the page."""
        deadline = time.monotonic() + DEADLINE_S
        # The page's own timer paces the questions, so that it gets on with its work.
        asked = f"new Promise((tell) => setTimeout(() => tell({condition}), 10))"
        while not self.evaluate(asked):
            assert time.monotonic() < deadline, f"never so: {condition}"

    def choose_file(self, selector: str, path: Path) -> None:
        """As a person would with the file dialogue."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def _read(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._pending:
            ready, _, _ = select.select([self._answers], [], [], deadline - time.monotonic())
            assert ready, "Chromium does not answer"
            data = os.read(self._answers, 1 << 20)
            assert data, "Chromium has ended"
            self._pending += data
        message, _, self._pending = self._pending.partition(b"\0")
        return cast(dict[str, Any], json.loads(message))


@contextmanager
def chromium(profile: Path) -> Iterator[Page]:
    """Start it with an empty ``profile`` folder; it is gone when the block ends."""
    assert PROGRAM is not None
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    launch = [sys.executable, "-c", LAUNCH, str(theirs_in), str(theirs_out)]
    process = subprocess.Popen(
        [*launch, PROGRAM, *FLAGS, f"--user-data-dir={profile}"],
        pass_fds=(theirs_in, theirs_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        page = Page(ours_out, ours_in)
        page.attach()
        yield page
    finally:
        # Without its command pipe, Chromium ends by itself, children and all.
        os.close(ours_out)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(ours_in)
