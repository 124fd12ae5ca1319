"""OpenAI to Anthropic and back loses nothing that can be said; streams do not depend on cuts."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from trunkline.base.errors import MalformedError, RequestError, TruncatedError, UpstreamError
from trunkline.schema import openai_answer, openai_chat, sse
from trunkline.schema.grid import anthropic_openai, openai_anthropic

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SAYS = TEXT.filter(bool)
NAME = st.from_regex(r"[a-zA-Z0-9_-]{1,8}", fullmatch=True)
INPUT = st.dictionaries(TEXT, st.none() | st.booleans() | st.integers() | TEXT, max_size=3)


def part(kind: str, **fields: Any) -> Any:
    return st.fixed_dictionaries({"type": st.just(kind), **fields})


SAID = part("text", text=SAYS)
DATA = st.sampled_from(["data:image/png;base64,AAAA", "https://a.example/b.png"])
IMAGE = part("image_url", image_url=st.fixed_dictionaries({"url": DATA}))
FILE = part(
    "file",
    file=st.fixed_dictionaries(
        {"file_data": st.just("data:application/pdf;base64,JVBE"), "filename": TEXT}
    ),
)
CALL = st.fixed_dictionaries(
    {
        "id": NAME,
        "type": st.just("function"),
        "function": st.fixed_dictionaries({"name": NAME, "arguments": INPUT.map(json.dumps)}),
    }
)


def message(role: str, content: Any, **fields: Any) -> Any:
    return st.fixed_dictionaries({"role": st.just(role), "content": content, **fields})


USER = message("user", st.lists(SAID | IMAGE | FILE, min_size=1, max_size=3))
ASSISTANT = message("assistant", st.lists(SAID, min_size=1, max_size=2)) | message(
    "assistant",
    st.none() | st.lists(SAID, min_size=1, max_size=2),
    tool_calls=st.lists(CALL, min_size=1, max_size=2),
)
RESULT = message("tool", st.lists(SAID, min_size=1, max_size=2), tool_call_id=NAME)
SYSTEM = message("system", st.lists(SAID, min_size=1, max_size=2))
TOOL: Any = st.fixed_dictionaries(
    {"name": NAME, "parameters": INPUT.map(lambda i: {"type": "object"} | i)},
    optional={"description": TEXT, "strict": st.booleans()},
).map(lambda function: {"type": "function", "function": function})
REQUEST: Any = st.fixed_dictionaries(
    {
        "model": NAME,
        "max_completion_tokens": st.integers(1, 1000),
        "messages": st.tuples(
            st.lists(SYSTEM, max_size=1),
            st.lists(USER | ASSISTANT | RESULT, max_size=4),
            USER,
        ).map(lambda groups: [*groups[0], *groups[1], groups[2]]),
    },
    optional={
        "temperature": st.floats(0, 1),
        "top_p": st.floats(0, 1),
        "top_k": st.integers(1, 100),
        "stop": st.lists(SAYS.filter(str.strip), min_size=1, max_size=4),
        "tools": st.lists(
            TOOL, min_size=1, max_size=3, unique_by=lambda tool: tool["function"]["name"]
        ),
        "user": SAYS,
        "service_tier": st.just("default"),
        "reasoning_effort": st.sampled_from(["low", "medium", "high", "xhigh", "max"]),
    },
)


@given(REQUEST)
def test_there_and_back_loses_nothing(request: dict[str, Any]) -> None:
    raw = openai_anthropic.translate_request(json.dumps(request).encode())
    got = json.loads(anthropic_openai.translate_request(raw))
    assert got == request | {"messages": [restored(m) for m in request["messages"]]}


def restored(said: dict[str, Any]) -> dict[str, Any]:
    """The message as it comes back: content that says nothing is null."""
    return {"content": None} | said


@given(
    st.binary(max_size=40)
    | REQUEST.map(lambda r: json.dumps({**r, "messages": [r]}).encode())
    | REQUEST.map(lambda r: json.dumps({**r, "seed": 1}).encode())
)
def test_any_bytes_are_translated_or_refused(raw: bytes) -> None:
    try:
        openai_anthropic.translate_request(raw)
    except RequestError as error:
        assert error.error_code


BLOCK = st.one_of(
    SAYS.map(lambda text: {"type": "text", "text": text}),
    SAYS.map(lambda text: {"type": "thinking", "thinking": text, "signature": "s"}),
    st.builds(
        lambda call_id, name, value: {
            "type": "tool_use",
            "id": call_id,
            "name": name,
            "input": value,
        },
        NAME,
        NAME,
        INPUT,
    ),
)
MESSAGE: Any = st.fixed_dictionaries(
    {
        "id": NAME,
        "type": st.just("message"),
        "role": st.just("assistant"),
        "model": NAME,
        "content": st.lists(BLOCK, max_size=4),
        "stop_reason": st.sampled_from(["end_turn", "max_tokens", "tool_use", "refusal"])
        | st.just("stop_sequence"),
        "stop_sequence": SAYS,
        "usage": st.fixed_dictionaries(
            {"input_tokens": st.integers(0, 99), "output_tokens": st.integers(0, 99)},
            optional={
                "cache_read_input_tokens": st.integers(0, 9),
                "cache_creation_input_tokens": st.integers(0, 9),
            },
        ),
    }
)


def pieces(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def events(message: dict[str, Any], size: int) -> list[dict[str, Any]]:
    """The message as Anthropic streams it, in pieces of ``size`` characters."""
    start = message | {"content": [], "stop_reason": None, "stop_sequence": None}
    made: list[dict[str, Any]] = [{"type": "message_start", "message": start}, {"type": "ping"}]
    for index, block in enumerate(message["content"]):
        match block["type"]:
            case "text":
                opened, key = {"type": "text", "text": ""}, "text"
                deltas = [("text_delta", piece) for piece in pieces(block["text"], size)]
            case "thinking":
                opened, key = {"type": "thinking", "thinking": "", "signature": ""}, "thinking"
                deltas = [("thinking_delta", piece) for piece in pieces(block["thinking"], size)]
            case _:
                opened, key = block | {"input": {}}, "partial_json"
                deltas = [
                    ("input_json_delta", piece)
                    for piece in pieces(json.dumps(block["input"]), size)
                ]
        made.append({"type": "content_block_start", "index": index, "content_block": opened})
        made += [
            {"type": "content_block_delta", "index": index, "delta": {"type": kind, key: piece}}
            for kind, piece in deltas
        ]
        made.append({"type": "content_block_stop", "index": index})
    delta = {name: message[name] for name in ("stop_reason", "stop_sequence")}
    made.append({"type": "message_delta", "delta": delta, "usage": message["usage"]})
    made.append({"type": "message_stop"})
    return made


def wire(message: dict[str, Any], size: int) -> bytes:
    return b"".join(
        sse.encode(event=event["type"], data=json.dumps(event).encode())
        for event in events(message, size)
    )


def chunks(parts: list[bytes]) -> list[bytes]:
    parser = sse.SseParser()
    translator = openai_anthropic.StreamTranslator(created_s=7, include_usage=True)
    made = [
        chunk
        for piece in parts
        for event in parser.feed(piece)
        for chunk in translator.feed(event.data or b"")
    ]
    return made + translator.finish()


def assembled(made: list[bytes]) -> dict[str, Any]:
    """The answer that a client makes of the chunks."""
    content, finish, stop = "", None, None
    calls: list[dict[str, Any]] = []
    for data in made[:-1]:
        (choice,) = json.loads(data)["choices"]
        content += choice["delta"].get("content", "")
        finish, stop = choice["finish_reason"] or finish, choice.get("stop_reason", stop)
        for call in choice["delta"].get("tool_calls", []):
            if call["index"] == len(calls):
                calls.append({"id": call["id"], "name": call["function"]["name"], "arguments": ""})
            calls[call["index"]]["arguments"] += call["function"]["arguments"]
    usage = json.loads(made[-1])["usage"]
    return {"content": content, "finish": finish, "stop": stop, "usage": usage, "calls": calls}


@given(MESSAGE, st.integers(1, 5))
def test_a_stream_says_what_the_whole_answer_says(message: dict[str, Any], size: int) -> None:
    got = assembled(chunks([wire(message, size)]))
    expected = json.loads(
        openai_anthropic.translate_answer(json.dumps(message).encode(), created_s=7)
    )
    (choice,) = expected["choices"]
    assert got["content"] == (choice["message"]["content"] or "")
    assert (got["finish"], got["usage"]) == (choice["finish_reason"], expected["usage"])
    assert got["stop"] == choice.get("stop_reason")
    made = [
        {"id": call["id"], **call["function"]} for call in choice["message"].get("tool_calls", [])
    ]
    assert [with_value(call) for call in got["calls"]] == [with_value(call) for call in made]


def with_value(call: dict[str, Any]) -> dict[str, Any]:
    return call | {"arguments": json.loads(call["arguments"])}


@given(MESSAGE, st.integers(1, 5), st.data())
def test_cuts_change_nothing(message: dict[str, Any], size: int, data: st.DataObject) -> None:
    stream = wire(message, size)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    parts = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert chunks(parts) == chunks([stream])


@given(MESSAGE, st.integers(1, 5), st.data())
def test_a_shortened_stream_never_finishes(
    message: dict[str, Any], size: int, data: st.DataObject
) -> None:
    stream = wire(message, size)
    length = data.draw(st.integers(0, len(stream) - 1))
    translator = openai_anthropic.StreamTranslator(created_s=7)
    made = [
        chunk
        for event in sse.SseParser().feed(stream[:length])
        for chunk in translator.feed(event.data or b"")
    ]
    for chunk in made:
        assert json.loads(chunk)["choices"][0]["finish_reason"] is None
    try:
        translator.finish()
    except TruncatedError as error:
        assert error.retryable
    else:
        raise AssertionError("a shortened stream was taken for a whole one")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
EVENT = st.fixed_dictionaries(
    {"type": st.sampled_from(["message_start", "content_block_start", "content_block_delta",
                              "content_block_stop", "message_delta", "message_stop", "error"])},
    optional=dict.fromkeys(("index", "message", "content_block", "delta", "usage"), JSON),
).map(lambda event: json.dumps(event).encode())  # fmt: skip


@given(
    MESSAGE.map(lambda m: [json.dumps(event).encode() for event in events(m, 4)]),
    st.lists(st.tuples(st.integers(0, 20), st.binary(max_size=20) | EVENT), max_size=3),
)
def test_any_events_give_chunks_or_an_error(
    made: list[bytes], extra: list[tuple[int, bytes]]
) -> None:
    for position, data in extra:
        made.insert(position, data)
    translator = openai_anthropic.StreamTranslator(created_s=7)
    try:
        for data in made:
            for chunk in translator.feed(data):
                openai_answer.parse_chunk(chunk)
        translator.finish()
    except (MalformedError, UpstreamError) as error:
        assert error.error_code


@given(st.binary(max_size=60) | MESSAGE.map(lambda m: json.dumps(m | {"usage": []}).encode()))
def test_any_bytes_are_an_answer_or_malformed(data: bytes) -> None:
    try:
        openai_answer.parse_completion(openai_anthropic.translate_answer(data, created_s=7))
    except MalformedError as error:
        assert error.error_code


@given(REQUEST)
def test_what_is_translated_was_understood(request: dict[str, Any]) -> None:
    parsed = openai_chat.parse(json.dumps(request).encode())
    asked = openai_chat.parameters_set(parsed)
    assert asked <= openai_anthropic.HONOURED | openai_chat.HINTS
