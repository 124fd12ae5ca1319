"""The number of the rules that answers are made by is raised when the rules change."""

from hashlib import sha256

import pytest
from tests.support.auditing import ToyNode

from trunkline.inference.rules import RULES

REQUESTS: list[dict[str, object]] = [
    {},
    {"stream": False},
    {"stream_options": {"include_usage": True}},
    {"stop": ["da"], "n": 2},
    {"max_tokens": 3, "temperature": 0.3, "top_p": 0.8, "seed": 7},
    {"messages": [
        {"role": "system", "content": "bada"},
        {"role": "user", "content": [{"type": "text", "text": "ba"}]},
        {"role": "assistant", "content": "da"},
        {"role": "user", "content": "bada"},
    ]},
]  # fmt: skip
PINNED = {1: "8f9a38e9c9dcdf47b5f087a2a4e96581ee30c78e2dbd9eba29a8a1cdcbfd3548"}
"""Of every version. If only the toy of these tests changed, pin the newest again; if an answer did,
raise ``RULES`` and add a line."""


def made(request: dict[str, object]) -> str:
    """What an honest answer is, as far as rules decide it."""
    answer = ToyNode().serve(5, **request)
    receipt, content = answer.receipt, answer.content
    sampling = receipt.sampling
    return repr((
        content.prompt,
        (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p),
        content.tokens,
        receipt.response.finish,
        receipt.response.chunks,
        receipt.response.digest,
    ))  # fmt: skip


def test_what_answers_are_made_by_has_its_number() -> None:
    found = sha256("".join(map(made, REQUESTS)).encode()).hexdigest()
    assert list(PINNED) == list(range(1, RULES + 1))
    assert found == PINNED[RULES], "raise RULES, unless no answer of a node changes"


@pytest.mark.parametrize("request_", REQUESTS)
def test_honest_answers_are_the_same_each_time(request_: dict[str, object]) -> None:
    assert made(request_) == made(request_)
