"""Every parameter is honoured or refused by name."""

import msgspec
import pytest

from trunkline.base.errors import RequestError
from trunkline.inference.messages import prompt_messages
from trunkline.inference.plan import (
    ANSWER_TOKENS_DEFAULT,
    HONOURED,
    ChatPlan,
    Limits,
    caller_seed,
    check_supported,
    plan_chat,
)
from trunkline.sampling import choice_seed, seed_from_caller
from trunkline.schema import openai_chat

LIMITS = Limits(context_tokens=2048, vocabulary_size=100, choices_max=8, end_tokens=(1,))
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def parsed(**more: object) -> openai_chat.ChatRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]} | more
    return openai_chat.parse(msgspec.json.encode(body))


def planned(*, prompt: int = 10, **more: object) -> ChatPlan:
    request = parsed(**more)
    check_supported(request)
    return plan_chat(request, tuple(range(prompt)), LIMITS)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"verbosity": "low"}, "verbosity"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"store": True}, "store"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"frobnicate": 1}, "frobnicate"),
        (
            {"stream": True, "stream_options": {"include_obfuscation": True}},
            "stream_options.include_obfuscation",
        ),
        ({"tools": [{"type": "custom", "custom": {"name": "c"}}]}, "tools.custom"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "image_url", "image_url": {"url": "https://x.example/"}}
                        ],
                    }
                ]
            },
            "messages.image_url",
        ),
    ],
)
def test_what_can_not_be_honoured_is_refused_by_name(given: dict[str, object], name: str) -> None:
    with pytest.raises(RequestError) as refused:
        check_supported(parsed(**given))

    assert refused.value.error_code == "unsupported_parameter"
    assert refused.value.param == name


def test_every_documented_parameter_is_either_honoured_or_refused() -> None:
    """A field that the schema learns of is refused until somebody says otherwise here."""
    known = openai_chat.FIELDS - {"model", "messages", "stream_options"}
    refused = {
        "audio", "function_call", "functions", "modalities", "moderation", "prediction",
        "reasoning_effort", "service_tier", "store", "verbosity", "web_search_options",
    }  # fmt: skip

    assert {name.partition(".")[0] for name in HONOURED} - {"stream_options"} == known - refused


def test_a_strict_tool_holds_the_calls_among_words_to_its_schema() -> None:
    strict = {"type": "function", "function": TOOL["function"] | {"strict": True}}  # type: ignore[operator]

    check_supported(parsed(tools=[strict]))
    assert "words0" in planned(tools=[strict]).sampling.grammar
    assert planned(tools=[TOOL]).sampling.grammar == ""
    assert planned(tools=[strict], tool_choice="none").sampling.grammar == ""
    demanded = planned(tools=[strict], tool_choice="required").sampling.grammar
    assert demanded
    assert "words0" not in demanded


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ANSWER_TOKENS_DEFAULT),
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 7}, 7),
        ({"max_tokens": 2**31 - 1}, 2048 - 10),
    ],
)
def test_max_tokens_is_an_upper_bound(given: dict[str, object], expected: int) -> None:
    assert planned(**given).pipe.tokens_max == expected


def test_the_default_is_bounded_by_the_context() -> None:
    assert planned(prompt=2000).pipe.tokens_max == 48


@pytest.mark.parametrize("value", [0, -1, 2**31, 2**63])
def test_an_absurd_max_tokens_is_refused(value: int) -> None:
    with pytest.raises(RequestError) as refused:
        parsed(max_tokens=value)

    assert refused.value.param == "max_tokens"


@pytest.mark.parametrize(
    ("prompt", "given", "code"),
    [
        (2048, {}, "context_length_exceeded"),
        (10, {"n": 9}, "unsupported_parameter"),
        (10, {"logit_bias": {"100": 1}}, "invalid_value"),
    ],
)
def test_the_models_own_limits(prompt: int, given: dict[str, object], code: str) -> None:
    with pytest.raises(RequestError) as refused:
        planned(prompt=prompt, **given)

    assert refused.value.error_code == code


def test_parameters_reach_the_engine() -> None:
    plan = planned(
        temperature=0.5, top_p=0.9, top_k=1000, min_p=0.1, frequency_penalty=1.5,
        presence_penalty=-1, logit_bias={"3": -100}, logprobs=True, top_logprobs=4, n=2,
    )  # fmt: skip
    job = plan.job(1, b"s" * 32, (4, 5))

    assert job.sampling.temperature == 0.5
    assert job.sampling.top_p == 0.9
    assert job.sampling.top_k == 100
    assert job.sampling.min_p == 0.1
    assert (job.sampling.frequency_penalty, job.sampling.presence_penalty) == (1.5, -1)
    assert job.sampling.logit_bias == {3: -100.0}
    assert job.sampling.top_logprobs == 4
    assert job.sampling.seed == choice_seed(b"s" * 32, 1)
    assert (job.prompt, job.prefix) == (tuple(range(10)), (4, 5))


ADVISED = Limits(
    context_tokens=2048, vocabulary_size=100, choices_max=8, end_tokens=(1,),
    temperature=0.2, top_p=0.9,
)  # fmt: skip


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (0.2, 0.9)),
        ({"temperature": 0.7}, (0.7, 1.0)),
        ({"temperature": 0}, (0.0, 1.0)),
        ({"top_p": 0.5}, (1.0, 0.5)),
        ({"top_k": 5}, (0.2, 0.9)),
    ],
)
def test_the_models_advice_holds_where_the_request_sets_neither(
    given: dict[str, object], expected: tuple[float, float]
) -> None:
    request = parsed(**given)
    sampling = plan_chat(request, tuple(range(10)), ADVISED).sampling
    assert (sampling.temperature, sampling.top_p) == expected


def test_a_callers_seed_is_the_answers() -> None:
    assert caller_seed(parsed(seed=-7)) == seed_from_caller(-7)
    assert caller_seed(parsed()) is None


def test_tools_are_offered_to_the_model_in_its_system_message() -> None:
    messages = prompt_messages(
        parsed(
            messages=[
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "a"}]},
                {
                    "role": "assistant",
                    "tool_calls": [
                        {
                            "id": "c1",
                            "type": "function",
                            "function": {"name": "f", "arguments": '{"x": 1}'},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "c1", "content": "no", "is_error": True},
            ],
            tools=[TOOL],
        )
    )

    assert [m.role for m in messages] == ["system", "user", "assistant", "tool"]
    assert messages[0].text.startswith("Be brief.\n\n")
    assert '"name":"f"' in messages[0].text
    assert messages[2].text == '<tool_call>[{"name": "f", "arguments": {"x": 1}}]</tool_call>'
    assert messages[3].text == "error: no"


def test_no_tools_are_offered_where_none_may_be_called() -> None:
    plan = planned(tools=[TOOL], tool_choice="none")

    assert plan.pipe.tools == frozenset()
    assert [m.text for m in prompt_messages(parsed(tools=[TOOL], tool_choice="none"))] == ["hi"]


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "name": "bob", "content": "x"},
        {"role": "assistant", "content": "x", "reasoning_content": "y"},
        {"role": "function", "name": "f", "content": "x"},
    ],
)
def test_parts_of_a_message_without_a_place_are_refused(message: dict[str, object]) -> None:
    with pytest.raises(RequestError) as refused:
        prompt_messages(parsed(messages=[message]))

    assert refused.value.error_code == "unsupported_parameter"
    assert str(refused.value.param).startswith("messages[0].")


def test_a_demanded_call_is_a_grammar() -> None:
    plan = planned(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "f"}})

    assert plan.sampling.grammar.startswith("root ::= ")
    assert plan.pipe.one_block


def test_a_schema_outside_the_subset_is_refused_by_its_keyword() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "x"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}

    with pytest.raises(RequestError) as refused:
        planned(response_format=wanted)

    assert refused.value.param == "response_format.json_schema.schema.properties.a.pattern"
