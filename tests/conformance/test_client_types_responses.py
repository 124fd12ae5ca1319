"""What we write in the Responses format is what the official client reads; it raises our errors."""

import json
from typing import Any, Literal

import msgspec
import openai
import pydantic
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.responses.response_create_params import ResponseCreateParamsBase
from tests.support.canned import openai_client as client

from trunkline.base.errors import RateLimitedError, TruncatedError
from trunkline.schema import errors, openai_responses
from trunkline.schema import openai_answer as chat
from trunkline.schema.grid import responses_openai

EVENT: pydantic.TypeAdapter[ResponseStreamEvent] = pydantic.TypeAdapter(ResponseStreamEvent)
TOOL = {
    "type": "function",
    "name": "look",
    "description": "Look",
    "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
    "strict": False,
}
ASK: dict[str, Any] = {
    "model": "m",
    "input": "hello",
    "instructions": "be brief",
    "tools": [TOOL],
    "metadata": {"label": "x"},
    "temperature": 0.5,
}
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}},
    "required": ["name"],
    "additionalProperties": False,
}
USAGE = chat.Usage(
    prompt_tokens=10,
    completion_tokens=4,
    total_tokens=14,
    prompt_tokens_details=chat.PromptTokensDetails(cached_tokens=3),
    completion_tokens_details=chat.CompletionTokensDetails(reasoning_tokens=1),
)


def translator(**more: object) -> responses_openai.StreamTranslator:
    request = openai_responses.parse(json.dumps(ASK | {"stream": True} | more).encode())
    return responses_openai.StreamTranslator(
        response_id="resp_1", told=responses_openai.echo(request)
    )


def chunks(finish: chat.FinishReason = "tool_calls") -> list[bytes]:
    writer = chat.ChunkWriter(id="chatcmpl-1", created_s=7, model="served", include_usage=True)
    other = chat.TopLogprob(token="a", logprob=-1)
    token = chat.TokenLogprob(token="lo", logprob=-0.5, bytes=(108, 111), top_logprobs=(other,))
    thought = {
        "id": "chatcmpl-1",
        "created": 7,
        "model": "served",
        "choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}],
    }
    return [
        writer.role(0),
        json.dumps(thought).encode(),
        writer.content(0, "let me "),
        writer.content(0, "lo\u00f6k", [token]),
        writer.tool_call(0, 0, id="call_1", name="look"),
        writer.tool_arguments(0, 0, '{"at":'),
        writer.tool_arguments(0, 0, '"x"}'),
        writer.tool_call(0, 1, id="call_2", name="look"),
        writer.finish(0, finish),
        writer.usage(USAGE),
    ]


def events(body: bytes) -> list[ResponseStreamEvent]:
    """Each event, valid as the client's own types have it; numbered, and named as its type."""
    found = []
    for number, block in enumerate(body.removesuffix(b"\n\n").split(b"\n\n")):
        name, data = block.split(b"\n")
        event = EVENT.validate_json(data.removeprefix(b"data: "))
        assert event.sequence_number == number
        assert name == b"event: " + event.type.encode()
        found.append(event)
    return found


def streamed(finish: chat.FinishReason = "tool_calls") -> bytes:
    translate = translator()
    return b"".join([translate.feed(chunk) for chunk in chunks(finish)]) + translate.finish()


def test_every_event_is_valid_and_in_order() -> None:
    kinds = [event.type.removeprefix("response.") for event in events(streamed())]
    assert kinds == [
        "created", "in_progress",
        "output_item.added", "content_part.added", "reasoning_text.delta",
        "reasoning_text.done", "content_part.done", "output_item.done",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.delta",
        "function_call_arguments.done", "output_item.done",
        "output_item.added", "function_call_arguments.done", "output_item.done",
        "completed",
    ]  # fmt: skip


def test_the_client_reads_our_stream() -> None:
    asked = {name: value for name, value in ASK.items() if name != "tools"}
    with client(streamed(), stream=True) as caller, caller.responses.stream(**asked) as reading:
        text = "".join([e.delta for e in reading if e.type == "response.output_text.delta"])
        final = reading.get_final_response()
    assert text == final.output_text == "let me loök"
    assert [item.type for item in final.output] == [
        "reasoning", "message", "function_call", "function_call",
    ]  # fmt: skip
    assert final.usage is not None
    assert (final.usage.input_tokens, final.usage.output_tokens) == (10, 4)
    assert final.usage.input_tokens_details.cached_tokens == 3
    assert final.usage.output_tokens_details.reasoning_tokens == 1


def test_the_response_repeats_its_request_and_tells_what_is_so() -> None:
    completed = events(streamed())[-1]
    assert completed.type == "response.completed"
    told = completed.response
    assert told.instructions == "be brief"
    assert told.metadata == {"label": "x"}
    assert told.temperature == 0.5
    assert told.to_dict()["store"] is False
    assert told.created_at == 7
    assert told.model == "served"
    assert told.tools[0].to_dict() == TOOL
    assert told.tool_choice == "auto"
    assert told.error is None


@pytest.mark.parametrize(
    ("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_what_was_cut_is_incomplete(
    finish: Literal["length", "content_filter"], reason: str
) -> None:
    *_, item, last = events(streamed(finish))
    assert last.type == "response.incomplete"
    assert last.response.incomplete_details is not None
    assert last.response.incomplete_details.reason == reason
    assert item.type == "response.output_item.done"
    assert item.item.status == "incomplete"  # type: ignore[union-attr]
    assert [entry.status for entry in last.response.output] == [  # type: ignore[union-attr]
        "completed", "completed", "completed", "incomplete",
    ]  # fmt: skip


def failed(after: int) -> bytes:
    translate = translator()
    told = errors.describe(TruncatedError("the stream was cut"))
    return b"".join([translate.feed(chunk) for chunk in chunks()[:after]]) + translate.fail(told)


@pytest.mark.parametrize("after", range(1, 11))
def test_a_failure_is_explicit_and_never_a_finish(after: int) -> None:
    *before, ended, error = events(failed(after))
    assert not {event.type for event in before} & {"response.completed", "response.incomplete"}
    assert ended.type == "response.failed"
    assert ended.response.status == "failed"
    assert ended.response.error is not None
    assert ended.response.error.code == "server_error"
    assert error.type == "error"
    assert error.code == "upstream_truncated"


def test_the_client_raises_the_error_after_it_told_of_the_failure() -> None:
    with client(failed(4), stream=True) as caller:
        seen = []
        with pytest.raises(openai.APIError) as caught:
            for event in caller.responses.create(**ASK, stream=True):
                seen.append(event.type)  # noqa: PERF401 -- what came before the error counts
    assert caught.value.code == "upstream_truncated"
    assert seen[-1] == "response.failed"


def test_a_limit_reached_within_the_answer_has_the_formats_own_code() -> None:
    translate = translator()
    start = translate.feed(chunks()[0])
    found = events(start + translate.fail(errors.describe(RateLimitedError("slow down"))))
    assert found[-2].response.error.code == "rate_limit_exceeded"  # type: ignore[union-attr]


def completion() -> bytes:
    return msgspec.json.encode(
        {
            "id": "chatcmpl-1",
            "created": 7,
            "model": "served",
            "choices": [
                {
                    "index": 0,
                    "message": {
                        "role": "assistant",
                        "reasoning_content": "hm",
                        "content": "let me loök",
                        "tool_calls": [
                            {"id": "call_1", "type": "function",
                             "function": {"name": "look", "arguments": '{"at":"x"}'}},
                            {"id": "call_2", "type": "function",
                             "function": {"name": "look", "arguments": ""}},
                        ],
                    },
                    "finish_reason": "tool_calls",
                    "logprobs": {"content": [
                        {"token": "lo", "logprob": -0.5, "bytes": [108, 111],
                         "top_logprobs": [{"token": "a", "logprob": -1.0, "bytes": None}]},
                    ]},
                }
            ],
            "usage": USAGE,
        }
    )  # fmt: skip


def whole() -> bytes:
    request = openai_responses.parse(json.dumps(ASK).encode())
    told = responses_openai.echo(request)
    return responses_openai.translate_answer(completion(), response_id="resp_1", told=told)


def test_the_whole_answer_is_what_the_stream_ends_with() -> None:
    last = events(streamed())[-1]
    assert last.type == "response.completed"
    assert Response.model_validate_json(whole()).to_dict() == last.response.to_dict()


def test_the_client_reads_the_whole_answer() -> None:
    with client(whole()) as caller:
        answer = caller.responses.create(**ASK)
    assert answer.output_text == "let me loök"
    assert answer.status == "completed"


def test_what_the_client_sends_back_of_an_answer_is_understood() -> None:
    """As agents do: the answer's items, and the calls' outputs after them."""
    with client(whole()) as caller:
        answer = caller.responses.create(**ASK)
    items = [item.to_dict() for item in answer.output]
    outputs = [
        {"type": "function_call_output", "call_id": call, "output": "seen"}
        for call in ("call_1", "call_2")
    ]
    asked = ASK | {"input": [{"role": "user", "content": "hello"}, *items, *outputs]}
    sent = json.loads(responses_openai.translate_request(json.dumps(asked).encode()))
    assert [message["role"] for message in sent["messages"]] == [
        "system", "user", "assistant", "tool", "tool",
    ]  # fmt: skip
    said = sent["messages"][2]
    assert said["content"] == [{"type": "text", "text": "let me loök"}]
    assert said["reasoning_content"] == "hm"
    assert [call["id"] for call in said["tool_calls"]] == ["call_1", "call_2"]


def test_each_documented_parameter_is_known() -> None:
    documented = set(ResponseCreateParamsBase.__annotations__) | {"stream"}
    assert documented == openai_responses.FIELDS
