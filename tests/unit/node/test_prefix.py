"""A provider that goes on after a given text: how it is asked, and what the app is told."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.node.harness import KEY, Heard, attempt, chat, node
from tests.unit.node.test_provider import Upstream, chunk, config, through

from trunkline.base.errors import BadResponseError, RequestError
from trunkline.node.config_providers import AnthropicEngine
from trunkline.node.core.joint import BAD_SEAM, Joint
from trunkline.node.core.prefix import DIALECTS, Dialect, Prefixes, going_on
from trunkline.node.core.served import WRONG_MODEL, same_model
from trunkline.node.core.usage import UsageAsked, UsageFilter
from trunkline.receipts import prefix_digest, verify_signed
from trunkline.remote.node import NodeRefusedError
from trunkline.runtime.server import serving
from trunkline.schema import openai_chat
from trunkline.schema.attempt import Attempt, Prefix, PreviousAttempt, Used
from trunkline.schema.grid import openai_anthropic, openai_bedrock, openai_gemini

PLAIN = Dialect()


def prefix(text: str = "Once upon ", used: Used | None = None) -> Prefix:
    return Prefix(
        text=text, events=4, id="first-1", created=1_780_000_007, model="real-1", used=used
    )


def request(**more: object) -> bytes:
    return msgspec.json.encode({"model": "real-1"} | chat(**more))  # type: ignore[arg-type]


def asked(raw: bytes, dialect: Dialect = PLAIN, given: Prefix | None = None) -> dict[str, object]:
    found: dict[str, object] = msgspec.json.decode(going_on(raw, given or prefix(), dialect))
    return found


# How it is asked.


def test_the_text_is_the_beginning_of_the_models_own_turn_and_nothing_is_added() -> None:
    raw = request(vendor_option={"a": 2.50})
    body = asked(raw)
    assert body == msgspec.json.decode(raw) | {
        "messages": [
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": "Once upon"},
        ]
    }


@pytest.mark.parametrize(
    ("name", "members", "message"),
    [
        ("vllm", {"continue_final_message": True, "add_generation_prompt": False}, {}),
        ("sglang", {"continue_final_message": True}, {}),
        ("deepseek", {}, {"prefix": True}),
        ("mistral", {}, {"prefix": True}),
        ("trailing", {}, {}),
    ],
)
def test_dialects(name: str, members: dict[str, object], message: dict[str, object]) -> None:
    plain, body = asked(request()), asked(request(), DIALECTS[name])  # type: ignore[index]
    assert body["messages"] == [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "Once upon"} | message,
    ]
    assert body == plain | members | {"messages": body["messages"]}


def test_the_answers_bound_is_lowered_by_what_is_there_where_that_is_known() -> None:
    raw = request(max_tokens=10, max_completion_tokens=3)
    known = asked(raw, given=prefix(used=Used(prompt=5, completion=4)))
    assert (known["max_tokens"], known["max_completion_tokens"]) == (6, 1)
    assert asked(raw)["max_tokens"] == 10


@pytest.mark.parametrize(
    "raw",
    [
        request(n=2),
        request(stream=False),
        request(logprobs=True),
        request(messages=[{"role": "assistant", "content": "It "}]),
    ],
)
def test_what_is_not_continued_by_its_text(raw: bytes) -> None:
    with pytest.raises(RequestError) as refused:
        going_on(raw, prefix(), PLAIN)
    assert refused.value.error_code == "cannot_continue"


def test_after_space_alone_the_request_is_as_it_was() -> None:
    assert going_on(request(), prefix(" \n"), PLAIN) == request()


def test_single_models_may_have_another_dialect_or_none() -> None:
    prefixes = Prefixes(default="trailing", models={"new": "none", "own": "mistral"})
    assert prefixes.of("any") == DIALECTS["trailing"]
    assert prefixes.of("new") is None
    assert prefixes.of("own") == DIALECTS["mistral"]
    assert Prefixes().of("any") is None


# What the app is told.


def joint(
    text: str = "Once upon ",
    *,
    echoes: bool = False,
    used: Used | None = None,
    asked: UsageAsked | None = None,
) -> Joint:
    dialect = Dialect(echoes=echoes)
    return Joint(prefix(text, used), dialect, asked or UsageAsked(added=True), ("real-1",))


def told(by: Joint, *texts: str | None, finish: str | None = "stop") -> str:
    lines = [chunk(text) for text in texts] + [chunk(None, finish)]
    heard = [by.tell(line) for line in lines]
    chunks = [msgspec.json.decode(one.data) for one in heard if one is not None]
    assert {c["id"] for c in chunks} == {"first-1"}
    assert chunks[-1]["choices"][0]["finish_reason"] == finish
    return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks)


def test_the_space_that_was_kept_back_is_said_once() -> None:
    assert told(joint(), " a", " time") == "a time"
    assert told(joint(), "", " ", "a") == "a"
    assert told(joint("Once\n\n"), "\n", "\nupon") == "upon"
    assert told(joint("Once"), " upon") == " upon"


@pytest.mark.parametrize("texts", [("a time",), ("\na",), ("Once upon a time",)])
def test_what_does_not_begin_with_it_is_no_continuation(texts: tuple[str, ...]) -> None:
    with pytest.raises(BadResponseError) as refused:
        told(joint(), *texts)
    assert refused.value.error_code == BAD_SEAM


def test_an_answer_that_was_complete_ends() -> None:
    assert told(joint()) == ""
    assert told(joint(echoes=True)) == ""


def test_an_echo_is_dropped_exactly() -> None:
    assert told(joint(echoes=True), "Once upon a time") == "a time"
    assert told(joint(echoes=True), "Once", " upon", " a") == "a"
    assert told(joint("Once", echoes=True), "Once", "Once more") == "Once more"
    # None this time; what looked like its beginning belongs to the answer.
    assert told(joint("Once", echoes=True), "On", "ly") == "Only"
    assert told(joint(echoes=True), " a time") == "a time"


@given(st.booleans(), st.lists(st.integers(0, 30), max_size=6))
def test_what_is_told_does_not_depend_on_where_chunks_end(echoes: bool, cuts: list[int]) -> None:
    said = "Once upon a time, a time" if echoes else " a time, a time"
    places = [0, *sorted(min(cut, len(said)) for cut in cuts), len(said)]
    parts = [said[a:b] for a, b in pairwise(places)]
    assert told(joint(echoes=echoes), *parts) == "a time, a time"


def test_an_echo_that_breaks_off_can_not_be_told() -> None:
    with pytest.raises(BadResponseError):
        told(joint(echoes=True), "Once")


def test_a_model_that_thinks_anew_does_not_go_on() -> None:
    for name in ("reasoning_content", "reasoning"):
        line = msgspec.json.encode(
            {"model": "real-1", "choices": [{"index": 0, "delta": {name: "Hm"}}]}
        )
        with pytest.raises(BadResponseError) as refused:
            joint().tell(line)
        assert refused.value.error_code == BAD_SEAM


def test_the_role_is_not_said_again_and_unknown_members_survive() -> None:
    first = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
    assert joint().tell(msgspec.json.encode({"id": "x", "choices": [first]})) is None
    second = {"index": 0, "delta": {"role": "assistant", "content": " a"}, "vendor": [1]}
    said = joint().tell(msgspec.json.encode({"id": "x", "choices": [second], "more": 2.5}))
    assert said is not None
    assert msgspec.json.decode(said.data) == {
        "id": "first-1",
        "created": 1_780_000_007,
        "model": "real-1",
        "choices": [{"index": 0, "delta": {"content": "a"}, "vendor": [1]}],
        "more": 2.5,
    }


USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
LAST = msgspec.json.encode({"model": "real-1", "choices": [], "usage": USAGE})


def test_usage_is_that_of_the_whole_where_the_part_before_is_counted() -> None:
    said = joint(used=Used(prompt=6, completion=3), asked=UsageAsked(app=True)).tell(LAST)
    assert said is not None
    assert said.used == (6, 7)
    assert msgspec.json.decode(said.data)["usage"] == {
        "prompt_tokens": 6,
        "completion_tokens": 7,
        "total_tokens": 13,
    }


def test_usage_is_not_guessed_where_it_is_not() -> None:
    said = joint(asked=UsageAsked(app=True)).tell(LAST)
    assert said is not None
    assert said.used is None
    assert msgspec.json.decode(said.data)["usage"] == USAGE | {"continued_characters": 10}


def test_another_model_does_not_go_on() -> None:
    with pytest.raises(BadResponseError) as refused:
        joint().tell(chunk(" a", model="real-2"))
    assert refused.value.error_code == WRONG_MODEL


@pytest.mark.parametrize(
    ("before", "after", "expected", "same"),
    [
        ("m", "m", ("m",), True),
        ("m-2026-05-01", "m", ("m",), True),
        ("m-2026-05-01", "m-2026-08-01", ("m",), False),
        ("maker/M", "m", ("m",), True),
        ("", "m", ("m",), True),
        ("up/x", "m", ("m",), False),
        ("m", "x", ("m", "x"), True),
        ("m", "whatever", ("m", "*"), True),
        ("small", "large", ("auto",), False),
    ],
)
def test_same_model(before: str, after: str, expected: tuple[str, ...], same: bool) -> None:
    assert same_model(before, after, expected) is same


# Usage in any stream.


def usage(raw: bytes, *, running: bool = False) -> UsageAsked:
    return UsageAsked.of(raw, ask=True, running=running)


def test_usage_is_asked_for_and_the_apps_own_options_stay() -> None:
    raw = request(stream_options={"vendor": 1})
    body = msgspec.json.decode(usage(raw, running=True).request(raw))
    assert body["stream_options"] == {
        "vendor": 1,
        "include_usage": True,
        "continuous_usage_stats": True,
    }
    asked_already = request(stream_options={"include_usage": True})
    assert usage(asked_already).request(asked_already) == asked_already
    odd = request(stream_options="yes")
    assert usage(odd).request(odd) == odd


def test_the_app_is_told_as_much_as_it_asked_for() -> None:
    beside = chunk("a", usage=USAGE)
    silent, asked_for = request(), request(stream_options={"include_usage": True})
    assert UsageFilter(usage(silent)).tell(LAST) is None
    kept = UsageFilter(usage(asked_for)).tell(LAST)
    assert kept is not None
    assert (kept.data, kept.used) == (LAST, (9, 4))

    running = UsageFilter(usage(asked_for, running=True)).tell(beside)
    assert running is not None
    assert msgspec.json.decode(running.data)["usage"] is None
    assert running.used == (9, 4)
    bare = UsageFilter(usage(silent, running=True)).tell(beside)
    assert bare is not None
    assert "usage" not in msgspec.json.decode(bare.data)


# Behind a node.


def taking_over(given: Prefix, **more: object) -> Attempt:
    before = PreviousAttempt(
        attempt="att_0", node="beta.example/node", error="upstream_truncated", characters=10
    )
    made = attempt(chat(**more), model="real-1")  # type: ignore[arg-type]
    return msgspec.structs.replace(made, prefix=given, previous=(before,))


async def test_a_node_goes_on_and_signs_for_what_it_was_given(tmp_path: Path) -> None:
    upstream = Upstream([chunk(""), chunk(" a"), chunk(" time"), chunk(None, "stop"), LAST])
    async with (
        serving(upstream) as base_url,
        node(tmp_path, config=config(base_url, models=("real-1",), prefix="vllm")) as running,
    ):
        info = msgspec.json.decode((await running.get("/v1/info"))[1])
        heard: Heard = await running.hear(taking_over(prefix()), first_id=4)

    assert info["models"][0]["prefix"] is True
    assert heard.accepted is not None
    assert heard.accepted.prefix == prefix_digest("Once upon ")
    assert heard.text == "a time"
    assert [event.id for event in heard.chunks] == [4, 5, 6]
    assert heard.signed is not None
    receipt = verify_signed(heard.signed, KEY).receipt
    assert receipt.response.prefix == prefix_digest("Once upon ")
    assert receipt.response.prefix_characters == receipt.route[0].characters == 10
    assert (receipt.usage.prompt, receipt.usage.completion) == (9, 4)


async def test_the_count_that_a_node_adds_at_the_end_names_nobody(tmp_path: Path) -> None:
    """The provider, which may be called anything, says no name, and no count at the end."""
    bare = {"id": "", "model": ""}
    upstream = Upstream(
        [chunk(" a", usage=USAGE, **bare), chunk(None, "stop", usage=USAGE, **bare)]
    )
    known = {"served_names": {"real-1": "*"}, "prefix": "vllm"}
    given = msgspec.structs.replace(prefix(), model="other")
    asked_for = taking_over(given, stream_options={"include_usage": True})
    async with (
        serving(upstream) as base_url,
        node(tmp_path, config=config(base_url, models=("real-1",), **known)) as running,
    ):
        heard = await running.hear(asked_for, first_id=4)
    assert heard.error is None
    last = msgspec.json.decode(heard.chunks[-1].data or b"")
    assert (last["model"], last["choices"]) == ("other", [])


async def test_a_node_that_can_not_says_so(tmp_path: Path) -> None:
    async with (
        serving(Upstream([])) as base_url,
        node(tmp_path, config=config(base_url, models=("real-1",))) as running,
    ):
        info = msgspec.json.decode((await running.get("/v1/info"))[1])
        with pytest.raises(NodeRefusedError) as refused:
            await running.hear(taking_over(prefix()), first_id=4)
    assert "prefix" not in info["models"][0]
    assert refused.value.node_error.code == "cannot_continue"
    assert refused.value.node_error.status == 409


async def test_a_copy_is_found_at_once_where_each_chunk_counts(tmp_path: Path) -> None:
    twice = chunk("ha", usage=USAGE)
    heard = await through(tmp_path, Upstream([chunk(""), twice, twice]), chat(), prefix="vllm")
    assert heard.text == "ha"
    assert heard.error is not None
    assert heard.error.code == "upstream_bad_chunk"


async def test_a_copy_is_found_at_the_end_though_the_app_asked_for_no_usage(
    tmp_path: Path,
) -> None:
    end = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
    events = [
        chunk("ha"),
        chunk("ha"),
        chunk(None, "stop"),
        msgspec.json.encode({"model": "real-1", "choices": [], "usage": end}),
    ]
    heard = await through(tmp_path, Upstream(events), chat())
    assert len(heard.chunks) == 3
    assert heard.error is not None
    assert heard.error.code == "upstream_repeated_chunk"


# Behind a translation.


def test_translated_a_last_turn_of_the_models_own_is_gone_on_with() -> None:
    body = openai_chat.parse(going_on(request(max_tokens=9), prefix(), DIALECTS["prefill"]))
    said = "Once upon"
    anthropic = msgspec.json.decode(openai_anthropic.from_openai(body))
    last = {"role": "assistant", "content": [{"type": "text", "text": said}]}
    assert anthropic["messages"][-1] == last
    gemini = msgspec.json.decode(openai_gemini.from_openai(body).body)
    assert gemini["contents"][-1] == {"role": "model", "parts": [{"text": said}]}
    bedrock = msgspec.json.decode(openai_bedrock.from_openai(body).body)
    assert bedrock["messages"][-1] == {"role": "assistant", "content": [{"text": said}]}


@pytest.mark.parametrize(
    "translate",
    [openai_anthropic.from_openai, openai_gemini.from_openai, openai_bedrock.from_openai],
)
def test_translated_without_the_mark_it_is_refused(
    translate: Callable[[openai_chat.ChatRequest], object],
) -> None:
    unmarked = msgspec.json.decode(going_on(request(max_tokens=9), prefix(), DIALECTS["trailing"]))
    with pytest.raises(RequestError):
        translate(openai_chat.parse(msgspec.json.encode(unmarked)))


def test_only_dialects_of_the_kind_can_be_configured() -> None:
    assert AnthropicEngine(prefix="prefill").prefix == "prefill"
    for wrong in ({"prefix": "vllm"}, {"prefix_models": {"m": "trailing"}}):
        with pytest.raises(ValueError, match="prefix must be one of"):
            AnthropicEngine(**wrong)  # type: ignore[arg-type]
