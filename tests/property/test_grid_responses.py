"""Responses: a stream says what the whole answer says, and any bytes are read or refused."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from trunkline.base.errors import MalformedError, RequestError
from trunkline.schema import errors, openai_responses, sse
from trunkline.schema import openai_answer as chat
from trunkline.schema.grid import responses_openai
from trunkline.schema.openai_responses_answer import Echo

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
PIECES = st.lists(TEXT.filter(bool), max_size=4)
CALLS = st.lists(st.tuples(st.sampled_from(["f", "g"]), PIECES), max_size=3)
FINISH = st.sampled_from(["stop", "length", "tool_calls", "content_filter"])
USAGE = chat.Usage.counted(3, 5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
ITEM = st.fixed_dictionaries(
    {"type": st.sampled_from(["message", "function_call", "function_call_output", "reasoning"])},
    optional={
        "role": st.sampled_from(["user", "assistant", "system"]),
        "content": TEXT | st.lists(st.fixed_dictionaries({"type": TEXT}, optional={"text": TEXT})),
        "call_id": TEXT, "name": TEXT, "arguments": TEXT, "output": TEXT | JSON, "summary": JSON,
    },
)  # fmt: skip
MEMBERS = st.fixed_dictionaries(
    {"model": TEXT, "input": TEXT | st.lists(ITEM | JSON, max_size=4)},
    optional={
        "tools": st.lists(JSON, max_size=2), "tool_choice": JSON, "text": JSON, "include": JSON,
        "reasoning": JSON, "instructions": TEXT, "stream": st.booleans(), "store": st.booleans(),
    },
)  # fmt: skip


def chunks(
    thought: list[str], said: list[str], calls: list[tuple[str, list[str]]], finish: Any
) -> list[bytes]:
    writer = chat.ChunkWriter(id="c", created_s=7, model="m", include_usage=True)
    head = {"id": "c", "created": 7, "model": "m"}
    made = [writer.role(0)]
    made += [
        json.dumps(head | {"choices": [{"delta": {"reasoning_content": piece}}]}).encode()
        for piece in thought
    ]
    made += [writer.content(0, piece) for piece in said]
    for number, (name, pieces) in enumerate(calls):
        made.append(writer.tool_call(0, number, id=f"call_{number}", name=name))
        made += [writer.tool_arguments(0, number, piece) for piece in pieces]
    return [*made, writer.finish(0, finish), writer.usage(USAGE)]


def whole(
    thought: list[str], said: list[str], calls: list[tuple[str, list[str]]], finish: str
) -> bytes:
    message = {
        "role": "assistant",
        "content": "".join(said) or None,
        "reasoning_content": "".join(thought) or None,
        "tool_calls": [
            {"id": f"call_{number}", "type": "function",
             "function": {"name": name, "arguments": "".join(pieces)}}
            for number, (name, pieces) in enumerate(calls)
        ],
    }  # fmt: skip
    usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return json.dumps(
        {"id": "c", "created": 7, "model": "m", "choices": [choice], "usage": usage}
    ).encode()


@given(PIECES, PIECES, CALLS, FINISH)
def test_a_stream_ends_with_the_whole_answer(
    thought: list[str], said: list[str], calls: list[tuple[str, list[str]]], finish: str
) -> None:
    streamed = responses_openai.whole_of(
        chunks(thought, said, calls, finish), response_id="resp_1", told=Echo()
    )
    answer = whole(thought, said, calls, finish)
    assert streamed == responses_openai.translate_answer(answer, response_id="resp_1", told=Echo())
    # And what was given can be sent back.
    assert len(openai_responses.output_items(streamed)) == len(json.loads(streamed)["output"])


@given(PIECES, PIECES, CALLS, FINISH, st.integers(1, 40))
def test_events_are_numbered_and_say_each_piece_once(
    thought: list[str], said: list[str], calls: list[tuple[str, list[str]]], finish: str, cut: int
) -> None:
    """Whole, or cut short and failed: what was shown of the text is what came of it."""
    translate = responses_openai.StreamTranslator(response_id="resp_1", told=Echo())
    given_ = chunks(thought, said, calls, finish)
    data = b"".join([translate.feed(chunk) for chunk in given_[:cut]])
    if cut >= len(given_):
        data += translate.finish()
    else:
        data += translate.fail(errors.Described(status=502, code="x", message="y"))
    found = [json.loads(event.data or b"") for event in sse.SseParser().feed(data)]
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    deltas = [e["delta"] for e in found if e["type"] == "response.output_text.delta"]
    came = max(0, min(cut, len(given_)) - 1 - len(thought))
    assert deltas == said[:came]
    ends = {"response.completed", "response.incomplete"} & {event["type"] for event in found}
    assert bool(ends) == (cut >= len(given_))


@given(MEMBERS)
def test_any_members_are_read_or_refused(members: dict[str, Any]) -> None:
    raw = json.dumps(members).encode()
    try:
        view = openai_responses.parse(raw)
        json.loads(responses_openai.to_openai(view))
        responses_openai.echo(view)
    except RequestError as error:
        assert error.error_code in {
            "invalid_value", "invalid_type", "invalid_json", "missing_required_parameter",
            "unsupported_parameter", "too_deep",
        }  # fmt: skip


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_chunk_is_read_or_malformed(data: bytes) -> None:
    translate = responses_openai.StreamTranslator(response_id="resp_1", told=Echo())
    try:
        translate.feed(data)
        translate.finish()
    except MalformedError as error:
        assert error.error_code in {"bad_chunk", "bad_completion", "error_in_stream"}
