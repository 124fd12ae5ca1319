"""Chunks and completions: the bytes that are written, and reading them back."""

import json

import msgspec
import pytest

from trunkline.base.errors import MalformedError
from trunkline.schema import openai_answer as answer


def writer(**more: object) -> answer.ChunkWriter:
    return answer.ChunkWriter(id="chatcmpl-1", created_s=5, model="m", **more)  # type: ignore[arg-type]


def test_a_content_chunk_is_written_byte_for_byte() -> None:
    assert writer().content(0, 'a"\nü') == (
        b'{"id":"chatcmpl-1","object":"chat.completion.chunk","created":5,"model":"m",'
        b'"choices":[{"index":0,"delta":{"content":"a\\"\\n\xc3\xbc"},"finish_reason":null}]}'
    )


def test_usage_is_null_until_the_last_chunk() -> None:
    chunks = writer(include_usage=True, system_fingerprint="fp", service_tier="default")
    first = json.loads(chunks.role(1))
    assert first["usage"] is None
    assert (first["system_fingerprint"], first["service_tier"]) == ("fp", "default")
    last = json.loads(chunks.usage(answer.Usage.counted(3, 4)))
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def test_what_is_written_is_read() -> None:
    chunks = writer()
    start = answer.parse_chunk(chunks.tool_call(0, 2, id="call_1", name="look"))
    (call,) = start.choices[0].delta.tool_calls or ()
    assert (call.index, call.id, call.function) == (
        2,
        "call_1",
        answer.FunctionDelta(name="look", arguments=""),
    )
    more = answer.parse_chunk(chunks.tool_arguments(0, 2, '{"a'))
    assert (more.choices[0].delta.tool_calls or ())[0].function == answer.FunctionDelta(
        arguments='{"a'
    )
    end = answer.parse_chunk(chunks.finish(0, "stop", stop_reason="###"))
    assert (end.choices[0].finish_reason, end.choices[0].stop_reason) == ("stop", "###")
    assert answer.parse_chunk(chunks.refusal(0, "no")).choices[0].delta.refusal == "no"


def test_logprobs_travel_with_the_text() -> None:
    token = answer.TokenLogprob(
        token="a",
        logprob=answer.logprob(float("-inf")),
        bytes=(97,),
        top_logprobs=(answer.TopLogprob(token="b", logprob=-0.5, bytes=(98,)),),
    )
    chunk = answer.parse_chunk(writer().content(0, "a", [token]))
    sent = msgspec.json.decode(chunk.choices[0].logprobs, type=answer.Logprobs)
    assert sent == answer.Logprobs(content=(token,))
    assert token.logprob == answer.LOGPROB_MIN
    assert answer.logprob(float("nan")) == answer.LOGPROB_MIN


def test_a_completion_says_null_for_what_is_not_there() -> None:
    completion = answer.Completion(
        id="c",
        created=1,
        model="m",
        choices=(
            answer.Choice(
                index=0, message=answer.AnswerMessage(content="hi"), finish_reason="stop"
            ),
        ),
        usage=answer.Usage.counted(1, 2),
    )
    data = answer.encode_completion(completion)
    message = json.loads(data)["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "hi", "refusal": None}
    assert answer.parse_completion(data).choices[0].message.content == "hi"


@pytest.mark.parametrize("data", [b"", b"[DONE]", b'{"choices":1}', b"[" * 5000, b"<html>"])
def test_what_is_no_chunk_is_malformed_and_not_quoted(data: bytes) -> None:
    with pytest.raises(MalformedError) as caught:
        answer.parse_chunk(data)
    assert caught.value.message == "a chunk does not parse"
