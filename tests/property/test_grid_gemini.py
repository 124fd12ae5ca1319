"""OpenAI to Gemini loses nothing that can be said; streams do not depend on cuts."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from trunkline.base.errors import MalformedError, RequestError, TruncatedError, UpstreamError
from trunkline.schema import openai_answer, sse
from trunkline.schema.grid import openai_gemini

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SAYS = TEXT.filter(bool)
NAME = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_-]{0,7}", fullmatch=True)
INPUT = st.dictionaries(TEXT, st.none() | st.booleans() | st.integers() | TEXT, max_size=3)


def part(kind: str, **fields: Any) -> Any:
    return st.fixed_dictionaries({"type": st.just(kind), **fields})


SAID = part("text", text=SAYS)
IMAGE = part("image_url", image_url=st.just({"url": "data:image/png;base64,AAAA"}))
AUDIO = part("input_audio", input_audio=st.just({"data": "BBBB", "format": "mp3"}))
FILE = part("file", file=st.just({"file_data": "data:application/pdf;base64,JVBE"}))


def calls_and_results(made: list[tuple[str, str, Any, str, bool]]) -> list[dict[str, Any]]:
    """An assistant's calls, and what each came to."""
    calls = [
        {
            "id": call_id,
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(value)},
        }
        for call_id, name, value, _, _ in made
    ]
    results = [
        {"role": "tool", "tool_call_id": call_id, "content": said, "is_error": failed}
        for call_id, _, _, said, failed in made
    ]
    return [{"role": "assistant", "content": None, "tool_calls": calls}, *results]


USER = st.fixed_dictionaries(
    {
        "role": st.just("user"),
        "content": st.lists(SAID | IMAGE | AUDIO | FILE, min_size=1, max_size=3),
    }
)
ASSISTANT = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": st.lists(SAID, min_size=1, max_size=2)}
)
SYSTEM = st.fixed_dictionaries(
    {"role": st.just("system"), "content": st.lists(SAID, min_size=1, max_size=2)}
)
CALLS = st.lists(
    st.tuples(NAME, NAME, INPUT, TEXT, st.booleans()),
    min_size=1,
    max_size=2,
    unique_by=lambda made: made[0],
).map(calls_and_results)
TURN = USER.map(lambda said: [said]) | ASSISTANT.map(lambda said: [said]) | CALLS
OPTIONS: dict[str, tuple[str, Any]] = {
    "temperature": ("temperature", st.floats(0, 2)),
    "top_p": ("topP", st.floats(0, 1)),
    "top_k": ("topK", st.integers(1, 100)),
    "seed": ("seed", st.integers(-(2**31) + 1, 2**31 - 1)),
    "frequency_penalty": ("frequencyPenalty", st.floats(-2, 2)),
    "presence_penalty": ("presencePenalty", st.floats(-2, 2)),
    "max_tokens": ("maxOutputTokens", st.integers(1, 1000)),
    "n": ("candidateCount", st.integers(2, 8)),
    "stop": ("stopSequences", st.lists(SAYS, min_size=1, max_size=4)),
}
REQUEST: Any = st.fixed_dictionaries(
    {
        "model": NAME,
        "messages": st.tuples(st.lists(SYSTEM, max_size=1), st.lists(TURN, max_size=3), USER).map(
            lambda groups: [*groups[0], *[m for t in groups[1] for m in t], groups[2]]
        ),
    },
    optional={name: values for name, (_, values) in OPTIONS.items()},
)


def said_by_openai(request: dict[str, Any]) -> list[tuple[str, Any]]:
    """Every part with its role, in order."""
    names: dict[str, str] = {}
    said: list[tuple[str, Any]] = []
    for message in request["messages"]:
        if message["role"] == "tool":
            call = message["tool_call_id"]
            said.append(("result", (call, names[call], message["content"], message["is_error"])))
            continue
        said += [
            (message["role"], item if item["type"] == "text" else item[item["type"]])
            for item in message["content"] or ()
        ]
        for call in message.get("tool_calls", ()):
            function = call["function"]
            names[call["id"]] = function["name"]
            said.append(("call", (call["id"], function["name"], json.loads(function["arguments"]))))
    return said


def said_by_gemini(body: dict[str, Any]) -> list[tuple[str, Any]]:
    """The same, read back from the translation."""
    system = body.get("systemInstruction", {}).get("parts", ())
    said: list[tuple[str, Any]] = [("system", back(item)) for item in system]
    for content in body["contents"]:
        role = {"user": "user", "model": "assistant"}[content["role"]]
        for item in content["parts"]:
            if "functionCall" in item:
                call = item["functionCall"]
                said.append(("call", (call["id"], call["name"], call["args"])))
            elif "functionResponse" in item:
                result = item["functionResponse"]
                ((key, value),) = result["response"].items()
                said.append(("result", (result["id"], result["name"], value, key == "error")))
            else:
                said.append((role, back(item)))
    return said


def back(item: dict[str, Any]) -> dict[str, Any]:
    if "text" in item:
        return {"type": "text", "text": item["text"]}
    blob = item["inlineData"]
    kind, _, form = blob["mimeType"].partition("/")
    if kind == "audio":
        return {"data": blob["data"], "format": form}
    url = f"data:{blob['mimeType']};base64,{blob['data']}"
    return {"url": url} if kind == "image" else {"file_data": url}


@given(REQUEST)
def test_a_request_loses_nothing(request: dict[str, Any]) -> None:
    made = openai_gemini.translate_request(json.dumps(request).encode())
    body = json.loads(made.body)
    assert made.model == request["model"]
    assert said_by_gemini(body) == said_by_openai(request)
    assert body.get("generationConfig", {}) == {
        renamed: request[name] for name, (renamed, _) in OPTIONS.items() if name in request
    }


@given(
    st.binary(max_size=40)
    | REQUEST.map(lambda r: json.dumps({**r, "messages": [r]}).encode())
    | REQUEST.map(lambda r: json.dumps({**r, "logit_bias": {"1": 1}}).encode())
)
def test_any_bytes_are_translated_or_refused(raw: bytes) -> None:
    try:
        openai_gemini.translate_request(raw)
    except RequestError as error:
        assert error.error_code


PART = st.one_of(
    SAYS.map(lambda text: {"text": text}),
    SAYS.map(lambda text: {"text": text, "thought": True}),
    st.builds(
        lambda name, value, more: {"functionCall": {"name": name, "args": value} | more},
        NAME,
        INPUT,
        st.just({}) | st.fixed_dictionaries({"id": NAME}),
    ),
)
PARTS = st.lists(PART, max_size=4)
ANSWER: Any = st.fixed_dictionaries(
    {
        "candidates": st.lists(
            st.tuples(PARTS, st.sampled_from(["STOP", "MAX_TOKENS", "SAFETY"])),
            min_size=1,
            max_size=2,
        ),
        "usage": st.fixed_dictionaries(
            {"promptTokenCount": st.integers(0, 99), "candidatesTokenCount": st.integers(0, 99)},
            optional={
                "thoughtsTokenCount": st.integers(0, 9),
                "cachedContentTokenCount": st.integers(0, 9),
            },
        ),
    }
)
HEAD = {"responseId": "r1", "modelVersion": "gemini-x"}


def candidate(index: int, parts: list[Any], finish: str | None) -> dict[str, Any]:
    made: dict[str, Any] = {"index": index, "content": {"parts": parts, "role": "model"}}
    return made if finish is None else made | {"finishReason": finish}


def whole(answer: dict[str, Any]) -> dict[str, Any]:
    made = [candidate(i, parts, f) for i, (parts, f) in enumerate(answer["candidates"])]
    return HEAD | {"candidates": made, "usageMetadata": answer["usage"]}


def events(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The answer as Gemini streams it: a part an event, and an end of each candidate."""
    made = []
    for index, (parts, finish) in enumerate(answer["candidates"]):
        made += [HEAD | {"candidates": [candidate(index, [item], None)]} for item in parts]
        end: dict[str, Any] = HEAD | {"candidates": [candidate(index, [], finish)]}
        made.append(end | {"usageMetadata": answer["usage"]})
    return made


def wire(answer: dict[str, Any]) -> bytes:
    return b"".join(b"data: %b\r\n\r\n" % json.dumps(event).encode() for event in events(answer))


def translator(answer: dict[str, Any]) -> openai_gemini.StreamTranslator:
    return openai_gemini.StreamTranslator(
        created_s=7, choices=len(answer["candidates"]), include_usage=True
    )


def chunks(answer: dict[str, Any], parts: list[bytes]) -> list[bytes]:
    parser, made = sse.SseParser(), translator(answer)
    told = [
        chunk
        for piece in parts
        for event in parser.feed(piece)
        for chunk in made.feed(event.data or b"")
    ]
    return told + made.finish()


@given(ANSWER)
def test_a_stream_says_what_the_whole_answer_says(answer: dict[str, Any]) -> None:
    expected = json.loads(
        openai_gemini.translate_answer(
            json.dumps(whole(answer)).encode(), created_s=7, choices=len(answer["candidates"])
        )
    )
    (*told, last) = [json.loads(chunk) for chunk in chunks(answer, [wire(answer)])]
    assert last["usage"] == expected["usage"]
    for choice in expected["choices"]:
        mine = [c["choices"][0] for c in told if c["choices"][0]["index"] == choice["index"]]
        message = choice["message"]
        text = "".join(c["delta"].get("content", "") for c in mine)
        assert text == (message["content"] or "")
        made = [call for c in mine for call in c["delta"].get("tool_calls", ())]
        assert [call.pop("index") for call in made] == list(range(len(made)))
        assert made == message.get("tool_calls", [])
        assert [c["finish_reason"] for c in mine if c["finish_reason"]] == [choice["finish_reason"]]


@given(ANSWER, st.data())
def test_cuts_change_nothing(answer: dict[str, Any], data: st.DataObject) -> None:
    stream = wire(answer)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    parts = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert chunks(answer, parts) == chunks(answer, [stream])


@given(ANSWER, st.data())
def test_a_shortened_stream_is_no_answer(answer: dict[str, Any], data: st.DataObject) -> None:
    told = events(answer)
    made = translator(answer)
    for event in told[: data.draw(st.integers(0, len(told) - 1))]:
        made.feed(json.dumps(event).encode())
    try:
        made.finish()
    except TruncatedError as error:
        assert error.retryable
    else:
        raise AssertionError("a shortened stream was taken for a whole one")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
EVENT = st.dictionaries(
    st.sampled_from(["candidates", "promptFeedback", "usageMetadata", "responseId", "error"]),
    JSON
    | st.lists(
        st.dictionaries(
            st.sampled_from(["index", "content", "finishReason", "logprobsResult"]),
            JSON | st.fixed_dictionaries({"parts": st.lists(PART, max_size=2)}),
            max_size=3,
        ),
        max_size=2,
    ),
    max_size=3,
).map(lambda event: json.dumps(event).encode())


@given(ANSWER, st.lists(st.tuples(st.integers(0, 9), st.binary(max_size=20) | EVENT), max_size=3))
def test_any_events_give_chunks_or_an_error(
    answer: dict[str, Any], extra: list[tuple[int, bytes]]
) -> None:
    told = [json.dumps(event).encode() for event in events(answer)]
    for position, data in extra:
        told.insert(position, data)
    made = translator(answer)
    try:
        for data in told:
            for chunk in made.feed(data):
                openai_answer.parse_chunk(chunk)
        made.finish()
    except (MalformedError, UpstreamError) as error:
        assert error.error_code


@given(st.binary(max_size=60) | EVENT)
def test_any_bytes_are_an_answer_or_malformed(data: bytes) -> None:
    try:
        openai_answer.parse_completion(openai_gemini.translate_answer(data, created_s=7))
    except MalformedError as error:
        assert error.error_code
