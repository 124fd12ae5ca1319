"""OpenAI to Bedrock and back, over any conversation and any answer: nothing is lost or made up."""

import json
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.support.bedrock import check

from trunkline.base.errors import MalformedError, TruncatedError
from trunkline.schema import openai_answer
from trunkline.schema.grid import openai_bedrock
from trunkline.schema.grid.openai_bedrock_answer import Head

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
NAME = st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True)
ARGUMENTS = st.dictionaries(TEXT, st.integers() | TEXT | st.none(), max_size=3)
HEAD = Head(id="r", model="m", created_s=7)

SYSTEM = st.tuples(st.just("system"), TEXT)
USER = st.tuples(st.just("user"), st.lists(TEXT, min_size=1, max_size=3))
EXCHANGE = st.tuples(st.just("calls"), TEXT, st.lists(st.tuples(NAME, ARGUMENTS, TEXT), max_size=3))
Said = tuple[str, ...]


def conversation(turns: list[tuple[Any, ...]]) -> tuple[list[dict[str, Any]], list[Said]]:
    """Messages of the OpenAI format, and all that they say, in order."""
    messages: list[dict[str, Any]] = []
    said: list[Said] = []
    for number, turn in enumerate(turns):
        if turn[0] == "user":
            parts = [{"type": "text", "text": text} for text in turn[1]]
            messages.append({"role": "user", "content": parts})
            said += [("user", text) for text in turn[1]]
            continue
        _, text, calls = turn
        made = [
            {"id": f"c{number}.{i}", "type": "function",
             "function": {"name": name, "arguments": json.dumps(arguments)}}
            for i, (name, arguments, _) in enumerate(calls)
        ]  # fmt: skip
        asked: dict[str, Any] = {"role": "assistant", "content": text}
        messages.append(asked | ({"tool_calls": made} if made else {}))
        said.append(("assistant", text))
        for call, (name, arguments, _) in zip(made, calls, strict=True):
            said.append(("call", call["id"], name, json.dumps(arguments)))
        for call, (_, _, result) in zip(made, calls, strict=True):
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})
            said.append(("result", call["id"], result))
    return messages, said


def read_back(body: dict[str, Any]) -> list[Said]:
    said: list[Said] = []
    for turn in body["messages"]:
        for block in turn["content"]:
            match block:
                case {"text": text}:
                    said.append((turn["role"], text))
                case {"toolUse": use}:
                    said.append(("call", use["toolUseId"], use["name"], json.dumps(use["input"])))
                case {"toolResult": result}:
                    (told,) = result["content"]
                    said.append(("result", result["toolUseId"], told["text"]))
    return said


@given(st.lists(TEXT, max_size=2), st.lists(USER | EXCHANGE, max_size=6), USER)
def test_a_conversation_loses_nothing(
    system: list[str], turns: list[tuple[Any, ...]], last: tuple[Any, ...]
) -> None:
    messages, said = conversation([("user", ["begin"]), *turns, last])
    prompts = [{"role": "system", "content": text} for text in system]
    raw = json.dumps({"model": "m", "messages": [*prompts, *messages]}).encode()
    made = json.loads(openai_bedrock.translate_request(raw).body)
    check(made, "ConverseRequest")
    assert read_back(made) == said
    assert [block["text"] for block in made.get("system", [])] == system
    roles = [turn["role"] for turn in made["messages"]]
    assert all(one != other for one, other in pairwise(roles))


PIECES = st.lists(TEXT, min_size=1, max_size=3)
BLOCK = st.tuples(st.just("text"), PIECES) | st.tuples(st.just("call"), NAME, ARGUMENTS)


def told(blocks: list[tuple[Any, ...]], cut: int) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = [{"messageStart": {"role": "assistant"}}]
    for index, block in enumerate(blocks):
        if block[0] == "text":
            deltas: list[dict[str, Any]] = [{"text": text} for text in block[1]]
        else:
            use = {"toolUseId": f"t{index}", "name": block[1]}
            start = {"start": {"toolUse": use}, "contentBlockIndex": index}
            events.append({"contentBlockStart": start})
            arguments = json.dumps(block[2])
            deltas = [{"toolUse": {"input": t}} for t in (arguments[:cut], arguments[cut:])]
        events += [
            {"contentBlockDelta": {"delta": delta, "contentBlockIndex": index}} for delta in deltas
        ]
        events.append({"contentBlockStop": {"contentBlockIndex": index}})
    stop = "tool_use" if any(block[0] == "call" for block in blocks) else "end_turn"
    return [*events, {"messageStop": {"stopReason": stop}}]


@given(st.lists(BLOCK, max_size=4), st.integers(0, 9))
def test_stream_and_whole_answer_say_the_same(blocks: list[tuple[Any, ...]], cut: int) -> None:
    made = openai_bedrock.StreamTranslator(HEAD)
    chunks = [
        openai_answer.parse_chunk(data)
        for event in told(blocks, cut)
        for data in made.feed(json.dumps(event).encode())
    ]
    assert made.finish() == []
    deltas = [chunk.choices[0].delta for chunk in chunks]
    text = "".join(delta.content or "" for delta in deltas)
    calls: dict[int, list[str]] = {}
    for delta in deltas:
        for call in delta.tool_calls or ():
            assert call.function is not None
            found = calls.setdefault(call.index, [call.id or "", call.function.name or "", ""])
            found[2] += call.function.arguments or ""
    content = [
        {"text": "".join(block[1])}
        if block[0] == "text"
        else {"toolUse": {"toolUseId": f"t{index}", "name": block[1], "input": block[2]}}
        for index, block in enumerate(blocks)
    ]
    answer = {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": "tool_use" if calls else "end_turn",
    }
    whole = openai_answer.parse_completion(
        openai_bedrock.translate_answer(json.dumps(answer).encode(), HEAD)
    )
    (choice,) = whole.choices
    assert (choice.message.content or "") == text
    assert choice.finish_reason == chunks[-1].choices[0].finish_reason
    wanted = [
        (call.id, call.function.name, json.loads(call.function.arguments))
        for call in choice.message.tool_calls or ()
    ]
    assert wanted == [(i, name, json.loads(arguments)) for i, name, arguments in calls.values()]


@given(st.lists(BLOCK, max_size=3), st.data())
def test_a_shortened_stream_is_no_answer(
    blocks: list[tuple[Any, ...]], data: st.DataObject
) -> None:
    events = told(blocks, 1)
    made = openai_bedrock.StreamTranslator(HEAD)
    for event in events[: data.draw(st.integers(0, len(events) - 1))]:
        made.feed(json.dumps(event).encode())
    try:
        made.finish()
    except TruncatedError as error:
        assert error.retryable
    else:
        raise AssertionError("a shortened stream was taken for a whole one")


@given(st.lists(BLOCK, max_size=2), st.lists(st.binary(max_size=30), max_size=3))
def test_any_bytes_give_chunks_or_an_error(
    blocks: list[tuple[Any, ...]], extra: list[bytes]
) -> None:
    made = openai_bedrock.StreamTranslator(HEAD)
    try:
        for data in (*(json.dumps(event).encode() for event in told(blocks, 2)), *extra):
            for chunk in made.feed(data):
                openai_answer.parse_chunk(chunk)
        made.finish()
    except (MalformedError, TruncatedError) as error:
        assert error.error_code
