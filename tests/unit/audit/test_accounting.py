"""Does the account add up: tokens, ends, spelling."""

from dataclasses import replace

import msgspec
import pytest
from tests.support.auditing import (
    EOS,
    PIECES,
    Made,
    ToyNode,
    ToyScorer,
    but,
    exact,
    saying,
    tokenize,
)

from trunkline.audit.judge import judge
from trunkline.audit.replay import measure
from trunkline.verdicts import Result

CALIBRATION = exact()


async def found(made: Made) -> dict[str, Result]:
    judged = judge(await made.case(CALIBRATION), None)
    return {check.name: check.result for check in judged.checks}


async def test_an_answer_cut_short_says_neither_stop_nor_length() -> None:
    made = ToyNode().serve(3)
    tokens = (made.content.tokens[0][:7],)
    for finish in ("stop", "length"):
        cut = saying(but(made, tokens=tokens), "response", finish=(finish,))
        assert (await found(cut))["finish"] == "fail"


async def test_no_token_of_the_prompt_is_billed_as_read_from_a_cache() -> None:
    assert (await found(saying(ToyNode().serve(3), "usage", cached=1)))["usage"] == "fail"


async def test_tokens_after_the_end_are_billed_and_never_sent() -> None:
    made = ToyNode().serve(0, max_tokens=400)
    assert made.content.tokens[0][-1] == EOS
    more = but(made, tokens=((*made.content.tokens[0], 300),))
    assert (await found(more))["finish"] == "fail"


async def test_an_end_that_the_model_did_not_make_is_no_token_of_its() -> None:
    made = ToyNode(cut=6).serve(3)
    results = await found(made)
    assert made.receipt.response.finish == ("stop",)
    # The account adds up: only the model tells.
    assert results["finish"] == results["usage"] == "pass"
    assert results["replay"] == "fail"


async def test_a_text_in_far_more_tokens_than_it_takes_is_over_billed() -> None:
    made = ToyNode(cut=60).serve(3, max_tokens=200)
    text = b"".join(PIECES[token] for token in made.content.tokens[0])
    padded = but(made, tokens=((*text, EOS),))
    measured = await measure(padded.receipt, padded.content, ToyScorer())
    assert measured.canonical == (len(tokenize(text.decode(), parse_special=False)),)
    checks = judge(padded.case_of(CALIBRATION, measured), None).checks
    assert {"canonical", "usage"} <= {check.name for check in checks if check.result == "fail"}


async def test_a_few_tokens_more_than_the_text_takes_are_no_fault() -> None:
    made = ToyNode().serve(3)
    case = await made.case(CALIBRATION)
    measured = case.measured
    assert measured is not None
    for surplus, result in ((4, "pass"), (5, "fail")):
        count = sum(token != EOS for token in made.content.tokens[0])
        spelled = msgspec.structs.replace(
            measured,
            canonical=(count - surplus,),
            # Not proven: one token is another than the model's.
            scores=(
                (
                    msgspec.structs.replace(measured.scores[0][0], margin=1.0),
                    *measured.scores[0][1:],
                ),
            ),
        )
        checks = judge(replace(case, measured=spelled), None).checks
        assert [c.result for c in checks if c.name == "canonical"] == [result]


async def test_tokens_that_are_proven_may_spell_as_they_like() -> None:
    made = ToyNode().serve(3)
    case = await made.case(CALIBRATION)
    assert case.measured is not None
    measured = msgspec.structs.replace(case.measured, canonical=(1,))
    checks = judge(replace(case, measured=measured), None).checks
    assert [c.result for c in checks if c.name == "canonical"] == ["pass"]


@pytest.mark.parametrize("request_", [{"temperature": 1.5}, {"logit_bias": {"300": 5}}])
async def test_requests_that_lead_to_odd_spellings_are_left_alone(
    request_: dict[str, object],
) -> None:
    case = await ToyNode().serve(3, **request_).case(CALIBRATION)
    assert case.measured is not None
    bent = (
        (
            msgspec.structs.replace(case.measured.scores[0][0], margin=1.0),
            *case.measured.scores[0][1:],
        ),
    )
    measured = msgspec.structs.replace(case.measured, canonical=(1,), scores=bent)
    checks = judge(replace(case, measured=measured), None).checks
    assert [c.result for c in checks if c.name == "canonical"] == ["not_applicable"]
