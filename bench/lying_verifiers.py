"""Verifiers that lie, as real processes among two honest ones: what becomes of them, and of others.

    python bench/lying_verifiers.py [--manners slander,slander-one,collude,copy,echo] [--seconds S]

For each manner a real network of its own (``trunkline up``, two nodes, three verifiers of different
operators, every receipt drawn by each) in which one verifier lies from the start
(``liars.py``) and the others ask and plant questions often, while users chat. It ends when
the liar's verdicts do not count any more, or the cheat that it covers is quarantined, and some
answers more; else after ``--seconds``. Exit code 1 if a user's call failed.

Seconds are from when users began, on this machine, now: they say what the product does, not how
fast.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
import liars
from network import TRUNKLINE, Network, set_key

USERS = 2
PAUSE_S = 6.0
"""Of each user between two questions: three verifiers run every answer again, and what they are
behind is not what is measured here."""
TOKENS = 24
AFTERWARDS = 6
"""Answers after it is decided."""
CALL_S_MAX = 300.0
LOOK_S = 1.0
PLANTING = {"probe_per_minute": "4.0", "plant_share": "1.0"}
PROMPTS = Path(__file__).with_name("prompts.txt").read_text(encoding="utf-8").splitlines()
NODE = liars.FRIEND_KEY
LIAR = "mu.localhost/verifier"
DECIDED = {"slander": "verifier_silenced", "collude": "node_quarantined"}
HEADER = (
    "| liar | its verdicts | late | plants missed | silenced after | "
    "node: worst, seconds of it | quarantined after | "
    "its share of answers: before, during, after | failed calls |"
)


@dataclass(slots=True)
class Traffic:
    """What users saw: the node of each answer, and why calls failed."""

    nodes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def share(self, since: int | None, until: int | None) -> str:
        """Of answers from number ``since`` to before ``until``, those that the node gave."""
        asked = self.nodes[since:until]
        return f"{asked.count(NODE)} of {len(asked)}" if asked else "–"


@dataclass(slots=True)
class Seen:
    """What the gateway made of it, as it was looked at."""

    began_s: float
    """When users began to chat."""
    alerts: dict[str, float] = field(default_factory=dict)
    """When the first alert of each kind about the liar or the node was seen."""
    held_s: dict[str, float] = field(default_factory=dict)
    """How long the node had which standing."""
    first: int | None = None
    last: int | None = None
    """How many answers there were when it was first seen to have one, and when it last had."""

    def look(self, said: Any, now_s: float, step_s: float, answers: int) -> None:
        for alert in said["alerts"]:
            if alert["node"] in (LIAR, NODE):
                self.alerts.setdefault(alert["code"], now_s)
        for one in said["standings"]:
            if one["node"] == NODE:
                self.held_s[one["standing"]] = self.held_s.get(one["standing"], 0.0) + step_s
                self.first = answers if self.first is None else self.first
                self.last = answers

    def after(self, code: str) -> str:
        at = self.alerts.get(code)
        return "–" if at is None else f"{at - self.began_s:.0f} s"

    @property
    def worst(self) -> str:
        found = next((one for one in ("quarantined", "demoted") if one in self.held_s), None)
        return "asked as ever" if found is None else f"{found}, {self.held_s[found]:.0f} s"


def main() -> int:
    arguments = _arguments()
    print(HEADER, "|" + " --- |" * HEADER.count(" | ") + " --- |", sep="\n", flush=True)
    failed = 0
    for manner in arguments.manners.split(","):
        with tempfile.TemporaryDirectory(prefix="trunkline-liar-") as place:
            failed += play(Path(place), manner, arguments.seconds)
    return 1 if failed else 0


def play(place: Path, manner: str, seconds: float) -> int:
    """One network; prints its line. How many calls failed."""
    program = (sys.executable, liars.__file__, manner)
    network = Network(data=place, program=program)
    _prepare(network)
    traffic = Traffic()
    with network, chatting(network, traffic):
        seen = Seen(began_s=time.monotonic())
        _watch(network, manner, seconds, seen, traffic)
        conduct = {one["verifier"]: one for one in _conduct(network)}
    liar = conduct[LIAR]
    after = "–" if seen.last is None else traffic.share(seen.last, None)
    others = sum(len(one["findings"]) for name, one in conduct.items() if name != LIAR)
    print(
        f"| {manner} | {liar['verdicts']} | {liar['late']} | {liar['missed']} of {liar['tried']} "
        f"| {seen.after('verifier_silenced')} | {seen.worst} | {seen.after('node_quarantined')} "
        f"| {traffic.share(None, seen.first)}, {traffic.share(seen.first, seen.last)}, {after} "
        f"| {len(traffic.failures)} of {len(traffic.nodes) + len(traffic.failures)} |",
        flush=True,
    )
    for finding in sorted({one["detail"] for one in liar["findings"]}):
        print(f"    {LIAR}: {finding}")
    if others:
        print(f"    and {others} findings about the honest ones")
    for failure in sorted(set(traffic.failures)):
        print(f"    failed: {failure}")
    return len(traffic.failures)


def _prepare(network: Network) -> None:
    folder = network.data / "network"
    subprocess.run(
        [TRUNKLINE, "init", "--data", folder, "--port-base", str(network.port_base),
         "--verifiers", "3"],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    for path in folder.glob("*/verifier.toml"):
        idle = {"probe_per_minute": "0.0"}
        changes = idle if path.parent.name == liars.LIAR else PLANTING
        for key, value in ({"rate_ppm": "1000000"} | changes).items():
            set_key(path, key, value)
    for path in folder.glob("*/node.toml"):
        set_key(path, "rate_max", "1.0")
        set_key(path, "plants_per_day", "999")


def _watch(network: Network, manner: str, seconds: float, seen: Seen, traffic: Traffic) -> None:
    """Look until it is decided, and a little longer."""
    url = f"{network.base_url.removesuffix('/v1')}/trunkline/v1/alerts?limit=1000"
    due_s, before_s, decided = time.monotonic() + seconds, time.monotonic(), None
    while time.monotonic() < due_s:
        time.sleep(LOOK_S)
        now_s = time.monotonic()
        seen.look(_json(url), now_s, now_s - before_s, len(traffic.nodes))
        before_s = now_s
        if decided is None and DECIDED.get(manner) in seen.alerts:
            decided = len(traffic.nodes)
        # What was asked before it was decided is answered too.
        if decided is not None and len(traffic.nodes) >= decided + AFTERWARDS + USERS:
            return


@contextmanager
def chatting(network: Network, traffic: Traffic) -> Iterator[None]:
    """Users, each with a question after the other."""
    over = threading.Event()
    # At once, so that both nodes are asked where nothing stands against one of them.
    together = threading.Barrier(USERS)
    names = [one["id"] for one in _json(f"{network.base_url}/models")["data"]]
    model = next(name for name in names if name.startswith("smollm2"))

    def user(number: int) -> None:
        while not over.is_set():
            body = {
                "model": model,
                "messages": [{"role": "user", "content": PROMPTS[number % len(PROMPTS)]}],
                "max_tokens": TOKENS,
                "temperature": 1.0,
            }
            number += USERS
            over.wait(PAUSE_S)
            try:
                together.wait()
            except threading.BrokenBarrierError:
                return
            try:
                traffic.nodes.append(_node_of(f"{network.base_url}/chat/completions", body))
            except (OSError, ValueError) as error:
                traffic.failures.append(f"{type(error).__name__}: {error}")

    users = [threading.Thread(target=user, args=(number,)) for number in range(USERS)]
    for one in users:
        one.start()
    try:
        yield
    finally:
        over.set()
        together.abort()
        for one in users:
            one.join()


def _node_of(url: str, body: dict[str, Any]) -> str:
    """Ask; the node that answered."""
    headers = {"content-type": "application/json", "trunkline-detail": "1"}
    asked = urllib.request.Request(url, data=json.dumps(body).encode(), headers=headers)
    with urllib.request.urlopen(asked, timeout=CALL_S_MAX) as answer:
        if json.load(answer)["choices"][0]["finish_reason"] is None:
            raise ValueError("an answer without its end")
        node: str | None = answer.headers["trunkline-node"]
        if node is None:
            raise ValueError("an answer that does not name its node")
        return node


def _conduct(network: Network) -> list[dict[str, Any]]:
    """What the log shows of each verifier."""
    done = subprocess.run(
        [TRUNKLINE, "audit", "verifiers", "--json", "--data", network.data / "network"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def _json(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=CALL_S_MAX) as answer:
        return json.load(answer)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--manners", default=",".join(get_args(liars.Manner)))
    parser.add_argument("--seconds", type=float, default=300.0, help="longest that a network runs")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
