"""An answer whose provider never says what it took: charged by what was asked and what came."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.support.fault_matrix import Cell, Fault, network
from tests.support.upstream import PARTS, PROMPT_TOKENS, WORDS, Exchange
from tests.support.upstream_faults import no_usage

PRICE_NUSD = 1_000
"""Of each token, of prompt and answer alike."""
ROUTING = f"""
[prices."{{model}}"]
input = "{PRICE_NUSD / 1000}"
output = "{PRICE_NUSD / 1000}"
"""
MOST = 4_096


def charges(data: Path) -> list[tuple[int, int, int, int]]:
    """Of each answer: what it cost, its tokens, and whether they were estimated."""
    query = "SELECT nusd, prompt, completion, estimated FROM charges"
    with closing(sqlite3.connect(data / "evidence.db")) as connection:
        return connection.execute(query).fetchall()


async def ask(folder: Path, way: str, act: Any) -> tuple[int, int, int, int]:
    """Ask once; the charge, and what the gateway counted of it."""
    of = Cell(Fault("usage", act, ("after",)), "after", way, "text")
    (folder / "routing.toml").write_text(ROUTING.format(model=of.model))
    async with network(folder, [of], {}, folder / "routing.toml") as stack:
        asked = {"model": of.model, "messages": [{"role": "user", "content": of.script}]}
        body = json.dumps(asked | {"stream": way == "stream", "max_tokens": MOST}).encode()
        reply = await stack.http.post("/v1/chat/completions", body)
        assert reply.status == 200
        spending = (await stack.http.get("/trunkline/v1/keys")).json()["spending"]
    (charge,) = charges(folder / "gateway")
    assert spending["charged_nusd"] == charge[0]
    assert spending["estimated"] == charge[3]
    return charge


@pytest.mark.parametrize("way", ["stream", "whole"])
async def test_what_nobody_counted_is_estimated_and_says_so(tmp_path: Path, way: str) -> None:
    nusd, prompt, completion, estimated = await ask(tmp_path, way, no_usage)
    text = "".join(PARTS["text"])
    assert estimated == 1
    assert completion == -(-len(text.encode()) // 4)
    assert 1 <= prompt <= 200
    assert nusd == PRICE_NUSD * (prompt + completion)


async def test_what_was_said_is_charged_as_it_was_said(tmp_path: Path) -> None:
    said = await ask(tmp_path, "stream", Exchange.healthy)
    tokens = PROMPT_TOKENS + len(WORDS)
    assert said == (PRICE_NUSD * tokens, PROMPT_TOKENS, len(WORDS), 0)
