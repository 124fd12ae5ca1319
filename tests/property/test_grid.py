"""Translation loses nothing of what it accepts, and a stream says what the whole answer says."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from trunkline.base.errors import MalformedError, RequestError
from trunkline.schema import anthropic_messages, openai_chat, sse
from trunkline.schema import openai_answer as openai
from trunkline.schema.grid import anthropic_openai

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NAME = st.from_regex(r"[a-zA-Z0-9_-]{1,8}", fullmatch=True)
INPUT = st.dictionaries(TEXT, st.none() | st.booleans() | st.integers() | TEXT, max_size=3)


def block(kind: str, **fields: Any) -> Any:
    return st.fixed_dictionaries({"type": st.just(kind), **fields})


SOURCE = block(
    "base64", media_type=st.sampled_from(["image/png", "image/jpeg"]), data=NAME
) | block("url", url=TEXT)
PDF = block("base64", media_type=st.just("application/pdf"), data=NAME)
TEXTS = st.lists(block("text", text=TEXT), min_size=1, max_size=2)
RESULT = block("tool_result", tool_use_id=NAME, content=TEXT | TEXTS, is_error=st.booleans())
SAID = (
    block("text", text=TEXT)
    | block("image", source=SOURCE)
    | block("document", source=PDF, title=TEXT)
)
THOUGHT = block("thinking", thinking=TEXT.filter(bool), signature=st.just("s"))
CALL = block("tool_use", id=NAME, name=NAME, input=INPUT)


def joined(*kinds: Any) -> Any:
    lists = st.tuples(*[st.lists(kind, max_size=2) for kind in kinds])
    return lists.map(lambda groups: [item for group in groups for item in group]).filter(bool)


def turn(role: str, content: Any) -> Any:
    return st.fixed_dictionaries({"role": st.just(role), "content": content})


USER = turn("user", TEXT | joined(RESULT, SAID))
ASSISTANT = turn("assistant", TEXT | joined(THOUGHT, block("text", text=TEXT), CALL))
SYSTEM = turn("system", TEXT | TEXTS)
TOOLS = st.lists(
    st.fixed_dictionaries(
        {"name": NAME, "input_schema": INPUT},
        optional={"description": TEXT, "strict": st.booleans()},
    ),
    max_size=3,
    unique_by=lambda tool: tool["name"],
)
REQUEST = st.fixed_dictionaries(
    {
        "model": NAME,
        "max_tokens": st.integers(1, 1000),
        "messages": st.tuples(st.lists(USER | ASSISTANT | SYSTEM, max_size=4), USER).map(
            lambda pair: [*pair[0], pair[1]]
        ),
    },
    optional={
        "system": TEXT | TEXTS,
        "temperature": st.floats(0, 1),
        "top_p": st.floats(0, 1),
        "top_k": st.integers(0, 100),
        "stop_sequences": st.lists(TEXT.filter(bool), min_size=1, max_size=4),
        "tools": TOOLS.filter(bool),
        "metadata": st.fixed_dictionaries({"user_id": TEXT}),
        "service_tier": st.sampled_from(["auto", "standard_only"]),
        "stream": st.just(True),
    },
)

Turns = list[tuple[str, dict[str, Any]]]


def said_by_anthropic(request: dict[str, Any]) -> Turns:
    """Every block with its role, in order: turns of one role in a row are one turn."""
    turns: Turns = []
    if "system" in request:
        turns += [("system", item) for item in texts(request["system"])]
    for message in request["messages"]:
        content = message["content"]
        blocks = texts(content) if isinstance(content, str) else content
        thoughts = [item["thinking"] for item in blocks if item["type"] == "thinking"]
        if thoughts:
            turns.append((message["role"], {"type": "thinking", "thinking": "".join(thoughts)}))
        for item in blocks:
            if item["type"] == "tool_result":
                item = {**item, "content": texts(item["content"])}
            if item["type"] != "thinking":
                turns.append((message["role"], item))
    return turns


def texts(content: Any) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def said_by_openai(request: dict[str, Any]) -> Turns:
    """The same, read back from the translation."""
    turns: Turns = []
    for message in request["messages"]:
        role, content = message["role"], message["content"]
        if role == "tool":
            result = {
                "type": "tool_result",
                "tool_use_id": message["tool_call_id"],
                "content": texts(content),
                "is_error": message["is_error"],
            }
            turns.append(("user", result))
            continue
        if "reasoning_content" in message:
            turns.append((role, {"type": "thinking", "thinking": message["reasoning_content"]}))
        # Content that holds nothing but calls or thoughts is null or empty there.
        alone = "tool_calls" in message or "reasoning_content" in message
        parts = [] if content is None or (alone and content == "") else texts(content)
        turns += [(role, back(part)) for part in parts]
        for call in message.get("tool_calls", []):
            function = call["function"]
            use = {
                "type": "tool_use",
                "id": call["id"],
                "name": function["name"],
                "input": json.loads(function["arguments"]),
            }
            turns.append((role, use))
    return turns


def back(part: dict[str, Any]) -> dict[str, Any]:
    if part["type"] == "image_url":
        return {"type": "image", "source": source(part["image_url"]["url"])}
    if part["type"] == "file":
        file = part["file"]
        return {"type": "document", "source": source(file["file_data"]), "title": file["filename"]}
    return part


def source(url: str) -> dict[str, Any]:
    head, comma, data = url.partition(";base64,")
    if not comma or not head.startswith("data:"):
        return {"type": "url", "url": url}
    return {"type": "base64", "media_type": head.removeprefix("data:"), "data": data}


@given(REQUEST)
def test_a_request_loses_nothing(request: dict[str, Any]) -> None:
    raw = anthropic_openai.translate_request(json.dumps(request).encode())
    assert openai_chat.parse(raw).unknown == ()
    got = json.loads(raw)
    assert said_by_openai(got) == said_by_anthropic(request)
    assert (got["model"], got["max_completion_tokens"]) == (request["model"], request["max_tokens"])
    for name in ("temperature", "top_p", "top_k", "stream"):
        assert got.get(name) == request.get(name)
    assert got.get("stop") == request.get("stop_sequences")
    assert got.get("user") == request.get("metadata", {}).get("user_id")
    tools = [
        {
            "input_schema" if key == "parameters" else key: value
            for key, value in tool["function"].items()
        }
        for tool in got.get("tools", [])
    ]
    assert tools == request.get("tools", [])


@given(st.binary(max_size=60) | REQUEST.map(lambda r: json.dumps({**r, "messages": [r]}).encode()))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    for parse in (anthropic_messages.parse, anthropic_openai.translate_request):
        try:
            parse(raw)
        except RequestError as error:
            assert error.error_code


ANSWER = st.fixed_dictionaries(
    {
        "content": TEXT,
        "refusal": st.none() | TEXT.filter(bool),
        "calls": st.lists(st.tuples(NAME, NAME, INPUT), max_size=3),
        "finish": st.sampled_from(["stop", "length", "content_filter"]),
        "stop": st.none() | TEXT.filter(bool),
        "prompt": st.integers(0, 99),
        "completion": st.integers(0, 99),
    }
)


def whole(answer: dict[str, Any]) -> bytes:
    calls = tuple(
        openai.AnswerToolCall(
            id=call_id, function=openai.FunctionCall(name=name, arguments=json.dumps(value))
        )
        for call_id, name, value in answer["calls"]
    )
    message = openai.AnswerMessage(
        content=answer["content"] or None, refusal=answer["refusal"], tool_calls=calls
    )
    choice: dict[str, Any] = {"stop_reason": answer["stop"]} if answer["stop"] else {}
    return openai.encode_completion(
        openai.Completion(
            id="c",
            created=1,
            model="m",
            choices=(
                openai.Choice(index=0, message=message, finish_reason=answer["finish"], **choice),
            ),
            usage=openai.Usage.counted(answer["prompt"], answer["completion"]),
        )
    )


def pieces(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def chunks(answer: dict[str, Any], size: int) -> list[bytes]:
    writer = openai.ChunkWriter(id="c", created_s=1, model="m", include_usage=True)
    made = [writer.role(0)]
    made += [writer.content(0, piece) for piece in pieces(answer["content"], size)]
    made += [writer.refusal(0, piece) for piece in pieces(answer["refusal"] or "", size)]
    for number, (call_id, name, value) in enumerate(answer["calls"]):
        made.append(writer.tool_call(0, number, id=call_id, name=name))
        for piece in pieces(json.dumps(value), size):
            made.append(writer.tool_arguments(0, number, piece))
    made.append(writer.finish(0, answer["finish"], stop_reason=answer["stop"]))
    made.append(writer.usage(openai.Usage.counted(answer["prompt"], answer["completion"])))
    return made


def assembled(events: bytes) -> dict[str, Any]:
    """The message that a client makes of a stream; asserts the order that clients rely on."""
    parsed = sse.SseParser().feed(events)
    data = [json.loads(event.data or b"") for event in parsed]
    assert [event.event for event in parsed] == [item["type"] for item in data]
    assert data[-1] == {"type": "message_stop"}
    message: dict[str, Any] = data[0]["message"]
    inputs: dict[int, str] = {}
    open_block: int | None = None
    for item in data[1:-2]:
        index = item["index"]
        if item["type"] == "content_block_start":
            assert (open_block, index) == (None, len(message["content"]))
            message["content"].append(item["content_block"])
            open_block = index
        elif item["type"] == "content_block_stop":
            assert open_block == index
            open_block = None
        elif item["delta"]["type"] == "text_delta":
            assert open_block == index
            message["content"][index]["text"] += item["delta"]["text"]
        else:
            assert open_block == index
            inputs[index] = inputs.get(index, "") + item["delta"]["partial_json"]
    assert open_block is None
    for index, text in inputs.items():
        message["content"][index]["input"] = json.loads(text)
    return message | data[-2]["delta"] | {"usage": data[-2]["usage"]}


@given(ANSWER, st.integers(1, 5))
def test_a_stream_says_what_the_whole_answer_says(answer: dict[str, Any], size: int) -> None:
    translator = anthropic_openai.StreamTranslator(message_id="msg_1")
    events = b"".join(map(translator.feed, chunks(answer, size))) + translator.finish()
    expected = json.loads(anthropic_openai.translate_answer(whole(answer), message_id="msg_1"))
    got = assembled(events)
    # Text and refusal are one block in a stream and two in a whole answer: compare what they say.
    assert spoken(got) == spoken(expected)
    for name in ("id", "model", "stop_reason", "stop_sequence", "usage"):
        assert got[name] == expected[name]


def spoken(message: dict[str, Any]) -> tuple[str, list[Any]]:
    texts_said = [item["text"] for item in message["content"] if item["type"] == "text"]
    return "".join(texts_said), [i for i in message["content"] if i["type"] == "tool_use"]


@given(st.lists(st.binary(max_size=20) | ANSWER.map(lambda a: chunks(a, 3)[-2]), max_size=5))
def test_any_chunks_give_events_or_malformed(data: list[bytes]) -> None:
    translator = anthropic_openai.StreamTranslator(message_id="msg_1")
    try:
        events = b"".join(map(translator.feed, data)) + translator.finish()
    except MalformedError as error:
        assert error.error_code
        return
    assert assembled(events)["stop_reason"] is not None
