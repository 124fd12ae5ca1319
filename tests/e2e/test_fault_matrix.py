"""The fault matrix of design §6, run: the app sees whole answers or explicit errors, nothing else.

``docs/fault-matrix.md`` is what this run found; ``python -m tests.support.fault_matrix`` writes it.
"""

import json
from itertools import product
from pathlib import Path
from typing import Any, get_args

import anthropic
import pytest
from tests.support.fault_matrix import MODEL, PAGE, Cell, Fault, Way, network, render, run, verdict
from tests.support.upstream import PARTS, TOOL, TOOLS, USAGE, Answer, Content
from tests.support.upstream_faults import Break, broken_at, cut


def _may_end_in_error(cell: Cell) -> bool:
    """Only where text is on the app's screen and nobody can be asked to go on after it."""
    shown = cell.phase != "before" or cell.fault.name == "no finish_reason"
    return cell.way == "alone" and shown and not cell.fault.harmless


async def test_every_fault_is_survived_or_said(tmp_path: Path) -> None:
    views, calls = await run(tmp_path)
    wrong = {
        cell.script: view
        for cell, view in views.items()
        if (found := verdict(cell, view)) != "whole"
        and not (found == "error" and _may_end_in_error(cell))
    }
    assert wrong == {}
    for cell, view in views.items():
        # The fault was met; and what was answered well by the first upstream was asked once.
        expected = 1 if cell.fault.harmless or view.error else 2
        if cell.fault.model == MODEL and not cell.fault.severed:
            assert calls[cell.script] == expected, cell.script
        if view.error is not None:
            assert view.error == "answer_interrupted"
            produced = view.body["produced"]
            assert produced["characters"] == len(view.text)
            assert produced["chunks"] > 0
    assert PAGE.read_text() == render(views), "stale: python -m tests.support.fault_matrix"


STRIDE = 53
"""A prime, so that over the frames every place within a frame is hit."""


def _sweep() -> list[Cell]:
    """Answers broken at places all over their bodies."""
    found = []
    contents: tuple[Content, ...] = get_args(Content)
    columns: list[tuple[Way, Content]] = [("alone", "text")]
    columns += [("stream", content) for content in contents]
    columns += [("whole", content) for content in contents]
    for (way, content), how in product(columns, get_args(Break)):
        answer = Answer(content=content, model=MODEL, parts=PARTS[content], finish="stop")
        answer.running = way == "stream"
        body = answer.whole() if way == "whole" else b"".join(answer.frames())
        # To the end of the last event that matters: what follows it can not hurt an answer.
        for at in range(0, len(body) - len(b"data: [DONE]\n\n"), STRIDE):
            # Whatever cuts it after the finish leaves the answer whole, and its tokens uncounted.
            uncounted = how != "garbage"
            fault = Fault(f"{how} at {at}", broken_at(at, how), uncounted=uncounted)
            found.append(Cell(fault, "before", way, content))
    return found


async def test_broken_at_any_byte(tmp_path: Path) -> None:
    views, _ = await run(tmp_path, _sweep())
    told = {cell: verdict(cell, view) for cell, view in views.items()}
    shown = {cell for cell in told if cell.way == "alone"}
    assert [c.script for c in told if c not in shown and told[c] != "whole"] == []
    assert [c.script for c in shown if told[c] not in ("whole", "error")] == []
    assert {told[cell] for cell in shown} == {"whole", "error"}


async def test_the_anthropic_client_sees_the_same(tmp_path: Path) -> None:
    fault = Fault("cut", cut, ("after",))
    text, call = (Cell(fault, "after", "stream", content) for content in ("text", "tool"))
    alone = Cell(fault, "after", "alone", "text")
    schema = TOOLS[0]["function"]
    tools = [{"name": TOOL, "input_schema": schema["parameters"]}]
    async with network(tmp_path, [text, call, alone], {}) as stack:

        async def ask(cell: Cell, **more: Any) -> tuple[str, anthropic.types.Message]:
            seen = ""
            question = {"role": "user", "content": cell.script}
            async with stack.anthropic.messages.stream(
                model=cell.model, max_tokens=64, messages=[question], **more
            ) as stream:
                try:
                    async for part in stream.text_stream:
                        seen += part
                except anthropic.APIStatusError as error:
                    assert isinstance(error.body, dict)
                    details = error.body["error"]["details"]
                    assert details["error_code"] == "answer_interrupted"
                    assert details["produced"]["characters"] == len(seen)
                    raise
                return seen, await stream.get_final_message()

        _, message = await ask(call, tools=tools)
        (block,) = message.content
        assert block.type == "tool_use"
        assert block.input == json.loads("".join(PARTS["tool"]))
        assert message.stop_reason == "tool_use"
        seen, message = await ask(text)
        assert seen == "".join(PARTS["text"])
        assert message.stop_reason == "end_turn"
        assert message.usage.input_tokens == USAGE["prompt_tokens"]
        assert message.usage.output_tokens == USAGE["completion_tokens"]
        with pytest.raises(anthropic.APIStatusError):
            await ask(alone)
