"""What a real node sends and signs is what an audit makes of its tokens again."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from tests.support.auditing import EOS, PIECES, Toy, ToyScorer, exact, tokenize
from tests.unit.node.harness import KEY, Heard, attempt, chat, node

from trunkline.audit.judge import Case, judge
from trunkline.audit.replay import measure
from trunkline.inference.ports import Generate, ModelInfo, Token
from trunkline.receipts import salts, verify_signed
from trunkline.schema.attempt import Attempt, PreviousAttempt
from trunkline.schema.audit import OpenedContent

CALIBRATION = exact()
BLINDING = "5c" * 32
REQUESTS: dict[str, dict[str, object]] = {
    "stream": {},
    "whole": {"stream": False},
    "choices": {"n": 3, "stream_options": {"include_usage": True}},
    "stops": {"stop": ["ba", "e"]},
    "narrow": {"temperature": 0.7, "top_p": 0.9, "min_p": 0.001},
    "greedy": {"temperature": 0},
    "seed": {"seed": -3},
}


class ToyEngine:
    """``ports.Engine`` over the toy."""

    def __init__(self, toy: Toy) -> None:
        self._toy = toy

    async def model(self) -> ModelInfo:
        return self._toy.info

    async def tokenize(self, text: str, *, parse_special: bool) -> tuple[int, ...]:
        return tokenize(text, parse_special=parse_special)

    def pieces(self) -> Sequence[bytes]:
        return PIECES

    async def generate(self, job: Generate) -> AsyncGenerator[Token, None]:
        said = self._toy.say(job.prompt, job.sampling, job.max_tokens)
        for position, token in list(enumerate(said))[len(job.prefix) :]:
            last = position + 1 == len(said)
            finish = ("stop" if token == EOS else "length") if last else ""
            yield Token(token=token, position=position, finish=finish)

    async def close(self) -> None:
        """Nothing is held."""


def asked(**request: object) -> Attempt:
    made = attempt(chat("say bada", max_tokens=30, **request), model="toy")
    return msgspec.structs.replace(made, audit=True, blinding=BLINDING)


def opened(what: Attempt, heard: Heard, given: Sequence[Sequence[int]] = ()) -> Case:
    assert heard.signed is not None, heard.error
    verified = verify_signed(heard.signed, KEY)
    choices = len(verified.receipt.response.finish)
    tokens = [list(given[at]) if given else [] for at in range(choices)]
    for choice, token in (*heard.tokens, *(pair for some in heard.progress for pair in some)):
        tokens[choice].append(token)
    # The template's text, which is the toy's own.
    text = "<|im_start|>user\nsay bada<|im_end|>\n<|im_start|>assistant\n"
    return Case(
        receipt=verified.receipt,
        leaf=verified.leaf,
        key=KEY,
        calibration=CALIBRATION,
        content=OpenedContent(
            request=what.request,
            salts=salts(verified.receipt, bytes.fromhex(BLINDING)),
            prompt=tokenize(text, parse_special=True),
            tokens=tuple(tuple(choice) for choice in tokens),
        ),
    )


async def results(case: Case) -> dict[str, str]:
    assert case.content is not None
    measured = await measure(case.receipt, case.content, ToyScorer())
    checks = judge(replace(case, measured=measured), None).checks
    return {check.name: check.result for check in checks}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
async def test_a_nodes_answer_is_made_again_to_the_byte(
    tmp_path: Path, request_: dict[str, object]
) -> None:
    what = asked(**request_)
    async with node(tmp_path, ToyEngine(Toy())) as running:
        case = opened(what, await running.hear(what))
    found = await results(case)
    # The commitment to the nonce is the opening's, which this test makes without one.
    assert {name for name, result in found.items() if result != "pass"} <= {"nonce", "resumed"}
    assert found["response"] == found["replay"] == found["seed"] == "pass"


async def test_an_answer_taken_over_is_made_again_from_where_it_went_on(tmp_path: Path) -> None:
    what = asked(n=2)
    async with node(tmp_path, ToyEngine(Toy())) as running:
        first = await running.hear(what)
        assert first.accepted is not None
        # As if it had broken off after nine tokens, or before the last one of fewer.
        had = first.tokens[:-1][:9]
        given = [[token for at, token in had if at == choice] for choice in range(2)]
        places = [place for place, chunk in enumerate(first.chunks) if chunk.tokens]
        later = attempt(
            chat("say bada", max_tokens=30, n=2),
            model="toy",
            number=2,
            resume=given,
            previous=(PreviousAttempt(attempt="att_1", node="node", error="timeout"),),
            seed=first.accepted.seed,
            numerics=Toy().info.numerics,
        )
        later = msgspec.structs.replace(later, audit=True, blinding=BLINDING)
        # Ids go on after the last event of a token: where a choice ended, that is not its last.
        heard = await running.hear(later, first_id=places[len(had) - 1] + 1)
    assert heard.error is None
    found = await results(opened(later, heard, given))
    assert found["resumed"] == found["response"] == found["finish"] == found["replay"] == "pass"
