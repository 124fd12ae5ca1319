"""What each token releases, and when a choice ends."""

import pytest
from tests.unit.node.scripted import EOS, PIECES

from trunkline.base.errors import CorruptStateError
from trunkline.inference.textpipe import ChoicePipe, Part, PipeSettings
from trunkline.inference.toolcalls import Call

CALL = '<tool_call>[{"name": "f", "arguments": {"x": 1}}]</tool_call>'


def pipe(**settings: object) -> ChoicePipe:
    given: dict[str, object] = {"tokens_max": 1000, "end_tokens": frozenset({EOS})} | settings
    return ChoicePipe(PipeSettings(**given), PIECES)  # type: ignore[arg-type]


def push_all(target: ChoicePipe, text: str | bytes, *, end: bool = True) -> list[Part]:
    """Push a text a byte at a time; returns what was released, adjacent texts joined."""
    data = text if isinstance(text, bytes) else text.encode()
    released: list[Part] = []
    for token in (*data, *([EOS] if end else ())):
        if target.finish:
            break
        for part in target.push(token):
            if isinstance(part, str) and released and isinstance(released[-1], str):
                released[-1] += part
            else:
                released.append(part)
    return released


def test_a_character_is_released_with_its_last_byte() -> None:
    target = pipe()
    released = [target.push(token) for token in "é😀".encode()]

    assert released == [(), ("é",), (), (), (), ("😀",)]


def test_bytes_that_are_no_text_become_the_replacement_character() -> None:
    assert push_all(pipe(), b"a\xffb") == ["a\ufffdb"]


def test_a_partial_character_at_the_end_is_not_lost() -> None:
    assert push_all(pipe(), b"a\xf0\x9f") == ["a\ufffd"]


def test_the_end_token_has_no_text() -> None:
    target = pipe()

    assert push_all(target, "x") == ["x"]
    assert target.finish == "stop"
    assert target.stop_reason is None
    assert target.tokens == [ord("x"), EOS]


def test_a_stop_string_is_cut_and_named() -> None:
    target = pipe(stops=("END",))

    assert push_all(target, "abc END def") == ["abc "]
    assert (target.finish, target.stop_reason) == ("stop", "END")


def test_text_that_only_begins_a_stop_string_is_held_and_then_released() -> None:
    target = pipe(stops=("END",))
    released = [target.push(token) for token in b"xENx"]

    assert released == [("x",), (), (), ("ENx",)]


def test_the_earliest_stop_string_wins_and_of_two_at_one_place_the_longest() -> None:
    target = pipe(stops=("b", "ab"))

    assert push_all(target, "xab") == ["x"]
    assert target.stop_reason == "ab"


def test_held_text_is_released_when_the_model_ends_its_turn() -> None:
    assert push_all(pipe(stops=("END",)), "xEN") == ["xEN"]


def test_the_length_ends_the_choice_and_releases_what_is_held() -> None:
    target = pipe(tokens_max=3, stops=("END",))

    assert push_all(target, "xENx") == ["xEN"]
    assert target.finish == "length"


def test_an_end_token_at_the_length_is_a_stop() -> None:
    target = pipe(tokens_max=2)
    push_all(target, "x")

    assert target.finish == "stop"


def test_a_call_is_released_whole_and_its_tags_are_not() -> None:
    target = pipe(tools=frozenset({"f"}))

    assert push_all(target, f"Well. {CALL}") == ["Well. ", Call(name="f", arguments='{"x": 1}')]
    assert target.finish == "tool_calls"


def test_text_after_a_call_goes_on() -> None:
    assert push_all(pipe(tools=frozenset({"f"})), f"{CALL} then") == [
        Call(name="f", arguments='{"x": 1}'),
        " then",
    ]


@pytest.mark.parametrize(
    "block",
    [
        "<tool_call>not json</tool_call>",
        "<tool_call>[]</tool_call>",
        '<tool_call>[{"name": "unknown", "arguments": {}}]</tool_call>',
        '<tool_call>[{"name": "f", "arguments": [1]}]</tool_call>',
        '<tool_call>[{"name": "f"}]</tool_call>',
        "<tool_call>[{",
        "<tool_cal",
    ],
)
def test_what_is_no_call_is_text(block: str) -> None:
    target = pipe(tools=frozenset({"f"}))

    assert push_all(target, block) == [block]
    assert target.finish == "stop"


def test_without_tools_a_block_is_text() -> None:
    assert push_all(pipe(), CALL) == [CALL]


def test_one_call_may_be_written_without_a_list() -> None:
    block = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'

    assert push_all(pipe(tools=frozenset({"f"})), block) == [Call(name="f", arguments="{}")]


def test_one_block_ends_the_choice_where_only_one_is_wanted() -> None:
    target = pipe(tools=frozenset({"f"}), one_block=True, calls_max=1)
    block = (
        '<tool_call>[{"name": "f", "arguments": {}}, {"name": "f", "arguments": {}}]</tool_call>'
    )

    assert push_all(target, block, end=False) == [Call(name="f", arguments="{}")]
    assert target.finish == "tool_calls"


@pytest.mark.parametrize("cut", [1, 8, 11, 12, 25])
def test_a_demanded_call_that_is_cut_is_no_text(cut: int) -> None:
    target = pipe(tools=frozenset({"f"}), one_block=True, demanded=True, tokens_max=cut)

    assert push_all(target, CALL[:cut], end=False) == []
    assert target.finish == "length"


@pytest.mark.parametrize("document", ['{"a": "}\\"]"}', "[[1], {}]", '{"é": {}}'])
def test_a_document_ends_the_choice_with_its_last_bracket(document: str) -> None:
    target = pipe(document=True)

    assert push_all(target, document, end=False) == [document]
    assert target.finish == "stop"


def test_a_finished_choice_takes_no_token() -> None:
    target = pipe()
    push_all(target, "x")

    with pytest.raises(CorruptStateError):
        target.push(65)
