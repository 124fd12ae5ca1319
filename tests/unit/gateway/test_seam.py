"""The seam: a text goes on, or it begins again."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.gateway.core.seam import BEGINNING, REPEAT, Seam, SeamError

SHOWN = "It was the best of times, it was the worst"
TEXTS = st.text(alphabet="ab ", max_size=80)


def came(shown: str, *parts: str) -> bool:
    """Whether all of it passes; raises if it begins again."""
    seam = Seam(shown)
    for part in parts:
        seam.take(part)
    return seam.passed


def test_what_goes_on_passes_with_its_first_characters() -> None:
    assert came(SHOWN, " of men")
    assert not came(SHOWN, " of times")
    assert came(SHOWN, "It was, in truth,")


@pytest.mark.parametrize(
    "again",
    [
        SHOWN,
        SHOWN + " of times",
        "times, it was the worst of times",
        " it was the worst",
    ],
)
def test_what_begins_again_does_not(again: str) -> None:
    with pytest.raises(SeamError):
        came(SHOWN, again)
    with pytest.raises(SeamError):
        came(SHOWN, *again)


def test_the_whole_is_never_said_again_however_short() -> None:
    with pytest.raises(SeamError):
        came("It", "It was")


def test_a_long_text_is_known_by_its_beginning() -> None:
    shown = SHOWN + " of times" * 500
    assert not came(shown, shown[: BEGINNING - 1])
    with pytest.raises(SeamError):
        came(shown, shown[:BEGINNING])


def test_a_text_that_repeats_itself_may_go_on_doing_so() -> None:
    line = "All work and no play makes a dull day\n"
    assert came("First: " + line + line, line, "x")
    with pytest.raises(SeamError):
        came("First: " + line, line)


def test_words_come_twice() -> None:
    assert came("a very", " very long text")
    assert came(SHOWN, "the worst, and ")


@given(TEXTS.filter(bool), TEXTS)
def test_the_whole_text_again_is_found_wherever_it_is_cut(shown: str, more: str) -> None:
    with pytest.raises(SeamError):
        came(shown, *(shown + more))


@given(TEXTS.filter(bool), st.integers(min_value=REPEAT), TEXTS)
def test_its_end_again_is_found_unless_it_repeats_itself(shown: str, size: int, more: str) -> None:
    size = min(size, len(shown))
    end = shown[len(shown) - size :]
    if size < REPEAT or shown.endswith(end * 2):
        return
    with pytest.raises(SeamError):
        came(shown, *(end + more))


@given(TEXTS.filter(bool), TEXTS, st.lists(st.integers(0, 80), max_size=5))
def test_the_verdict_does_not_depend_on_where_the_text_is_cut(
    shown: str, text: str, cuts: list[int]
) -> None:
    def verdict(*parts: str) -> str:
        try:
            return "passed" if came(shown, *parts) else "waiting"
        except SeamError:
            return "again"

    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    parts = [text[a:b] for a, b in pairwise(places)]
    assert verdict(*parts) == verdict(*text)


@given(TEXTS.filter(bool), TEXTS)
def test_what_passes_shares_less_than_a_repeat_with_the_end(shown: str, text: str) -> None:
    try:
        came(shown, text)
    except SeamError:
        return
    for size in range(REPEAT, min(len(shown), len(text)) + 1):
        end = shown[-size:]
        assert not text.startswith(end) or shown.endswith(end * 2)
    assert not text.startswith(shown)
