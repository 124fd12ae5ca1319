"""Which names an upstream may give the model that it was asked for."""

import pytest

from trunkline.base.errors import BadResponseError
from trunkline.node.core.served import ServedName
from trunkline.node.core.upstream import StreamCheck


@pytest.mark.parametrize(
    ("asked", "served"),
    [
        ("m", "m"),
        ("m", ""),
        ("gpt-4o", "gpt-4o-2024-08-06"),
        ("gpt-3.5-turbo", "gpt-3.5-turbo-0125"),
        ("gemini-2.0-flash", "models/gemini-2.0-flash-001"),
        ("mistral-large-latest", "mistral-large-2411"),
        ("llama-3.1-8b-instruct:free", "meta-llama/Llama-3.1-8B-Instruct"),
        ("claude-sonnet-4@20250514", "claude-sonnet-4-20250514"),
        ("vendor/auto", "whatever-it-chose"),
        ("flash-latest", "quite-another-2.5"),
    ],
)
def test_right_names(asked: str, served: str) -> None:
    name = ServedName([asked])
    name.note(served)
    assert name.name == served


@pytest.mark.parametrize(
    ("asked", "served"),
    [
        ("gpt-4o", "gpt-4o-mini"),
        ("gpt-4", "gpt-4o"),
        ("gpt-4o", "gpt-4"),
        ("llama-3.1-8b", "llama-3.1-70b"),
        ("m", "n"),
        ("2024", "2025"),
    ],
)
def test_other_models(asked: str, served: str) -> None:
    with pytest.raises(BadResponseError) as caught:
        ServedName([asked]).note(served)
    assert caught.value.error_code == "upstream_wrong_model"


def test_an_expected_name_and_anything() -> None:
    ServedName(["m", "other"]).note("other")
    ServedName(["m", "*"]).note("something")
    ServedName([]).note("something")


def test_a_stream_names_one_model() -> None:
    name = ServedName(["*"])
    name.note("a")
    name.note("")
    name.note("a")
    with pytest.raises(BadResponseError):
        name.note("b")


def chunk(text: str, finish: str = "null", usage: int | None = None) -> bytes:
    counted = "null" if usage is None else f'{{"completion_tokens":{usage}}}'
    return (
        f'{{"choices":[{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":{finish}}}],'
        f'"usage":{counted}}}'
    ).encode()


@pytest.mark.parametrize(
    ("texts", "tokens", "good"),
    [
        (("ha", "ha", "ha"), 3, True),
        (("ha", "ha", "ha"), 2, False),
        (("ha", "ha", "ha"), None, True),
        (("ha", "ha", "ha"), 0, True),
        (("a", "b", "c"), 2, True),
    ],
)
def test_a_copy_shows_by_the_token_count(
    texts: tuple[str, ...], tokens: int | None, good: bool
) -> None:
    check = StreamCheck(1)
    for text in texts:
        check.feed(chunk(text))
    check.feed(chunk("", '"stop"', tokens))
    if good:
        assert check.end().finish == ("stop",)
        return
    with pytest.raises(BadResponseError) as caught:
        check.end()
    assert caught.value.error_code == "upstream_repeated_chunk"
