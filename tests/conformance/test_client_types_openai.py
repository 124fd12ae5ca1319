"""What we write in the OpenAI format is what the official client reads; it raises our errors."""

import json
import struct
from collections.abc import AsyncIterator

import httpx2
import openai
import pytest
from openai.types import CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from tests.support.canned import openai_client as client

from trunkline.base.errors import OverloadedError, RequestError, TruncatedError
from trunkline.schema import errors, models, openai_chat, openai_embeddings, sse
from trunkline.schema import openai_answer as answer

TOKEN = answer.TokenLogprob(
    token="h",
    logprob=-0.25,
    bytes=(104,),
    top_logprobs=(answer.TopLogprob(token="h", logprob=-0.25, bytes=(104,)),),
)
HELLO = [{"role": "user", "content": "hello"}]


def chunks() -> list[bytes]:
    writer = answer.ChunkWriter(
        id="chatcmpl-1",
        created_s=1_780_000_000,
        model="m",
        system_fingerprint="fp",
        service_tier="default",
        include_usage=True,
    )
    return [
        writer.role(0),
        writer.content(0, "h", [TOKEN]),
        writer.content(0, "é\u2028\r\n\U0001f600"),
        writer.refusal(0, "no"),
        writer.tool_call(0, 0, id="call_1", name="look"),
        writer.tool_arguments(0, 0, '{"a":1}'),
        writer.finish(0, "tool_calls"),
        writer.finish(1, "stop", stop_reason="###", logprobs=[TOKEN]),
        writer.usage(answer.Usage.counted(3, 4)),
    ]


def completion() -> answer.Completion:
    call = answer.AnswerToolCall(
        id="call_1", function=answer.FunctionCall(name="look", arguments="{}")
    )
    return answer.Completion(
        id="chatcmpl-1",
        created=1,
        model="m",
        choices=(
            answer.Choice(
                index=0,
                message=answer.AnswerMessage(content="hi", tool_calls=(call,)),
                logprobs=answer.Logprobs(content=(TOKEN,)),
                finish_reason="tool_calls",
            ),
            answer.Choice(
                index=1, message=answer.AnswerMessage(content=None), finish_reason="stop"
            ),
        ),
        usage=answer.Usage(
            prompt_tokens=1,
            completion_tokens=2,
            total_tokens=3,
            prompt_tokens_details=answer.PromptTokensDetails(cached_tokens=1),
        ),
        system_fingerprint="fp",
    )


def test_every_chunk_is_valid() -> None:
    for chunk in chunks():
        ChatCompletionChunk.model_validate_json(chunk, strict=True)


def test_the_completion_is_valid() -> None:
    data = answer.encode_completion(completion())
    ChatCompletion.model_validate_json(data, strict=True)
    with client(data) as caller:
        reply = caller.chat.completions.create(model="m", messages=HELLO)  # type: ignore[call-overload]
    assert reply.choices[0].message.tool_calls[0].function.name == "look"
    assert reply.usage.prompt_tokens_details.cached_tokens == 1


def test_the_client_reads_our_stream() -> None:
    data = b"".join([sse.encode(data=chunk) for chunk in chunks()]) + sse.DONE
    with client(data, stream=True) as caller:
        stream = caller.chat.completions.create(model="m", messages=HELLO, stream=True)  # type: ignore[call-overload]
        got = list(stream)
    assert len(got) == len(chunks())
    text = "".join([c.choices[0].delta.content or "" for c in got[:3]])
    assert text == "hé\u2028\r\n\U0001f600"
    assert got[-1].usage.total_tokens == 7


async def test_the_asynchronous_client_reads_our_stream() -> None:
    data = b"".join([sse.encode(data=chunk) for chunk in chunks()]) + sse.DONE

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 7):
            yield data[start : start + 7]

    def reply(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=pieces())

    async with openai.AsyncOpenAI(
        api_key="test",
        base_url="http://gateway.test/v1",
        http_client=httpx2.AsyncClient(transport=httpx2.MockTransport(reply)),
    ) as caller:
        stream = await caller.chat.completions.create(model="m", messages=HELLO, stream=True)  # type: ignore[call-overload]
        assert len([chunk async for chunk in stream]) == len(chunks())


def test_a_stream_that_ends_in_error_raises() -> None:
    described = errors.describe(TruncatedError("the answer stopped half-way"))
    data = sse.encode(data=chunks()[1]) + errors.openai_event(described)
    got = []
    with client(data, stream=True) as caller:
        stream = caller.chat.completions.create(model="m", messages=HELLO, stream=True)  # type: ignore[call-overload]
        with pytest.raises(openai.APIError) as caught:
            got.extend(stream)
    assert caught.value.code == "upstream_truncated"
    assert caught.value.type == "server_error"
    assert caught.value.message == "the answer stopped half-way"


def test_an_event_with_an_id_and_no_data_breaks_the_client() -> None:
    """Why a gateway relays neither ``id`` nor events without data: keep it from being tried."""
    data = sse.encode(id=0, data=chunks()[1]) + sse.encode(id=1, tokens=[(0, 5)])
    with client(data, stream=True) as caller:
        stream = caller.chat.completions.create(model="m", messages=HELLO, stream=True)  # type: ignore[call-overload]
        with pytest.raises(json.JSONDecodeError):
            list(stream)


def test_comments_between_events_without_ids_are_skipped() -> None:
    data = sse.comment("queued") + sse.encode(data=chunks()[1]) + sse.comment("queued") + sse.DONE
    with client(data, stream=True) as caller:
        stream = caller.chat.completions.create(model="m", messages=HELLO, stream=True)  # type: ignore[call-overload]
        assert len(list(stream)) == 1


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RequestError("n: too many", code="invalid_value", param="n"), openai.BadRequestError),
        (RequestError("no key", code="bad_api_key", status=401), openai.AuthenticationError),
        (RequestError("no such model", code="model_not_found", status=404), openai.NotFoundError),
        (OverloadedError("full"), openai.InternalServerError),
        (RuntimeError("a secret"), openai.InternalServerError),
    ],
)
def test_the_client_raises_our_errors(error: Exception, kind: type[openai.APIStatusError]) -> None:
    described = errors.describe(error)
    with (
        client(errors.openai_body(described), status=described.status) as caller,
        pytest.raises(kind) as caught,
    ):
        caller.chat.completions.create(model="m", messages=HELLO)  # type: ignore[call-overload]
    assert caught.value.code == described.code
    assert caught.value.param == described.param
    assert "secret" not in str(caught.value)


def test_the_client_reads_embeddings_either_way() -> None:
    vector = struct.pack("<3f", 0.1, -1.5, 3e-9)
    for base64 in (False, True):
        data = openai_embeddings.encode_response([vector], model="e", tokens=2, base64=base64)
        if not base64:
            CreateEmbeddingResponse.model_validate_json(data, strict=True)
        with client(data) as caller:
            reply = caller.embeddings.create(model="e", input="x")
        assert struct.pack("<3f", *reply.data[0].embedding) == vector
        assert reply.usage.total_tokens == 2


def test_what_the_client_sends_is_read() -> None:
    sent: list[bytes] = []

    def reply(request: httpx2.Request) -> httpx2.Response:
        sent.append(request.content)
        path = request.url.path
        if path.endswith("embeddings"):
            body = openai_embeddings.encode_response([b""], model="e", tokens=1, base64=True)
        else:
            body = answer.encode_completion(completion())
        return httpx2.Response(200, content=body, headers={"content-type": "application/json"})

    with openai.OpenAI(
        api_key="test",
        base_url="http://gateway.test/v1",
        http_client=httpx2.Client(transport=httpx2.MockTransport(reply)),
    ) as caller:
        caller.embeddings.create(model="e", input=["x", "y"], dimensions=4)
        caller.chat.completions.create(
            model="m",
            messages=[
                {"role": "developer", "content": "d"},
                {"role": "user", "content": [{"type": "text", "text": "u"}]},
                {
                    "role": "assistant",
                    "tool_calls": [
                        {
                            "id": "c",
                            "type": "function",
                            "function": {"name": "look", "arguments": "{}"},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "c", "content": "r"},
            ],
            tools=[{"type": "function", "function": {"name": "look", "parameters": {}}}],
            tool_choice={"type": "function", "function": {"name": "look"}},
            response_format={"type": "json_object"},
            extra_body={"top_k": 4},
        )
    embeddings = openai_embeddings.parse(sent[0])
    assert embeddings.texts == ("x", "y")
    assert embeddings.base64
    chat = openai_chat.parse(sent[1])
    assert chat.unknown == ()
    assert openai_chat.parameters_set(chat) == {
        "tools",
        "tool_choice",
        "response_format",
        "response_format.json_object",
        "top_k",
    }


def test_every_documented_field_is_known() -> None:
    from openai.types.chat.completion_create_params import (
        CompletionCreateParamsNonStreaming,
        CompletionCreateParamsStreaming,
    )
    from openai.types.embedding_create_params import EmbeddingCreateParams

    documented = set(CompletionCreateParamsNonStreaming.__annotations__)
    documented |= set(CompletionCreateParamsStreaming.__annotations__)
    assert documented <= openai_chat.FIELDS
    assert openai_chat.FIELDS - documented == openai_chat.EXTENSIONS
    assert set(EmbeddingCreateParams.__annotations__) <= openai_embeddings.FIELDS


def test_the_client_lists_our_models() -> None:
    entry = models.ModelEntry(id="m", created_s=5, owned_by="alpha.example", context_tokens=8)
    Model.model_validate_json(models.openai_model(entry), strict=True)
    with client(models.openai_list([entry, entry])) as caller:
        assert [model.id for model in caller.models.list()] == ["m", "m"]
