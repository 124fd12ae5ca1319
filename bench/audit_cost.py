"""What auditing costs a whole network: CPU of every role per answer, by the share that is drawn.

    python bench/audit_cost.py [--rates 0,1:400,5] [--answers N] [--tokens N]

For each rate a real network of its own (``trunkline up``, two nodes, two verifiers of different
operators) with ``rate_ppm`` set in each ``verifier.toml``, and real chats with the embedded model,
eight at a time. CPU is that of all processes, engines included, from the first answer after the
warm-up until all is final and no audit waits. Each verifier draws at the rate, and both run again
what either drew: at 5 % that is 19.5 runs for 100 answers. Few are drawn at small rates, so the
last column says what the expected number of them costs, at the CPU of a run over all rates; and a
rate may name its own number of answers (``1:400``): 80 may well go by without a draw at 1 %. The
engines of verifiers start before the measuring, as in a network that has been up for a while.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from network import CLOCK_TICKS, TRUNKLINE, Network, children, set_key

USERS = 8
PROMPTS = Path(__file__).with_name("prompts.txt").read_text(encoding="utf-8").splitlines()
SETTLE_S_MAX = 600.0
SETTLED_S = 8.0
"""Longer than a verifier lets pass between two draws."""
CALL_S_MAX = 300.0
WARM = 4
"""Answers at a time in the warm-up, which goes on until each verifier has run one again."""
WARM_ANSWERS_MAX = 400
SCORED = re.compile(r'^trunkline_verifier_tokens_scored\{[^}]*part="answer".*\} (\S+)$', re.M)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One rate's network."""

    percent: float
    answers: int
    tokens: int
    """Of those answers."""
    rescored: int
    """Tokens of them that verifiers ran again, each time counted."""
    cpu_s: dict[str, float]
    """By kind of role."""

    @property
    def others_s(self) -> float:
        """CPU of all but verifiers."""
        return sum(self.cpu_s.values()) - self.cpu_s["verifier"]

    @property
    def runs_expected(self) -> float:
        """Share of tokens that are run again, each time counted."""
        drawn = 1 - (1 - self.percent / 100) ** 2
        return 2 * drawn


def main() -> None:
    arguments = _arguments()
    found = []
    for wanted in arguments.rates.split(","):
        rate, _, own = wanted.partition(":")
        percent, answers = float(rate), int(own or arguments.answers)
        with tempfile.TemporaryDirectory(prefix="trunkline-audit-cost-") as place:
            found.append(measure(Path(place), percent, answers, arguments.tokens))
        used = ", ".join(f"{kind} {s:.1f}" for kind, s in found[-1].cpu_s.items())
        print(f"{percent:g} %: {found[-1].answers} answers, CPU seconds: {used}", flush=True)
    print("\n".join(table(found)))


def table(found: Sequence[Measured]) -> list[str]:
    """The report, as lines of Markdown."""
    kinds = list(found[0].cpu_s)
    idle = [one.cpu_s["verifier"] / one.answers for one in found if not one.percent]
    audited = [one for one in found if one.rescored]
    # What verifiers do whether or not anything is drawn is no part of a run.
    beside = idle[0] if idle else 0.0
    run_s = sum(one.cpu_s["verifier"] - beside * one.answers for one in audited)
    each_s = run_s / max(1, sum(one.rescored for one in audited))
    lines = [
        "CPU per answer, ms; what is audited costs the network so much more.",
        "",
        "| drawn | answers | tokens | run again | " + " | ".join(kinds)
        + " | all | verifiers over the rest | expected |",
        "| --- |" + " --- |" * (6 + len(kinds)),
    ]  # fmt: skip
    for one in found:
        each = [f"{one.cpu_s[kind] / one.answers * 1000:.0f}" for kind in kinds]
        expected = beside * one.answers + each_s * one.runs_expected * one.tokens
        whole = sum(one.cpu_s.values()) / one.answers * 1000
        lines.append(
            f"| {one.percent:g} % | {one.answers} | {one.tokens} | {one.rescored} | "
            + " | ".join([*each, f"{whole:.0f}", f"{one.cpu_s['verifier'] / one.others_s:.1%}"])
            + f" | {expected / one.others_s:.1%} |"
        )
    generating = sum(one.cpu_s["node"] for one in found) / sum(one.tokens for one in found)
    return [
        *lines,
        "",
        f"A token: {generating * 1000:.1f} ms at the nodes, engines included;"
        f" {each_s * 1000:.1f} ms to run it again, all that a verifier does for it included"
        f" ({each_s / generating:.2f}).",
    ]


def measure(place: Path, percent: float, answers: int, tokens: int) -> Measured:
    """One network's CPU for ``answers`` answers of at most ``tokens`` tokens."""
    network = Network(data=place)
    folder = place / "network"
    subprocess.run(
        [TRUNKLINE, "init", "--data", folder, "--port-base", str(network.port_base)],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    for path in folder.glob("*/verifier.toml"):
        set_key(path, "rate_ppm", f"{percent * 10_000:.0f}")
        set_key(path, "probe_per_minute", "0.0")
    with network:
        _ask(network, range(WARM), tokens)
        warmed = WARM
        while percent and not all(_scored(network)) and warmed < WARM_ANSWERS_MAX:
            _ask(network, range(warmed, warmed + WARM), tokens)
            warmed += WARM
            _settle(network, warmed)
        _settle(network, warmed)
        before, scored = _cpu_s(network), sum(_scored(network))
        answered = _ask(network, range(warmed, warmed + answers), tokens)
        _settle(network, warmed + answers)
        after = _cpu_s(network)
        return Measured(
            percent=percent,
            answers=answers,
            tokens=answered,
            rescored=round(sum(_scored(network)) - scored),
            cpu_s={kind: after[kind] - before[kind] for kind in before},
        )


def _ask(network: Network, numbers: range, tokens: int) -> int:
    """Answers to so many prompts, all users at once; how many tokens they have."""
    names = [one["id"] for one in _json(f"{network.base_url}/models")["data"]]
    model = next(name for name in names if name.startswith("smollm2"))

    def one(number: int) -> int:
        body = {
            "model": model,
            "messages": [{"role": "user", "content": PROMPTS[number % len(PROMPTS)]}],
            "max_tokens": tokens,
            "temperature": 1.0,
        }
        answer = _json(f"{network.base_url}/chat/completions", json.dumps(body).encode())
        return int(answer["usage"]["completion_tokens"])

    with ThreadPoolExecutor(USERS) as pool:
        return sum(pool.map(one, numbers))


def _settle(network: Network, answers: int) -> None:
    """Until all answers are final and verifiers have read all of the log and run what they drew."""
    due = time.monotonic() + SETTLE_S_MAX
    status = f"{network.base_url.removesuffix('/v1')}/trunkline/v1/status"
    while time.monotonic() < due:
        final = int(_json(status)["evidence"]["final"])
        infos = [_json(f"{url}/v1/info") for url in _verifiers(network)]
        followed = {info["followed"] for info in infos}
        if final >= answers and len(followed) == 1 and not any(info["waiting"] for info in infos):
            # What was read last may be drawn from with the next checkpoint alone.
            time.sleep(SETTLED_S)
            infos = [_json(f"{url}/v1/info") for url in _verifiers(network)]
            if followed == {info["followed"] for info in infos} and not any(
                info["waiting"] for info in infos
            ):
                return
        time.sleep(1)
    raise RuntimeError(f"not settled within {SETTLE_S_MAX:.0f} s")


def _verifiers(network: Network) -> list[str]:
    return [one["url"] for one in network.status()["roles"] if one["role"] == "verifier"]


def _scored(network: Network) -> list[float]:
    """Tokens that each verifier has run again."""
    found = []
    for url in _verifiers(network):
        with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
            said = SCORED.search(answer.read().decode())
        found.append(float(said.group(1)) if said else 0.0)
    return found


def _cpu_s(network: Network) -> dict[str, float]:
    """CPU so far by kind of role, engines and processes that have ended included."""
    found: dict[str, float] = {}
    for role in network.status()["roles"]:
        pids = [role["pid"], *children(role["pid"])]
        found[role["role"]] = found.get(role["role"], 0.0) + sum(map(_used_s, pids))
    return found


def _used_s(pid: int) -> float:
    """Of a process and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / CLOCK_TICKS


def _json(url: str, body: bytes | None = None) -> Any:
    headers = {"content-type": "application/json"}
    asked = urllib.request.Request(url, data=body, headers=headers)
    with urllib.request.urlopen(asked, timeout=CALL_S_MAX) as answer:
        return json.load(answer)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rates",
        default="0,1:400,5",
        help="per cent of the answers, each verifier's; with :N, of N answers",
    )
    parser.add_argument("--answers", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=60)
    return parser.parse_args()


if __name__ == "__main__":
    main()
