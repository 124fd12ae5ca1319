"""Money is read exactly or refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.base.errors import MalformedError
from trunkline.base.money import USD_MAX, MicroUsd


@pytest.mark.parametrize(
    ("text", "micro"),
    [("0", 0), ("10", 10_000_000), ("1.25", 1_250_000), ("0.000001", 1), ("0.50", 500_000)],
)
def test_decimal_text_is_read_exactly(text: str, micro: int) -> None:
    assert MicroUsd.parse(text) == micro


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "+1",
        "1.",
        ".5",
        "01",
        "1e3",
        "1,5",
        "$1",
        " 1",
        "0.0000001",
        "nan",
        "１",
        "9" * 11,
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        MicroUsd.parse(text)


def test_an_absurd_amount_is_refused() -> None:
    assert MicroUsd.parse(str(USD_MAX)) == USD_MAX * 1_000_000
    with pytest.raises(MalformedError, match="at most"):
        MicroUsd.parse(str(USD_MAX + 1))


@given(st.integers(min_value=0, max_value=USD_MAX * 1_000_000))
def test_what_is_written_reads_back(micro: int) -> None:
    assert MicroUsd.parse(MicroUsd(micro).text()) == micro
