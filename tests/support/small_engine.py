"""The embedded engine with its real model, small enough for tests, and what they ask it."""

from pathlib import Path

from trunkline.engine.client import EmbeddedEngine, EngineConfig
from trunkline.inference.ports import Generate, Sampling, Token

CONTEXT = 512
SEQUENCES = 4
SCORED = Sampling(seed=b"\x11" * 32, temperature=0.9, top_p=0.95, top_logprobs=3)
RULES = [
    SCORED,
    Sampling(temperature=0.0, top_logprobs=1),
    Sampling(seed=b"\x22" * 32, frequency_penalty=0.7, presence_penalty=0.3, top_logprobs=0),
    Sampling(seed=b"\x33" * 32, top_k=40, min_p=0.02, temperature=1.2, top_logprobs=0),
]
JSON_GRAMMAR = r"""
root ::= "{" ws "\"city\":" ws string "," ws "\"people\":" ws number "}"
string ::= "\"" [A-Za-z ]{1,12} "\""
number ::= [1-9] [0-9]{0,6}
ws ::= " "?
"""


def small(cache: Path) -> EmbeddedEngine:
    return EmbeddedEngine(
        EngineConfig(
            cache_folder=str(cache), sequences=SEQUENCES, context_tokens=CONTEXT, jobs_max=12
        )
    )


async def prompt(engine: EmbeddedEngine, question: str) -> tuple[int, ...]:
    return await engine.tokenize(
        f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n", parse_special=True
    )


async def answer(engine: EmbeddedEngine, job: Generate) -> list[Token]:
    return [token async for token in engine.generate(job)]


def text(engine: EmbeddedEngine, tokens: list[Token]) -> str:
    return b"".join(engine.pieces()[event.token] for event in tokens).decode()


def facts(tokens: list[Token]) -> list[tuple[object, ...]]:
    """All of an answer but whether a token was replayed: floats compared bit for bit."""
    return [
        (
            e.token,
            e.position,
            e.logprob.hex(),
            [(t.token, t.logprob.hex()) for t in e.top],
            e.finish,
        )
        for e in tokens
    ]
