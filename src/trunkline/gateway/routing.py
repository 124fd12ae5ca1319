"""The routing policy in force: read from its file, and swapped whole when the file changes.

A file that is wrong is refused with its line: at the start the gateway does not run, later the
policy in force stays, and status says so. Calls that have begun keep the policy they began with.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from trunkline.base.errors import ConfigError
from trunkline.base.ports import Clock
from trunkline.gateway.core.demands import VerifierPolicy
from trunkline.gateway.core.policy import RoutingPolicy
from trunkline.runtime.config import read_text, toml_value
from trunkline.runtime.logger import Logger

LOOK_S: Final = 0.5
"""Between two looks at the file. A change is read once two looks in a row agree, so that a file
that is being written is not read half."""

_Seen = tuple[int, int, int] | None
"""Time of change, inode and size; None: there is no such file."""


class RoutingStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What ``trunkline status`` says of the policy."""

    file: str
    """Empty: the gateway has none, and its defaults are in force."""
    since_ms: int
    """Unix milliseconds when the policy in force was read."""
    problem: str
    """Why the file as it is now is not in force; empty if it is."""


class Routing:
    """The policy in force is ``current``: read it at the moment of use."""

    def __init__(self, path: Path | None, *, clock: Clock, logger: Logger) -> None:
        """Reads the file. Raises :class:`ConfigError` naming the line. ``path`` None: defaults."""
        self._path = path
        self._clock = clock
        self._logger = logger
        self._seen = self._look()
        self._problem = ""
        self._task: asyncio.Task[None] | None = None
        self.current = RoutingPolicy() if path is None else read(path)
        self._since_ms = clock.unix_ms()

    def start(self) -> None:
        """Watch the file from now on."""
        if self._path is not None:
            self._task = asyncio.create_task(self._watch(self._path), name="routing")

    async def stop(self) -> None:
        """Stop watching."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def status(self) -> RoutingStatus:
        """What is in force, and what is not."""
        return RoutingStatus(
            file="" if self._path is None else str(self._path),
            since_ms=self._since_ms,
            problem=self._problem,
        )

    def reload(self) -> None:
        """Read the file now, changed or not (SIGHUP)."""
        if self._path is None:
            return
        self._seen = self._look()
        try:
            policy = read(self._path)
        except ConfigError as error:
            self._problem = error.message
            self._logger.error("routing.refused", reason=error.message)
            return
        self._problem = ""
        self.current = policy
        self._since_ms = self._clock.unix_ms()
        self._logger.info("routing.loaded", models=len(policy.models), keys=len(policy.keys))

    async def _watch(self, path: Path) -> None:
        before = self._seen
        while True:
            await asyncio.sleep(LOOK_S)
            seen = self._look()
            if seen != self._seen and seen == before:
                try:
                    self.reload()
                except Exception as error:  # noqa: BLE001 - a bug must not end the watch
                    self._logger.crashed("routing.failed", error, file=str(path))
            before = seen

    def _look(self) -> _Seen:
        if self._path is None:
            return None
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size


def read(path: Path) -> RoutingPolicy:
    """Read a routing file. Raises :class:`ConfigError` naming the file, the line and the key.

    One that is empty is refused: it would lift every limit and budget, and is what a full disk or
    an editor that was interrupted leaves behind. So is a pipe, which would be waited for.
    """
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path}: this is no file")
    text = read_text(path)
    if not text.strip():
        raise ConfigError(
            f"{path}: it is empty, as a file is that is just being written; for a policy that "
            "changes nothing, write a comment into it"
        )
    try:
        return RoutingPolicy.parse(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}") from None


_POLICY: Final = """\
# Routing policy. Reference: docs/operate/routing.md
#
# Read again by the gateway when it changes; a wrong file is refused with its line and the policy in
# force stays. As it is here it changes nothing: every model is served by itself, on any node.
# `trunkline route explain --model NAME` says what would happen to a call now, and why.

# A virtual model: apps ask for "fast".
# [models.fast]
# use = ["gpt-5-mini", "smollm2-135m-instruct"]     # what may serve it, best first
# strategy = "weights"                    # order (if absent) | weights | least-latency | cheapest
# weights = { "gpt-5-mini" = 3 }          # for strategy "weights"; others count 1

# A model that nodes serve: what may stand in when it can not be had, and where it may run.
# [models."gpt-5"]
# substitutes = ["claude-5"]
# nodes = ["beta.localhost/node"]         # only these, by key name; also operators = […],
# operators_denied = ["beta.localhost"]   # nodes_denied = […], operators_denied = […]

# Models that may all stand in for one another.
# [classes]
# frontier = ["gpt-5", "claude-5"]

# Operators that any call may (not) be sent to.
# [operators]
# deny = ["beta.localhost"]

# US dollars per million tokens, in quotes.
# [prices."gpt-5"]
# input = "1.25"
# cached_input = "0.125"
# output = "10"

# What the account behind a node allows, if its provider does not say so itself.
# [limits."groq.localhost/node"]
# requests_per_minute = 500

# A second attempt beside one that is slow to begin, for at most this share of the answers.
# [hedging]
# share = 0.02

# What the holder of a virtual key may use (`trunkline keys create my-app`).
# [keys.my-app]
# models = ["fast"]
# budget_usd = "10"
"""

_VERIFICATION: Final = """
# Answers that are shown only after a verifier has passed them (for one call: the header
# `trunkline-verify: before`).
# [models.payments]
# use = ["smollm2-135m-instruct"]
# verify = "before"

# Verifiers: whose verdicts on answers that were given count here. Two operators that find a node
# failed quarantine it, one alone demotes it. Reference: docs/operate/verification.md
{mark}[verification]
{mark}audit = true                     # nodes keep what a verifier may ask to see, for an hour
# on_fail = "quarantine"             # or "demote", or "alert"
# webhook = "http://127.0.0.1:9000/alerts"
"""


def example(verifiers: Sequence[VerifierPolicy] = ()) -> str:
    """The file that ``trunkline init`` writes, for a network with these verifiers."""
    tables = [
        f"\n[[verification.verifiers]]\nvkey = {toml_value(one.vkey)}\n"
        f"url = {toml_value(one.url)}\noperator = {toml_value(one.operator)}\n"
        for one in verifiers
    ]
    return _POLICY + _VERIFICATION.format(mark="" if verifiers else "# ") + "".join(tables)
