"""Openings that are what was signed, and openings that are not."""

from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest
from tests.support.auditing import (
    COMMITTED_MS,
    Made,
    Toy,
    ToyNode,
    ToyScorer,
    but,
    commitment,
    exact,
    nonce_proof,
    saying,
)

from trunkline.audit.judge import judge
from trunkline.audit.replay import measure
from trunkline.base.errors import RequestError
from trunkline.inference.plan import check_supported
from trunkline.schema import openai_chat
from trunkline.schema.audit import OpenedLogprob
from trunkline.verdicts import Result

CALIBRATION = exact()
REQUESTS: dict[str, dict[str, object]] = {
    "plain": {},
    "whole": {"stream": False},
    "two choices": {"n": 2},
    "usage": {"stream_options": {"include_usage": True}},
    "narrow": {"temperature": 0.6, "top_p": 0.8, "top_k": 50, "min_p": 0.01},
    "greedy": {"temperature": 0},
    "penalties": {"frequency_penalty": 0.5, "presence_penalty": 0.5},
    "stop": {"stop": ["a", "e"]},
    "own seed": {"seed": 7},
    "one token": {"max_tokens": 1},
}


async def results(made: Made, scorer: ToyScorer | None = None) -> dict[str, Result]:
    judged = judge(await made.case(CALIBRATION, scorer), None)
    return {check.name: check.result for check in judged.checks}


def failures(found: dict[str, Result]) -> set[str]:
    return {name for name, result in found.items() if result == "fail"}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
async def test_an_honest_answer_passes(request_: dict[str, object]) -> None:
    judged = judge(await ToyNode().serve(3, **request_).case(CALIBRATION), None)
    assert judged.result == "pass", judged.checks
    assert judged.standing == "open"


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_taken_over_is_checked_as_a_whole(stream: bool) -> None:
    made = ToyNode().serve(3, n=2, given=(4, 3), stream=stream)
    found = await results(made)
    assert failures(found) == set()
    assert found["resumed"] == found["response"] == found["replay"] == found["seed"] == "pass"
    # Which nonces the first node was bound to is not this node's to open.
    assert found["nonce"] == "inconclusive"


async def test_tokens_taken_over_out_of_step_are_noticed() -> None:
    made = saying(ToyNode().serve(3, n=2, given=(4, 3)), "response", resumed=(2, 5))
    assert {"resumed", "response"} <= failures(await results(made))


Spoil = Callable[[Made], Made]
FLIPS: dict[str, tuple[Spoil, str]] = {
    "another request": (
        lambda made: but(made, request=msgspec.Raw(bytes(made.content.request) + b" ")),
        "request",
    ),
    "another prompt": (lambda made: but(made, prompt=(*made.content.prompt, 65)), "prompt"),
    "another token": (
        lambda made: but(made, tokens=((300, *made.content.tokens[0][1:]),)),
        "tokens",
    ),
    "one token fewer": (lambda made: but(made, tokens=(made.content.tokens[0][:-1],)), "finish"),
    "one token more": (lambda made: but(made, tokens=((*made.content.tokens[0], 65),)), "finish"),
    "a token of no vocabulary": (lambda made: but(made, tokens=((2**31,),)), "finish"),
    "a token of no size": (lambda made: but(made, tokens=((2**40,),)), "tokens"),
    "a choice more": (lambda made: but(made, tokens=(*made.content.tokens, (65,))), "finish"),
    "other salts": (
        lambda made: but(made, salts=dict.fromkeys(made.content.salts, "00" * 32)),
        "tokens",
    ),
    "salts that are none": (
        lambda made: but(made, salts=dict.fromkeys(made.content.salts, "x")),
        "request",
    ),
    "another stream": (
        lambda made: saying(made, "response", digest="salted:" + "0" * 64),
        "response",
    ),
    "another number of events": (lambda made: saying(made, "response", chunks=1), "response"),
    "another answer's id": (lambda made: saying(made, "", answer="ans_x"), "response"),
    "another time": (lambda made: saying(made, "", created_s=1), "response"),
    "another finish": (lambda made: saying(made, "response", finish=("tool_calls",)), "finish"),
    "another temperature": (lambda made: saying(made, "sampling", temperature="0.5"), "sampler"),
    "another top_p": (lambda made: saying(made, "sampling", top_p="0.5"), "sampler"),
    "another top_k": (lambda made: saying(made, "sampling", top_k=5), "sampler"),
    "another min_p": (lambda made: saying(made, "sampling", min_p="0.5"), "sampler"),
    "another seed": (lambda made: saying(made, "sampling", seed="12" * 32), "seed"),
    "no seed": (lambda made: saying(made, "sampling", seed=""), "seed"),
    "a seed without a source": (lambda made: saying(made, "sampling", source="none"), "seed"),
    "a seed said to be the caller's": (
        lambda made: saying(made, "sampling", source="caller"),
        "seed",
    ),
    "a seed said to be inherited": (
        lambda made: saying(made, "sampling", source="inherited"),
        "seed",
    ),
    "another nonce": (lambda made: saying(made, "sampling", node_nonce="12" * 32), "nonce"),
    "no nonce": (lambda made: saying(made, "sampling", node_nonce=""), "seed"),
    "another commitment": (lambda made: saying(made, "sampling", nonces="12" * 32), "nonce"),
    "another place of the nonce": (
        lambda made: saying(made, "sampling", nonce_index=9),
        "nonce",
    ),
    "another nonce's path": (lambda made: but(made, nonce=nonce_proof(9)), "nonce"),
    "tokens taken over that nobody had": (
        lambda made: saying(made, "response", resumed=(99,)),
        "resumed",
    ),
    "a digest of nothing taken over": (
        lambda made: saying(made, "response", resumed_digest="sha256:" + "0" * 64),
        "resumed",
    ),
    "more tokens billed": (lambda made: saying(made, "usage", completion=100), "usage"),
    "a longer prompt billed": (lambda made: saying(made, "usage", prompt=100), "usage"),
    "an upstream's word for usage": (lambda made: saying(made, "usage", counted=False), "usage"),
}


@pytest.mark.parametrize(("spoil", "check"), FLIPS.values(), ids=FLIPS)
async def test_every_flip_is_noticed(spoil: Spoil, check: str) -> None:
    made = spoil(ToyNode().serve(3))
    judged = judge(await made.case(CALIBRATION), None)
    assert check in failures({one.name: one.result for one in judged.checks})
    assert (judged.result, judged.standing) == ("fail", "failed")


async def test_a_hidden_system_prompt_is_not_what_the_template_renders() -> None:
    found = await results(ToyNode(hidden="praise abe").serve(3))
    assert failures(found) == {"template"}


async def test_an_own_seed_of_the_request_has_to_be_used() -> None:
    made = ToyNode().serve(3, seed=7)
    other = saying(made, "sampling", seed="12" * 32)
    assert "seed" in failures(await results(other))
    drawn = saying(made, "sampling", source="nonces")
    assert "seed" in failures(await results(drawn))


async def test_without_salts_nothing_is_known_and_nothing_passes() -> None:
    made = but(ToyNode().serve(3), salts={})
    judged = judge(replace(await made.case(CALIBRATION), entry=None), None)
    assert judged.result == "inconclusive"
    assert judged.trials is None
    assert judged.standing == "open"


@pytest.mark.parametrize(
    "kept", ["request.digest", "request.prompt", "response.tokens", "response.digest"]
)
async def test_a_node_that_keeps_a_salt_to_itself_withholds(kept: str) -> None:
    """It has them all, and would leave out what tells."""
    honest = ToyNode().serve(3)
    salts = {item: salt for item, salt in honest.content.salts.items() if item != kept}
    judged = judge(await but(honest, salts=salts).case(CALIBRATION), None)
    assert (judged.kind, judged.result, judged.standing) == ("opening", "fail", "failed")
    client = {k: v for k, v in honest.content.salts.items() if k != "request.client"}
    assert judge(await but(honest, salts=client).case(CALIBRATION), None).result == "pass"


async def test_who_asks_before_the_log_has_it_is_not_held_to_a_commitment() -> None:
    case = await but(ToyNode().serve(3), nonce=None).case(CALIBRATION)
    asked = judge(replace(case, entry=None, nonces_entry=None), None)
    assert asked.result == "pass", asked.checks
    drawn = judge(case, None)
    assert drawn.result == "fail", "a node that is asked has to open it"


async def test_a_nonce_used_before_is_noticed() -> None:
    case = await ToyNode().serve(3).case(CALIBRATION)
    judged = judge(replace(case, nonce_used_by="ans_before"), None)
    assert [check.name for check in judged.checks if check.result == "fail"] == ["nonce"]
    again = judge(replace(case, nonce_used_by=case.receipt.answer), None)
    assert again.result == "pass"


@pytest.mark.parametrize(
    ("changes", "result"),
    [
        ({"nonces_entry": 10}, "fail"),
        ({"nonces_entry": None}, "inconclusive"),
        ({"entry": None}, "inconclusive"),
    ],
)
async def test_the_commitment_is_in_the_log_before_the_receipt(
    changes: dict[str, int | None], result: Result
) -> None:
    case = await ToyNode().serve(3).case(CALIBRATION)
    judged = judge(replace(case, **changes), None)
    found = {check.name: check.result for check in judged.checks}
    assert found["nonce"] == judged.result == result


async def test_the_log_and_no_clock_says_what_came_first() -> None:
    # A clock that was set back between the two is no fault of a node's.
    later = msgspec.structs.replace(commitment(), unix_ms=COMMITTED_MS + 60_000)
    assert (await results(but(ToyNode().serve(3), nonce=nonce_proof(3, later))))["nonce"] == "pass"


async def test_a_node_that_is_bound_to_no_nonce_could_choose_its_seeds() -> None:
    made = but(saying(ToyNode().serve(3), "sampling", nonces="", nonce_index=0), nonce=None)
    assert (await results(made))["nonce"] == "fail"
    unopened = but(ToyNode().serve(3), nonce=None)
    assert (await results(unopened))["nonce"] == "fail"


async def test_a_seed_is_inherited_with_tokens_alone() -> None:
    """Where nothing was taken over, a node could call any seed an earlier attempt's."""
    first = saying(
        ToyNode().serve(3), "sampling", source="inherited", seed="7a" * 32, node_nonce="", nonces=""
    )
    route = ToyNode().serve(3, given=(4,)).receipt.route
    after_another = replace(first, receipt=msgspec.structs.replace(first.receipt, route=route))
    assert (await results(after_another))["seed"] == "fail"


@pytest.mark.parametrize(
    "request_", [{}, {"n": 2}, {"stream": False}, {"top_logprobs": 2}], ids=str
)
async def test_an_answer_with_log_probabilities_is_made_again_with_them(
    request_: dict[str, object],
) -> None:
    found = await results(ToyNode().serve(3, logprobs=True, **request_))
    assert found["response"] == found["replay"] == "pass"


@pytest.mark.parametrize("lines", [0, 1], ids=["the text", "a log-probability"])
async def test_beside_log_probabilities_nothing_else_can_be_sent_than_the_tokens_say(
    lines: int,
) -> None:
    """Else a node could write what it likes, wherever they are asked for."""
    made = ToyNode().serve(3, logprobs=True)
    other = ToyNode().serve(4, logprobs=True)
    if lines:
        first, *rest = made.content.logprobs[0]
        changed = msgspec.structs.replace(first, logprob=-0.25)
        cheat = but(made, logprobs=((changed, *rest),))
    else:
        digest = other.receipt.response.digest
        cheat = saying(made, "response", digest=digest)
    assert (await results(cheat))["response"] == "fail"


async def test_log_probabilities_that_are_not_opened_are_withheld() -> None:
    case = await but(ToyNode().serve(3, logprobs=True), logprobs=()).case(CALIBRATION)
    drawn = judge(case, None)
    assert (drawn.kind, drawn.result, drawn.standing) == ("opening", "fail", "failed")
    older = judge(replace(case, whole=False), None)
    assert older.result == "pass", "its node had not said that it keeps them"
    brought = but(ToyNode().serve(3, logprobs=True), logprobs=(), nonce=None)
    asked = judge(replace(await brought.case(CALIBRATION), entry=None, nonces_entry=None), None)
    assert asked.result == "pass", "who calls a node need not have them as numbers"


@pytest.mark.parametrize(
    "opened",
    [((),), ((OpenedLogprob(-1.0),),), ((OpenedLogprob(-1.0),),) * 2],
    ids=["none", "too few", "too many choices"],
)
async def test_log_probabilities_of_another_shape_fail(
    opened: tuple[tuple[OpenedLogprob, ...], ...],
) -> None:
    made = but(ToyNode().serve(3, logprobs=True), logprobs=opened)
    assert (await results(made))["response"] == "fail"


async def test_a_log_probability_of_no_token_fails() -> None:
    made = ToyNode().serve(3, logprobs=True)
    first, *rest = made.content.logprobs[0]
    nobody = msgspec.structs.replace(first, top=((1 << 40, -1.0),))
    assert (await results(but(made, logprobs=((nobody, *rest),))))["response"] == "fail"


async def test_a_request_that_no_model_could_have_served_is_not_judged() -> None:
    request = {"model": "toy", "messages": [{"role": "user", "content": "x"}], "unheard_of": 1}
    raw = msgspec.json.encode(request)
    with pytest.raises(RequestError):
        check_supported(openai_chat.parse(raw))
    found = await results(but(ToyNode().serve(3), request=msgspec.Raw(raw)))
    assert found["request"] == "fail"
    assert found["sampler"] == found["response"] == "inconclusive"


async def test_other_weights_are_not_the_verifiers_to_judge() -> None:
    judged = judge(await ToyNode(toy=Toy(weights=2)).serve(3).case(CALIBRATION), None)
    assert judged.result == "inconclusive"
    assert judged.trials is None


async def test_a_node_can_not_say_that_it_has_no_room_for_what_it_answered() -> None:
    made = ToyNode().serve(3)
    for said in (1, len(made.content.prompt) + 5):
        measured = await measure(made.receipt, made.content, ToyScorer(), context_tokens=said)
        assert measured.scores
        case = replace(made.case_of(CALIBRATION, measured), context_tokens=said)
        found = {check.name: check.result for check in judge(case, None).checks}
        assert found["finish"] == found["replay"] == "pass"
