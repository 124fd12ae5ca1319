"""Answers given again: held against their origin, and every way to hide behind the word."""

from dataclasses import replace

import msgspec
import pytest
from tests.support.auditing import NODE, Made, Toy, ToyNode, but, exact, saying
from tests.support.embedding import Cheat, ToyEmbedder, one_bit, served
from tests.support.repeating import AGAIN_MS, again, alone, case

from trunkline.audit import embedding, recompute, repeated
from trunkline.audit.calibration import encode as encode_calibration
from trunkline.audit.judge import Case, Judged, judge
from trunkline.receipts import ReceiptCached
from trunkline.schema.audit import REPEATED_MS_MAX, OpenedOrigin
from trunkline.verdicts import Result

CALIBRATION = exact()
ORIGIN = ToyNode().serve(3)


async def verdict(made: Made, origin: Made, *, logged: repeated.Logged = "yes") -> Judged:
    """Judged, and its numbers computed again."""
    judged = judge(await case(made, CALIBRATION, origin, logged=logged), None)
    recompute.numbers(judged.bundle, encode_calibration(CALIBRATION))
    return judged


def found(judged: Judged) -> dict[str, Result]:
    return {check.name: check.result for check in judged.checks}


@pytest.mark.parametrize(
    "request_", [{}, {"stream": False}, {"n": 2}, {"stream_options": {"include_usage": True}}]
)
async def test_an_answer_given_again_passes_with_its_origin(request_: dict[str, object]) -> None:
    origin = ToyNode().serve(3, **request_)
    judged = await verdict(again(origin), origin)
    assert (judged.kind, judged.result) == ("replay", "pass"), judged.checks
    assert [check.name for check in judged.checks][:2] == ["cached", "repeated"]
    assert found(judged)["replay"] == "pass"


async def test_it_says_nothing_of_its_node_however_often_it_is_asked_for() -> None:
    """Whoever repeats a request picks the answer that is looked at."""
    judged = await verdict(again(ORIGIN), ORIGIN)
    assert judged.trials is not None
    assert judged.evidence.tokens == judged.evidence.samples == 0
    for number in range(60):
        case_ = await case(again(ORIGIN, number + 100), CALIBRATION, ORIGIN)
        judged = judge(case_, judged.state)
    assert judged.standing == "open", "not trusted for what it made once"


async def test_an_origin_of_other_weights_fails_what_is_given_again() -> None:
    cheat = ToyNode(toy=Toy(bent=3.0)).serve(3)
    judged = await verdict(again(cheat), cheat)
    assert judged.result == "fail"
    assert [name for name, result in found(judged).items() if result == "fail"] == ["replay"]


async def test_another_answer_than_the_origins_is_a_fault() -> None:
    """The flag alone: the answer was made anew, by whatever is cheaper."""
    cheaper = ToyNode(toy=Toy(bent=3.0)).serve(3)
    told = msgspec.structs.replace(
        again(ORIGIN, said=cheaper).receipt,
        usage=ORIGIN.receipt.usage,
        response=msgspec.structs.replace(
            again(ORIGIN, said=cheaper).receipt.response,
            chunks=ORIGIN.receipt.response.chunks,
            finish=ORIGIN.receipt.response.finish,
        ),
    )
    judged = await verdict(replace(again(ORIGIN), receipt=told), ORIGIN)
    assert found(judged)["repeated"] == "fail"
    assert (judged.result, judged.standing) == ("fail", "failed")


async def test_an_answer_to_another_request_is_a_fault() -> None:
    asked = ToyNode().serve(4)
    made = again(ORIGIN)
    other = again(replace(ORIGIN, content=asked.content))
    told = msgspec.structs.replace(made.receipt, request=other.receipt.request)
    judged = await verdict(replace(made, receipt=told), ORIGIN)
    assert found(judged)["repeated"] == "fail"
    assert judged.standing == "failed"


@pytest.mark.parametrize(
    "shown",
    [
        None,
        OpenedOrigin(signed=alone(ToyNode().serve(5)), salts={}),
        OpenedOrigin(
            signed=msgspec.structs.replace(alone(ORIGIN), receipt="{}"),
            salts=ORIGIN.content.salts,
        ),
    ],
    ids=["none", "another", "none that was signed"],
)
async def test_an_origin_that_is_not_shown_is_a_fault(shown: OpenedOrigin | None) -> None:
    judged = await verdict(but(again(ORIGIN), origin=shown), ORIGIN)
    assert found(judged) == {"cached": "fail"}
    assert (judged.kind, judged.standing) == ("accounting", "failed")


async def test_an_origin_that_never_was_in_the_log_is_a_fault() -> None:
    judged = await verdict(again(ORIGIN), ORIGIN, logged="no")
    assert (found(judged), judged.standing) == ({"cached": "fail"}, "failed")


async def test_an_origin_from_before_the_verifier_followed_leaves_it_open() -> None:
    judged = await verdict(again(ORIGIN), ORIGIN, logged="unknown")
    assert judged.result == "inconclusive"
    assert found(judged)["replay"] == found(judged)["repeated"] == "pass", "what can be told is"
    assert judged.standing == "open"


@pytest.mark.parametrize(
    "changes",
    [
        {"usage": msgspec.structs.replace(ORIGIN.receipt.usage, completion=99)},
        {"response": msgspec.structs.replace(again(ORIGIN).receipt.response, chunks=99)},
        {"model": msgspec.structs.replace(ORIGIN.receipt.model, weights="sha256:" + "0" * 64)},
        {"cached": ReceiptCached(ended_ms=1, receipt=ORIGIN.leaf.hex())},
        {"cached": ReceiptCached(ended_ms=ORIGIN.receipt.times.ended_ms, receipt="00" * 32)},
    ],
    ids=["usage", "chunks", "weights", "time", "leaf"],
)
async def test_what_the_receipts_have_in_common_has_to_agree(changes: dict[str, object]) -> None:
    made = again(ORIGIN)
    told = msgspec.structs.replace(made.receipt, **changes)
    judged = await verdict(replace(made, receipt=told), ORIGIN)
    assert (found(judged), judged.standing) == ({"cached": "fail"}, "failed")


async def test_what_was_itself_given_again_is_no_origin() -> None:
    once = again(ORIGIN)
    judged = await verdict(again(once, 51), once)
    assert found(judged) == {"cached": "fail"}


async def test_an_origin_that_may_not_be_audited_is_none() -> None:
    closed = saying(ORIGIN, "policy", audit=False)
    made = again(closed)
    told = msgspec.structs.replace(made.receipt, policy=ORIGIN.receipt.policy)
    judged = await verdict(replace(made, receipt=told), closed)
    assert found(judged) == {"cached": "fail"}


@pytest.mark.parametrize(("late_ms", "result"), [(0, "pass"), (1, "fail")])
async def test_an_answer_is_given_again_for_a_day(late_ms: int, result: Result) -> None:
    ended_ms = AGAIN_MS - REPEATED_MS_MAX - late_ms
    old = saying(ORIGIN, "times", ended_ms=ended_ms)
    assert found(await verdict(again(old), old))["cached"] == result


async def test_log_probabilities_are_the_same_too() -> None:
    origin = ToyNode().serve(3, logprobs=True, top_logprobs=1)
    judged = await verdict(again(origin), origin)
    assert (judged.result, found(judged)["repeated"]) == ("pass", "pass"), judged.checks
    first, *others = origin.content.logprobs[0]
    bent = but(again(origin), logprobs=((msgspec.structs.replace(first, logprob=-9.0), *others),))
    assert found(await verdict(bent, origin))["repeated"] == "fail"


@pytest.mark.parametrize("whose", ["the answer's", "its origin's"])
async def test_what_is_opened_by_half_is_withheld(whose: str) -> None:
    made = again(ORIGIN)
    origin = made.content.origin
    assert origin is not None
    less = {"salts": {}} if whose == "the answer's" else {
        "origin": msgspec.structs.replace(origin, salts={})
    }  # fmt: skip
    judged = await verdict(but(made, **less), ORIGIN)
    assert (judged.kind, judged.standing, found(judged)) == (
        "opening", "failed", {"opened": "fail"},
    )  # fmt: skip


async def test_what_is_not_opened_at_all_is_withheld() -> None:
    made = again(ORIGIN)
    unopened = replace(
        await case(made, CALIBRATION, ORIGIN), content=None, origin=None, reason="withheld"
    )
    judged = judge(unopened, None)
    assert (judged.kind, judged.standing) == ("opening", "failed")


async def test_without_the_model_it_is_left_open() -> None:
    unasked = replace(await case(again(ORIGIN), CALIBRATION, ORIGIN), measured=None)
    judged = judge(unasked, None)
    assert judged.result == "inconclusive"
    assert found(judged)["cached"] == "pass"
    assert found(judged)["repeated"] == "inconclusive"


async def embedded(node: Cheat | ToyEmbedder, said: Made | None = None) -> Judged:
    """A verdict on vectors that were given again."""
    origin = await served(node, ["one text", "another"], encoding_format="base64")
    made = again(origin, said=said)
    shown = repeated.shown(made.content, NODE.vkey)
    assert shown is not None
    remade = await embedding.measure(origin.receipt, shown.content, ToyEmbedder())
    return judge(
        Case(
            receipt=made.receipt,
            leaf=made.leaf,
            key=NODE.vkey,
            calibration=CALIBRATION,
            content=made.content,
            remade=remade,
            origin=replace(shown, logged="yes", entry=5),
            entry=9,
        ),
        None,
    )


async def test_embeddings_given_again_are_held_to_their_origin_too() -> None:
    judged = await embedded(ToyEmbedder())
    assert (judged.kind, judged.result) == ("embedding", "pass"), judged.checks
    bent = await embedded(Cheat(claims=ToyEmbedder(), bend=one_bit))
    assert (bent.result, found(bent)["replay"]) == ("fail", "fail")
    other = await served(ToyEmbedder(weights=2), ["one text", "another"], encoding_format="base64")
    judged = await embedded(ToyEmbedder(), said=other)
    assert found(judged)["repeated"] == "fail"
    assert judged.standing == "failed"
