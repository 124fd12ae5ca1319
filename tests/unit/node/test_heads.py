"""An answer is called the same in each of its chunks, whatever its provider calls it."""

import msgspec
import pytest

from trunkline.base.errors import BadResponseError, TruncatedError
from trunkline.node.core.heads import COMPLETION, Heads, filled
from trunkline.node.core.upstream import StreamCheck, check_completion

SAID = {"id": "up", "object": "chat.completion.chunk", "created": 17, "model": "m"}
AZURE = {"id": "", "object": "", "created": 0, "model": "", "choices": []}
USAGE = {"prompt_tokens": 3, "total_tokens": 5}


def chunk(text: str = "snow", counted: int | None = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    usage = {} if counted is None else {"usage": USAGE | {"completion_tokens": counted}}
    return msgspec.json.encode(SAID | {"choices": [choice]} | usage | more)


def heads() -> Heads:
    return Heads("made", 1_780_000_000, "asked")


def read(lines: list[bytes]) -> list[tuple[object, ...]]:
    found = [msgspec.json.decode(line) for line in lines]
    return [tuple(one[name] for name in SAID) for one in found]


def test_a_chunk_that_says_all_of_it_keeps_its_bytes() -> None:
    odd = chunk().replace(b":", b": ")
    assert heads().fit([odd, odd]) == [odd, odd]


def test_what_comes_before_the_first_name_has_it_too() -> None:
    told = heads().fit([msgspec.json.encode(AZURE), chunk()])
    assert read(told) == [tuple(SAID.values())] * 2


@pytest.mark.parametrize("missing", [{"id": ""}, {"id": "other"}, {"created": 99}, {"model": ""}])
def test_it_stays_what_it_was_first(missing: dict[str, object]) -> None:
    follows = heads()
    assert read(follows.fit([chunk()])) == read(follows.fit([chunk(**missing)]))


def test_what_nobody_says_is_filled_in_once() -> None:
    follows = heads()
    bare = msgspec.json.encode({"choices": [{"index": 0, "delta": {"content": "a"}}]})
    first, second = read(follows.fit([bare])), read(follows.fit([chunk()]))
    assert first == second == [("made", "chat.completion.chunk", 1_780_000_000, "asked")]


def test_a_whole_answer_gets_what_it_lacks_and_nothing_else() -> None:
    body = msgspec.json.encode({"id": None, "created": 17, "choices": []})
    told = msgspec.json.decode(filled(body, COMPLETION, id="made", created=1, model="asked"))
    own = {"id": "made", "object": COMPLETION, "created": 17, "model": "asked"}
    assert told == own | {"choices": []}
    whole = msgspec.json.encode(own).replace(b":", b": ")
    assert filled(whole, COMPLETION, id="x", created=1, model="y") == whole


def code_of(chunks: list[bytes], *, running: bool = False) -> str:
    check = StreamCheck(1, running=running)
    with pytest.raises(BadResponseError) as caught:
        for data in chunks:
            check.feed(data)
    return caught.value.error_code


def test_a_count_that_falls_is_of_a_chunk_in_the_wrong_place() -> None:
    again = [chunk("a", 1), chunk("b", 2), chunk("c", 3), chunk("a", 1)]
    assert code_of(again, running=True) == "upstream_bad_chunk"
    swapped = [chunk("a", 1), chunk("c", 3), chunk("b", 2)]
    assert code_of(swapped, running=True) == "upstream_repeated_chunk"


def test_a_count_that_nobody_asked_for_may_fall() -> None:
    check = StreamCheck(1)
    data = [chunk("a", 5), chunk("b", 2)]
    assert [line for one in data for line in check.feed(one)] == data


def test_a_usage_without_a_count_says_nothing_of_the_order() -> None:
    check = StreamCheck(1, running=True)
    data = [chunk("a", 1), chunk("b", usage=USAGE), chunk("c", 3)]
    assert [line for one in data for line in check.feed(one)] == data


def test_a_chunk_of_another_answer_is_found_when_the_own_goes_on() -> None:
    own, other = chunk("a"), chunk("b", id="other")
    assert code_of([own, other, own]) == "upstream_repeated_chunk"


def test_an_id_that_is_new_in_each_chunk_is_a_habit() -> None:
    check = StreamCheck(1)
    data = [chunk(str(number), id=f"id-{number}") for number in range(5)]
    assert [line for one in data for line in check.feed(one)] == data


def test_a_choice_comes_once_in_a_chunk() -> None:
    choice = {"index": 0, "delta": {"content": "a"}}
    assert code_of([chunk(choices=[choice, choice])]) == "upstream_bad_chunk"


def ended(texts: str, counted: int) -> None:
    check = StreamCheck(1)
    for text in texts:
        check.feed(chunk(text))
    check.feed(chunk("", choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}]))
    check.feed(chunk(choices=[], usage=USAGE | {"completion_tokens": counted}))
    check.end()


def test_copies_are_as_many_as_there_are_too_many_chunks() -> None:
    with pytest.raises(BadResponseError, match="twice"):
        ended("abbc", 3)
    # Letters of longer tokens, of which two in a row may be alike; and two alike that were counted.
    ended("she feels well", 3)
    ended("abbc", 4)


def test_that_a_tool_was_called_is_no_answer_without_the_call() -> None:
    finish = {"index": 0, "delta": {}, "finish_reason": "tool_calls"}
    check = StreamCheck(1)
    assert check.feed(chunk(choices=[finish])) == []
    with pytest.raises(BadResponseError, match="empty"):
        check.end()
    message = {"index": 0, "message": {"content": ""}, "finish_reason": "tool_calls"}
    with pytest.raises(BadResponseError, match="empty"):
        check_completion(chunk(choices=[message]), 1)


@pytest.mark.parametrize("reason", ["MALFORMED_FUNCTION_CALL", "server_error", "interrupted"])
def test_a_finish_that_says_it_failed_is_none(reason: str) -> None:
    finish = {"index": 0, "delta": {"content": "a"}, "finish_reason": reason}
    with pytest.raises(TruncatedError):
        StreamCheck(1).feed(chunk(choices=[finish]))


def test_a_finish_that_the_apps_format_has_no_word_for_is_none_there() -> None:
    finish = {"index": 0, "delta": {"content": "a"}, "finish_reason": "weary"}
    data = chunk(choices=[finish])
    assert StreamCheck(1).feed(data) == [data]
    with pytest.raises(TruncatedError):
        StreamCheck(1, known=True).feed(data)
    whole = chunk(choices=[finish | {"message": {"content": "a"}}])
    assert check_completion(whole, 1).finish == ("weary",)
    with pytest.raises(TruncatedError):
        check_completion(whole, 1, known=True)


def test_a_choice_that_says_nothing_is_no_answer_among_others() -> None:
    said = [{"content": "a"}, {"content": ""}]
    choices = [
        {"index": number, "message": message, "finish_reason": "stop"}
        for number, message in enumerate(said)
    ]
    with pytest.raises(BadResponseError, match="empty"):
        check_completion(chunk(choices=choices), 2)
