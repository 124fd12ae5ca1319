"""What we write in the Anthropic format is what the official client reads; it raises our errors."""

import anthropic
import pytest
from anthropic.types import Message, ModelInfo
from tests.support.canned import anthropic_client as client

from trunkline.base.errors import OverloadedError, RequestError, TruncatedError
from trunkline.schema import anthropic_answer, anthropic_messages, errors, models
from trunkline.schema import openai_answer as openai
from trunkline.schema.grid import anthropic_openai

ASK = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hello"}]}


def stream() -> bytes:
    writer = openai.ChunkWriter(id="chatcmpl-1", created_s=1, model="served", include_usage=True)
    usage = openai.Usage(
        prompt_tokens=10,
        completion_tokens=4,
        total_tokens=14,
        prompt_tokens_details=openai.PromptTokensDetails(cached_tokens=3),
    )
    translator = anthropic_openai.StreamTranslator(message_id="msg_1")
    chunks = [
        writer.role(0),
        writer.content(0, "let me "),
        writer.content(0, "lo\u00f6k"),
        writer.tool_call(0, 0, id="toolu_1", name="look"),
        writer.tool_arguments(0, 0, '{"at":'),
        writer.tool_arguments(0, 0, '"x"}'),
        writer.tool_call(0, 1, id="toolu_2", name="wait"),
        writer.finish(0, "tool_calls"),
        writer.usage(usage),
    ]
    events = [translator.feed(chunk) for chunk in chunks]
    return b"".join(events) + anthropic_answer.PING + translator.finish()


def test_the_client_reads_our_stream() -> None:
    with client(stream(), stream=True) as caller, caller.messages.stream(**ASK) as reading:  # type: ignore[arg-type]
        kinds = [event.type for event in reading]
        message = reading.get_final_message()
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"
    Message.model_validate(message.model_dump(mode="json"))
    assert [block.type for block in message.content] == ["text", "tool_use", "tool_use"]
    first, second, third = message.content
    assert first.type == "text"
    assert first.text == "let me loök"
    assert second.type == "tool_use"
    assert (second.id, second.name, second.input) == ("toolu_1", "look", {"at": "x"})
    assert third.type == "tool_use"
    assert third.input == {}
    assert (message.stop_reason, message.model, message.id) == ("tool_use", "served", "msg_1")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (7, 4)
    assert message.usage.cache_read_input_tokens == 3


def test_the_client_reads_a_whole_message() -> None:
    call = openai.AnswerToolCall(
        id="toolu_1", function=openai.FunctionCall(name="look", arguments='{"at": [1, 2.50]}')
    )
    completion = openai.Completion(
        id="chatcmpl-1",
        created=1,
        model="served",
        choices=(
            openai.Choice(
                index=0,
                message=openai.AnswerMessage(content="hi", tool_calls=(call,)),
                finish_reason="tool_calls",
            ),
        ),
        usage=openai.Usage.counted(2, 3),
    )
    data = anthropic_openai.translate_answer(
        openai.encode_completion(completion), message_id="msg_1"
    )
    Message.model_validate_json(data, strict=True)
    with client(data) as caller:
        message = caller.messages.create(**ASK)  # type: ignore[call-overload]
    assert message.content[1].input == {"at": [1, 2.5]}
    assert message.usage.input_tokens == 2


def test_a_stream_that_ends_in_error_raises() -> None:
    described = errors.describe(TruncatedError("the answer stopped half-way"))
    start = stream().partition(b"event: content_block_stop")[0]
    data = start + errors.anthropic_event(described, "ans_1")
    with client(data, stream=True) as caller:
        reading = caller.messages.create(**ASK, stream=True)  # type: ignore[call-overload]
        with pytest.raises(anthropic.APIStatusError) as caught:
            list(reading)
    assert caught.value.error_code == "upstream_truncated"
    assert caught.value.type == "api_error"


@pytest.mark.parametrize(
    ("error", "kind", "name"),
    [
        (
            RequestError("top_k: no", code="unsupported_parameter", param="top_k"),
            anthropic.BadRequestError,
            "invalid_request_error",
        ),
        (
            RequestError("no key", code="bad_api_key", status=401),
            anthropic.AuthenticationError,
            "authentication_error",
        ),
        (
            RequestError("no model", code="model_not_found", status=404),
            anthropic.NotFoundError,
            "not_found_error",
        ),
        (OverloadedError("full"), anthropic.OverloadedError, "overloaded_error"),
        (RuntimeError("a secret"), anthropic.InternalServerError, "api_error"),
    ],
)
def test_the_client_raises_our_errors(
    error: Exception, kind: type[anthropic.APIStatusError], name: str
) -> None:
    described = errors.describe(error)
    body = errors.anthropic_body(described, "ans_1")
    with (
        client(body, status=errors.anthropic_status(described)) as caller,
        pytest.raises(kind) as caught,
    ):
        caller.messages.create(**ASK)  # type: ignore[call-overload]
    assert caught.value.type == name
    assert caught.value.error_code == described.code
    assert "secret" not in str(caught.value)


def test_every_documented_field_is_known() -> None:
    from anthropic.types.message_create_params import (
        MessageCreateParamsNonStreaming,
        MessageCreateParamsStreaming,
    )

    documented = set(MessageCreateParamsNonStreaming.__annotations__)
    documented |= set(MessageCreateParamsStreaming.__annotations__)
    # The client sends the workspace as a header.
    assert documented - {"workspace_id"} <= anthropic_messages.FIELDS


def test_the_client_lists_our_models() -> None:
    entry = models.ModelEntry(id="m", created_s=5, owned_by="alpha.example", context_tokens=8)
    ModelInfo.model_validate_json(models.anthropic_model(entry))
    with client(models.anthropic_list([entry])) as caller:
        (model,) = list(caller.models.list())
    assert (model.id, model.max_input_tokens) == ("m", 8)
    assert model.created_at.timestamp() == 5
    with client(models.anthropic_list([])) as caller:
        assert list(caller.models.list()) == []
