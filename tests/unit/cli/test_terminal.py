"""What is shown on a terminal: a model's text moves no cursor, and reports end in one line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from trunkline.cli.report import EXITS, as_json, show
from trunkline.cli.terminal import harmless
from trunkline.evidence import Report, Step

STEPS = (
    Step(number=1, title="file", result="pass", detail="read"),
    Step(number=2, title="log", result="inconclusive", detail="[bold]no proof[/bold]"),
)


@pytest.mark.parametrize("text", ["plain", "línea\n\ttab", "日本語 👩‍💻 été", "\u00a0"])
def test_text_stays_as_it_is(text: str) -> None:
    assert harmless(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", "\\x1b[2J"), ("a\rb", "a\\rb"), ("\x07", "\\x07"), ("\x9b31m", "\\x9b31m"),
        ("\u202egnp", "\\u202egnp"),
    ],
)  # fmt: skip
def test_what_steers_a_terminal_becomes_visible(text: str, shown: str) -> None:
    assert harmless(text) == shown


@given(st.text())
def test_no_control_character_passes(text: str) -> None:
    shown = harmless(text)

    assert not any(c < " " and c not in "\n\t" for c in shown)
    assert "\x7f" not in shown


@pytest.mark.parametrize(("outcome", "code"), [("pass", 0), ("fail", 1), ("inconclusive", 2)])
def test_each_outcome_has_its_exit_code(outcome: str, code: int) -> None:
    assert {name: value for name, value in EXITS.items() if name == outcome} == {outcome: code}


def test_a_report_shows_every_step_and_interprets_nothing() -> None:
    report = Report(outcome="inconclusive", state="provisional", answer="ans_x", steps=STEPS)
    console = Console(record=True, width=100, file=None, quiet=False)
    with console.capture() as captured:
        show(console, report)

    said = captured.get()
    assert "[bold]no proof[/bold]" in said
    assert "1 passed, 1 inconclusive" in said


def test_json_is_one_line_without_receipts() -> None:
    report = Report(outcome="pass", state="final", answer="ans_x", steps=STEPS)

    assert "\n" not in as_json(report)
    assert "receipts" not in as_json(report)
