"""The support matrix names every documented field exactly once."""

import re
from pathlib import Path

import pytest

from trunkline.schema import anthropic_messages, openai_chat, openai_embeddings, openai_responses

MATRIX = Path(__file__).parents[3] / "docs" / "support-matrix.md"


def rows(section: str) -> list[tuple[str, str]]:
    """Parameter and treatment of each row of a section's first table."""
    text = MATRIX.read_text(encoding="utf-8").split(f"## `POST {section}`")[1]
    table = text[text.index("| parameter |") :].split("\n\n")[0]
    return re.findall(r"^\| `([a-z_]+)` \| ([a-z]+)", table, re.MULTILINE)


@pytest.mark.parametrize(
    ("section", "fields"),
    [
        ("/v1/chat/completions", openai_chat.FIELDS),
        ("/v1/embeddings", openai_embeddings.FIELDS),
        ("/v1/messages", anthropic_messages.FIELDS),
        ("/v1/responses", openai_responses.FIELDS),
    ],
)
def test_each_field_has_one_row(section: str, fields: frozenset[str]) -> None:
    assert sorted(name for name, _ in rows(section)) == sorted(fields)


def test_hints_and_extensions_are_those_of_the_code() -> None:
    table = rows("/v1/chat/completions")
    assert {name for name, kind in table if kind == "hint"} == openai_chat.HINTS
    assert {name for name, kind in table if kind == "extension"} == openai_chat.EXTENSIONS
    table = rows("/v1/embeddings")
    assert {name for name, kind in table if kind == "hint"} == openai_embeddings.HINTS
