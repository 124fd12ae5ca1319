"""Kill inference nodes under live traffic and compare every answer with the undisturbed one.

    python bench/kills.py takeover --runs 100     a kill per answer, after a random number of tokens
    python bench/kills.py load --chats 200        8 clients, a random node killed every 5 s

Both start a real network of their own (``trunkline up`` in a temporary folder), talk to it with the
unmodified ``openai`` client, and kill with SIGKILL. Every disturbed answer is compared, chunk by
chunk, with the answer that the same request and seed gave before anything was killed. The exit code
is 0 only when nothing failed and nothing differed.
"""

import argparse
import asyncio
import os
import random
import signal
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import openai
from openai.types.chat import ChatCompletionChunk

sys.path.insert(0, str(Path(__file__).parent))
from network import Network

PROMPTS = (
    "Explain how rivers work to a ten year old.",
    "Write a short story about a lighthouse keeper.",
    "List some things one should pack for a week in the mountains.",
    "What is the difference between weather and climate?",
    "Describe how bread is made, step by step.",
    "Tell me about the history of the bicycle.",
)
MODEL = "smollm2-135m-instruct"


@dataclass(frozen=True)
class Question:
    prompt: str
    seed: int
    temperature: float
    max_tokens: int

    @classmethod
    def draw(cls, rng: random.Random, max_tokens: int) -> "Question":
        return cls(
            prompt=rng.choice(PROMPTS),
            seed=rng.randrange(2**31),
            temperature=rng.choice((0.0, 0.7, 1.0)),
            max_tokens=max_tokens,
        )


@dataclass
class Answer:
    """What the app saw, without what differs between any two calls (id, created)."""

    chunks: list[str] = field(default_factory=list)
    error: str | None = None
    gap_s_max: float = 0.0
    first_s: float = 0.0

    @property
    def text(self) -> str:
        return "".join(self.chunks)


def _shape(chunk: ChatCompletionChunk) -> str:
    return chunk.model_dump_json(exclude={"id", "created"}, exclude_unset=True)


async def ask(
    client: openai.AsyncOpenAI,
    question: Question,
    *,
    after: int | None = None,
    kill: "Killer | None" = None,
) -> Answer:
    """Stream one answer; after ``after`` chunks kill the node that serves it."""
    answer = Answer()
    begun = last = time.monotonic()
    try:
        stream = await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": question.prompt}],
            seed=question.seed,
            temperature=question.temperature,
            max_tokens=question.max_tokens,
            stream=True,
            stream_options={"include_usage": True},
            extra_headers={"trunkline-detail": "1"},
        )
        async for chunk in stream:
            now = time.monotonic()
            if answer.chunks:
                answer.gap_s_max = max(answer.gap_s_max, now - last)
            else:
                answer.first_s = now - begun
            last = now
            answer.chunks.append(_shape(chunk))
            if kill is not None and after is not None and len(answer.chunks) == after:
                kill.node(stream.response.headers["trunkline-node"])
    except openai.OpenAIError as failure:
        answer.error = f"{type(failure).__name__}: {failure}"
    return answer


class Killer:
    """SIGKILLs node processes of one network and waits until they serve again."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.kills = 0
        self._pids: dict[str, int] = {}

    def learn(self) -> None:
        """Look up the process ids now, so that a kill later takes no time."""
        self._pids = self.network.node_pids()

    def node(self, name: str) -> None:
        """SIGKILL the node with this key name, as it was at the last :meth:`learn`."""
        try:
            os.kill(self._pids[name], signal.SIGKILL)
        except ProcessLookupError:
            return
        self.kills += 1

    def random_node(self, rng: random.Random) -> None:
        self.learn()
        if self._pids:
            self.node(rng.choice(sorted(self._pids)))


@asynccontextmanager
async def background_load(
    client: openai.AsyncOpenAI, references: dict[Question, Answer], clients: int, rng: random.Random
) -> AsyncIterator[list[tuple[Question, Answer]]]:
    """Keep ``clients`` other chats running; what they saw is checked as well."""
    seen: list[tuple[Question, Answer]] = []
    questions = sorted(references, key=lambda q: q.seed)

    async def one() -> None:
        while True:
            question = rng.choice(questions)
            seen.append((question, await ask(client, question)))

    tasks = [asyncio.create_task(one()) for _ in range(clients)]
    try:
        yield seen
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def verdict(question: Question, answer: Answer, reference: Answer) -> str:
    """``same``, ``failed`` (an explicit error) or ``damaged`` (anything else that differs)."""
    if answer.error is not None:
        return "failed"
    return "same" if answer.chunks == reference.chunks else "damaged"


def report(title: str, results: list[tuple[Question, Answer, Answer]], kills: int) -> bool:
    """Print the counts and return whether every answer was the undisturbed one."""
    counts = {"same": 0, "failed": 0, "damaged": 0}
    for question, answer, reference in results:
        kind = verdict(question, answer, reference)
        counts[kind] += 1
        if kind == "failed":
            print(f"  failed: seed {question.seed}: {answer.error}")
        elif kind == "damaged":
            at = next(
                (
                    i
                    for i, (a, b) in enumerate(zip(answer.chunks, reference.chunks, strict=False))
                    if a != b
                ),
                min(len(answer.chunks), len(reference.chunks)),
            )
            print(f"  damaged: seed {question.seed} differs from chunk {at}")
    print(
        f"{title}: {counts['same']} of {len(results)} identical to the undisturbed answer, "
        f"{counts['failed']} failed, {counts['damaged']} damaged, {kills} nodes killed"
    )
    return counts["same"] == len(results)


async def takeover(
    network: Network, runs: int, load: int, max_tokens: int, rng: random.Random
) -> bool:
    client = openai.AsyncOpenAI(
        base_url=network.base_url, api_key="none", max_retries=0, timeout=300
    )
    killer = Killer(network)
    questions = [Question.draw(rng, max_tokens) for _ in range(min(runs, 20))]
    references = {q: await ask(client, q) for q in questions}
    broken = [a.error for a in references.values() if a.error]
    if broken:
        print(f"the undisturbed run failed already: {broken[0]}")
        return False
    healthy_first_s = statistics.median(a.first_s for a in references.values())
    results: list[tuple[Question, Answer, Answer]] = []
    async with background_load(client, references, load, rng) as seen:
        for run in range(runs):
            question = questions[run % len(questions)]
            reference = references[question]
            await network.ready()
            await asyncio.to_thread(killer.learn)
            after = rng.randrange(1, max(2, len(reference.chunks) - 2))
            answer = await ask(client, question, after=after, kill=killer)
            results.append((question, answer, reference))
            print(
                f"\r  run {run + 1}/{runs}: killed after chunk {after:3d}, "
                f"longest gap {answer.gap_s_max:.2f} s",
                end="",
                flush=True,
            )
    print()
    gaps = sorted(a.gap_s_max for _, a, _ in results)
    whole = report("takeover", results, killer.kills)
    others = report("others meanwhile", [(q, a, references[q]) for q, a in seen], killer.kills)
    p50, worst = statistics.median(gaps), gaps[-1]
    print(
        f"longest gap in a disturbed answer: median {p50:.2f} s, worst {worst:.2f} s; first chunk "
        f"of an undisturbed answer: {healthy_first_s:.2f} s; "
        f"ratio of medians {p50 / healthy_first_s:.2f}"
    )
    return whole and others


async def under_load(
    network: Network, chats: int, clients: int, every_s: float, max_tokens: int, rng: random.Random
) -> bool:
    client = openai.AsyncOpenAI(
        base_url=network.base_url, api_key="none", max_retries=0, timeout=300
    )
    killer = Killer(network)
    questions = [Question.draw(rng, max_tokens) for _ in range(16)]
    references = {q: await ask(client, q) for q in questions}
    pending = [rng.choice(questions) for _ in range(chats)]
    results: list[tuple[Question, Answer, Answer]] = []

    async def one() -> None:
        while pending:
            question = pending.pop()
            results.append((question, await ask(client, question), references[question]))
            print(f"\r  {len(results)}/{chats} chats, {killer.kills} kills", end="", flush=True)

    async def killing() -> None:
        while True:
            await asyncio.sleep(every_s)
            await asyncio.to_thread(killer.random_node, rng)

    task = asyncio.create_task(killing())
    begun = time.monotonic()
    await asyncio.gather(*(one() for _ in range(clients)))
    task.cancel()
    print()
    whole = report("load", results, killer.kills)
    gaps = sorted(a.gap_s_max for _, a, _ in results)
    print(
        f"{chats} chats by {clients} clients in {time.monotonic() - begun:.0f} s; "
        f"longest gap in an answer: median {statistics.median(gaps):.2f} s, worst {gaps[-1]:.2f} s"
    )
    return whole


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("takeover")
    one.add_argument("--runs", type=int, default=100)
    one.add_argument("--load", type=int, default=2, help="other clients meanwhile")
    many = commands.add_parser("load")
    many.add_argument("--chats", type=int, default=200)
    many.add_argument("--clients", type=int, default=8)
    many.add_argument("--every", type=float, default=5.0, help="seconds between kills")
    for sub in (one, many):
        sub.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
        sub.add_argument("--max-tokens", type=int, default=48)
    options = parser.parse_args()
    rng = random.Random(options.seed)  # noqa: S311 - a repeatable draw, no secret
    print(f"seed {options.seed}")
    with Network() as network:
        if options.command == "takeover":
            good = asyncio.run(
                takeover(network, options.runs, options.load, options.max_tokens, rng)
            )
        else:
            good = asyncio.run(
                under_load(
                    network, options.chats, options.clients, options.every, options.max_tokens, rng
                )
            )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
