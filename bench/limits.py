"""Three providers with different limits, too much demand and not enough of it, two tenants.

    python bench/limits.py [--seconds 60] [--loads 0.5 0.9 1.0 1.5 3.0]

Scripted providers on raw sockets count for themselves and truly, each by its own rule, and refuse
what is too much with 429 as real ones do; in front of them a real gateway, three real provider
nodes, a log and a witness. Windows of a minute are scaled down to some seconds, so that a run takes
minutes. Clients come in bursts, never retry, and give up after their own deadline.

Printed for each load, from one run: the share of calls that saw a 429, goodput as a share of what
the demand or the providers allow (whichever is less), and the fairness index (Jain's, of what two
tenants got over what max-min fairness entitles each to). Exits with 1 if a call below capacity saw
a 429, or goodput or fairness were under 0.95. ``cpu`` is how busy the whole machine was, and
``lag`` by how much the latest call was sent after its time: a level that the machine could not keep
up with says so. ``tests/property/test_goodput.py`` is the same in virtual time, where no machine
has a say.
"""

import argparse
import asyncio
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import uvloop

sys.path.insert(0, str(Path(__file__).parent))
from network import TRUNKLINE, free_port_base
from peers import roles

from trunkline.base.errors import Error
from trunkline.remote.http1 import HttpTransport

MODEL = "scripted"
WINDOW_S = 4.0
"""What stands for a minute."""
DEADLINE_S = 10.0
MAX_TOKENS = 40
PROMPT = "Say something of medium length about limits, and do not stop before you are done. " * 2
SHARES = {"greedy": 0.75, "modest": 0.25}
"""Of the demand."""
BURST_MEAN = 6.0
TARGET = 0.95
LAG_S_MAX = 0.25
"""A machine that is later with a call is itself a limit."""


# Providers.


@dataclass
class Provider:
    """Counts what it is asked for, refuses what is too much, and says what is left."""

    name: str
    requests: int | None = None
    """In a window whose beginning is fixed."""
    tokens: int | None = None
    """In any window: it slides. Counted on arrival, by the bound that the request sets."""
    places: int | None = None
    takes_s: float = 0.25
    refused: int = 0
    running: int = 0
    rng: random.Random = field(default_factory=random.Random)
    _taken: deque[tuple[float, int]] = field(default_factory=deque)

    def rate_s(self, tokens: int) -> float:
        """Requests of this size that a second allows."""
        if self.requests is not None:
            return self.requests / WINDOW_S
        if self.tokens is not None:
            return self.tokens / tokens / WINDOW_S
        return (self.places or 0) / self.takes_s

    def _forget(self, now_s: float) -> None:
        since_s = now_s - WINDOW_S
        if self.requests is not None:
            since_s = now_s // WINDOW_S * WINDOW_S
        while self._taken and self._taken[0][0] < since_s:
            self._taken.popleft()

    def take(self, tokens: int, now_s: float) -> bool:
        self._forget(now_s)
        full = (
            (self.requests is not None and len(self._taken) >= self.requests)
            or (self.tokens is not None and self._tokens() + tokens > self.tokens)
            or (self.places is not None and self.running >= self.places)
        )
        if full:
            self.refused += 1
        else:
            self._taken.append((now_s, tokens))
        return not full

    def _tokens(self) -> int:
        return sum(tokens for _, tokens in self._taken)

    def headers(self, now_s: float) -> dict[str, str]:
        """One words them as OpenAI does, which says nothing of how long a window is; one as the
        IETF's draft does; one says nothing."""
        self._forget(now_s)
        if self.requests is not None:
            left_s = WINDOW_S - now_s % WINDOW_S
            return {
                "x-ratelimit-limit-requests": str(self.requests),
                "x-ratelimit-remaining-requests": str(self.requests - len(self._taken)),
                "x-ratelimit-reset-requests": f"{int(left_s * 1000) + 1}ms",
            }
        if self.tokens is not None:
            left = self.tokens - self._tokens()
            left_s = self._taken[0][0] + WINDOW_S - now_s if self._taken else 0.0
            return {
                "ratelimit-policy": f'"all";q={self.tokens};w={WINDOW_S:.0f};qu="tokens"',
                "ratelimit": f'"all";r={left};t={int(left_s) + 1}',
            }
        return {}

    def wait_ms(self, now_s: float) -> int:
        """What a refusal says, at the earliest."""
        if self.requests is not None:
            return int((WINDOW_S - now_s % WINDOW_S) * 1000) + 1
        if self.tokens is not None and self._taken:
            return int((self._taken[0][0] + WINDOW_S - now_s) * 1000) + 1
        return 100


class Exchange(asyncio.Protocol):
    """One connection to a provider."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._buffer = b""
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            found = re.search(rb"content-length: *(\d+)", head)
            stop = end + 4 + int(found[1] if found else 0)
            if len(self._buffer) < stop:
                return
            body, self._buffer = self._buffer[end + 4 : stop], self._buffer[stop:]
            if head.startswith(b"get"):
                listed = {"object": "list", "data": [{"id": MODEL, "object": "model"}]}
                self._reply(200, listed, {})
            else:
                task = asyncio.create_task(self._answer(json.loads(body)))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _answer(self, asked: dict[str, int]) -> None:
        provider, now_s = self._provider, time.monotonic()
        bound = asked.get("max_tokens") or asked.get("max_completion_tokens") or 0
        if not provider.take(prompt_tokens() + bound, now_s):
            said = {
                "message": "too many",
                "type": "rate_limit_error",
                "code": "rate_limit_exceeded",
            }
            wait = {"retry-after-ms": str(provider.wait_ms(now_s))}
            self._reply(429, {"error": said}, wait | provider.headers(now_s))
            return
        provider.running += 1
        try:
            await asyncio.sleep(provider.takes_s)
        finally:
            provider.running -= 1
        completion = provider.rng.randint(bound * 3 // 4, bound)
        usage = {"prompt_tokens": prompt_tokens(), "completion_tokens": completion}
        message = {"role": "assistant", "content": "word " * completion}
        answer = {
            "id": "chatcmpl-limits",
            "object": "chat.completion",
            "created": 1_780_000_000,
            "model": MODEL,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {**usage, "total_tokens": prompt_tokens() + completion},
        }
        self._reply(200, answer, provider.headers(time.monotonic()))

    def _reply(self, status: int, body: object, headers: dict[str, str]) -> None:
        data = json.dumps(body).encode()
        lines = [f"HTTP/1.1 {status} Scripted", "content-type: application/json"]
        lines += [f"content-length: {len(data)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if not self._transport.is_closing():
            self._transport.write("\r\n".join([*lines, "", ""]).encode() + data)


def prompt_tokens() -> int:
    return len(PROMPT) // 4


# The gateway and its nodes.


@asynccontextmanager
async def network(
    scratch: Path, urls: dict[str, str], places: dict[str, int]
) -> AsyncIterator[tuple[str, dict[str, str]]]:
    """Real processes over these providers. Yields the gateway's URL and the tenants' keys.
    ``places``: of the provider that states nothing, as its operator would write it into
    ``routing.toml``."""
    data, base = scratch / "net", free_port_base(32)
    command = [str(TRUNKLINE), "init", "--data", str(data), "--port-base", str(base)]
    for name, url in urls.items():
        command += ["--provider", f"{name}={url}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    for name in urls:
        path = data / f"node-{name}" / "node.toml"
        text = re.sub(r"(?m)^models = .*\n", "", path.read_text())
        path.write_text(text.replace("[engine]\n", f'[engine]\nmodels = ["{MODEL}"]\n', 1))
    path = data / "gateway" / "gateway.toml"
    text = re.sub(r"(?m)^keys = .*$", 'keys = "optional"', path.read_text())
    path.write_text(re.sub(r"(?m)^# routing_file = .*$", 'routing_file = "routing.toml"', text))
    nodes = dict(re.findall(r'vkey = "(([^+"]+)\+[^"]+)"', text))
    listed = [
        f'[limits."{node}"]\nconcurrency = {count}\n'
        for name, count in places.items()
        for node in nodes.values()
        if name in node
    ]
    (data / "gateway" / "routing.toml").write_text("\n".join(listed))
    keys = {name: key(data, name) for name in SHARES}
    started = [(role, data / role / f"{role}.toml") for role in ("log", "witness")]
    started += [("node", data / f"node-{name}" / "node.toml") for name in urls]
    started += [("gateway", path)]
    async with roles(started, scratch):
        yield f"http://127.0.0.1:{base}", keys


def key(data: Path, name: str) -> str:
    """A virtual key, made as an operator makes one."""
    command = [str(TRUNKLINE), "keys", "create", name, "--data", str(data)]
    return subprocess.run(command, check=True, capture_output=True).stdout.decode().strip()


# Clients.


@dataclass
class Call:
    """One call of a tenant, and what came of it."""

    tenant: str
    at_s: float
    """When, since the level began."""
    status: int = 0
    ended_s: float = 0.0
    retry_after: str = ""


class Clients:
    """Ask in bursts, never again."""

    def __init__(self, url: str, keys: dict[str, str], rng: random.Random) -> None:
        self._url = url + "/v1/chat/completions"
        self._keys = keys
        self._rng = rng
        # Each call is a client of its own: none waits for another's connection.
        self._transport = HttpTransport(max_connections_per_origin=4096)
        message = {"role": "user", "content": PROMPT}
        asked = {"model": MODEL, "messages": [message], "max_tokens": MAX_TOKENS}
        self._body = json.dumps(asked).encode()

    async def aclose(self) -> None:
        await self._transport.aclose()

    def arrivals(self, rate_s: float, seconds: float) -> list[Call]:
        """Bursts of a geometric number of calls, exponential times apart, for each tenant."""
        calls = []
        for tenant, share in SHARES.items():
            at_s = 0.0
            while at_s < seconds:
                at_s += self._rng.expovariate(rate_s * share / BURST_MEAN)
                size = 1
                while self._rng.random() > 1 / BURST_MEAN:
                    size += 1
                calls += [Call(tenant, at_s + self._rng.uniform(0, 0.05)) for _ in range(size)]
        # The same demand whatever the dice said: the level is what is compared with capacity.
        self._rng.shuffle(calls)
        wanted = round(rate_s * seconds)
        while len(calls) < wanted:
            other = self._rng.choice(calls)
            calls.append(Call(other.tenant, other.at_s))
        return sorted(calls[:wanted], key=lambda call: call.at_s)

    async def level(self, calls: Sequence[Call]) -> float:
        """All calls of a level, each at its time; by how much the latest was late."""
        began_s, lag_s = time.monotonic(), 0.0
        async with asyncio.TaskGroup() as group:
            for call in calls:
                await asyncio.sleep(max(began_s + call.at_s - time.monotonic(), 0))
                lag_s = max(lag_s, time.monotonic() - began_s - call.at_s)
                group.create_task(self._one(call, began_s))
        return lag_s

    async def _one(self, call: Call, began_s: float) -> None:
        headers = [
            ("content-type", "application/json"),
            ("authorization", f"Bearer {self._keys[call.tenant]}"),
            ("trunkline-deadline-ms", str(round(DEADLINE_S * 1000))),
        ]
        try:
            async with asyncio.timeout(DEADLINE_S + 5):
                reply = await self._transport.request(
                    "POST", self._url, headers=headers, body=self._body
                )
                async with reply:
                    await reply.read(1 << 20)
        except (Error, TimeoutError):
            call.status = -1
        else:
            call.status = reply.status
            call.retry_after = reply.header("retry-after") or ""
        call.ended_s = time.monotonic() - began_s


# Figures.


class Machine:
    """How busy all of its cores were between two looks."""

    def __init__(self) -> None:
        self._seen = self._read()

    @staticmethod
    def _read() -> tuple[int, int]:
        """Ticks in all and idle; zeros where the system does not say."""
        try:
            fields = [
                int(one) for one in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]
            ]
        except OSError:
            return 0, 0
        return sum(fields), fields[3] + fields[4]

    def busy(self) -> float:
        """The share since the last look."""
        (total, idle), (before, idle_before) = self._read(), self._seen
        self._seen = total, idle
        return 1 - (idle - idle_before) / (total - before) if total > before else 0.0


def entitled(demand: dict[str, float], capacity: float) -> dict[str, float]:
    """Max-min fair shares."""
    left, got = capacity, dict.fromkeys(demand, 0.0)
    open_ = set(demand)
    while open_ and left > 1e-9:
        each = left / len(open_)
        for name in sorted(open_):
            take = min(each, demand[name] - got[name])
            got[name] += take
            left -= take
        open_ = {name for name in open_ if demand[name] - got[name] > 1e-9}
    return got


def fairness(got: Sequence[float]) -> float:
    total = sum(got)
    return total * total / (len(got) * sum(one * one for one in got)) if total else 0.0


def report(
    load: float,
    calls: Sequence[Call],
    capacity_s: float,
    seconds: float,
    *,
    busy: float,
    lag_s: float,
) -> bool:
    """One line; whether the targets were met. The first window is not counted: at its beginning
    every provider has a whole window to give at once."""
    counted_s = seconds - WINDOW_S
    done = [c for c in calls if c.status == 200 and WINDOW_S < c.ended_s <= seconds]
    late = [c for c in calls if c.at_s > WINDOW_S]
    limited = sum(c.status == 429 for c in calls)
    failed = Counter(c.status for c in calls if c.status not in (200, 429))
    other = failed.total()
    unsaid = sum(c.status == 429 and not c.retry_after for c in calls)
    possible = min(capacity_s * counted_s, len(late))
    if load <= 1:
        # All of them, whenever they ended: who waited over the end was served as well.
        done = [c for c in late if c.status == 200]
    goodput = len(done) / possible
    demand = {name: sum(c.tenant == name for c in late) / counted_s for name in SHARES}
    shares = entitled(demand, capacity_s)
    got = {name: sum(c.tenant == name for c in done) / counted_s for name in SHARES}
    index = fairness([got[name] / shares[name] for name in SHARES])
    waits = sorted(c.ended_s - c.at_s for c in calls if c.status == 200)
    median = waits[len(waits) // 2] if waits else 0.0
    p99 = waits[int(len(waits) * 0.99)] if waits else 0.0
    print(
        f"{load:4.1f}  {len(calls):5d}  {limited / len(calls):7.2%}  {goodput:7.3f}  {index:8.3f}  "
        f"{median:6.2f} s  {p99:6.2f} s  {other:5d}  {unsaid:6d}  "
        f"{busy:4.0%}  {lag_s:4.2f} s"
        + "".join(f"  {count} x {status}" for status, count in failed.items())
        + ("  a limit of this machine" if lag_s > LAG_S_MAX else ""),
        flush=True,
    )
    good = goodput >= TARGET and index >= TARGET and not other and not unsaid
    return good and (load >= 1 or limited == 0)


async def run(options: argparse.Namespace, scratch: Path) -> bool:
    rng = random.Random(options.seed)  # noqa: S311 - a repeatable draw
    cost = prompt_tokens() + MAX_TOKENS
    providers = {
        "requests": Provider("requests", requests=24),
        "tokens": Provider("tokens", tokens=20 * cost),
        "places": Provider("places", places=2, takes_s=0.5),
    }
    capacity_s = sum(provider.rate_s(cost) for provider in providers.values())
    loop = asyncio.get_running_loop()
    urls = {}
    async with AsyncExitStack() as stack:
        for name, provider in providers.items():
            server = await loop.create_server(lambda p=provider: Exchange(p), "127.0.0.1", 0)
            stack.callback(server.close)
            urls[name] = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        running = network(scratch, urls, {"places": 2})
        url, keys = await stack.enter_async_context(running)
        clients = Clients(url, keys, rng)
        stack.push_async_callback(clients.aclose)
        await ready(url)
        print(
            f"seed {options.seed}. Windows of {WINDOW_S:g} s stand for minutes. Capacity "
            f"{capacity_s:.1f} calls a second: "
            f"{providers['requests'].rate_s(cost):.1f} by requests "
            f"(fixed window), {providers['tokens'].rate_s(cost):.1f} by tokens (sliding), "
            f"{providers['places'].rate_s(cost):.1f} by places (stated in routing.toml). "
            f"{options.seconds:g} s a load, deadline {DEADLINE_S:g} s, bursts of {BURST_MEAN:g}, "
            f"demand {SHARES}.\n"
        )
        print(
            "load  calls  saw 429  goodput  fairness  median    p99       other  unsaid  cpu   lag"
        )
        good = True
        machine = Machine()
        for load in options.loads:
            calls = clients.arrivals(capacity_s * load, options.seconds)
            machine.busy()
            lag_s = await clients.level(calls)
            busy = machine.busy()
            met = report(load, calls, capacity_s, options.seconds, busy=busy, lag_s=lag_s)
            good = met and good
            # The next level begins with windows as empty as this one did.
            await asyncio.sleep(WINDOW_S * 1.5)
    refused = ", ".join(f"{p.name} {p.refused}" for p in providers.values())
    print(f"\nrefused by providers, and served elsewhere or later: {refused}")
    return good


async def ready(url: str) -> None:
    """Wait until the gateway lists the model."""
    transport = HttpTransport()
    async with asyncio.timeout(60):
        while True:
            async with await transport.request("GET", url + "/v1/models") as reply:
                if MODEL.encode() in await reply.read(1 << 20):
                    break
            await asyncio.sleep(0.1)
    await transport.aclose()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=60.0,
        help="of each load; bursts at its ends weigh less in a longer one",
    )
    parser.add_argument("--loads", type=float, nargs="+", default=[0.5, 0.9, 1.0, 1.5, 3.0])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        return 0 if uvloop.run(run(options, Path(scratch))) else 1


if __name__ == "__main__":
    sys.exit(main())
