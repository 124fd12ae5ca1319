"""What a real node's cache gives again, signs and opens is what an audit finds the same."""

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from tests.support.auditing import Toy, ToyScorer, exact
from tests.support.embedding import ToyEmbedder
from tests.unit.audit.test_of_a_node import ToyEngine, asked
from tests.unit.node.harness import KEY, attempt
from tests.unit.node.test_openings import audited, audits, opened, place

from trunkline.audit import embedding, repeated
from trunkline.audit.judge import Case, Judged, judge
from trunkline.audit.replay import measure
from trunkline.node.config import CacheConfig
from trunkline.node.embeddings import MODEL_NAME
from trunkline.receipts import verify_signed
from trunkline.schema.attempt import Attempt

CALIBRATION = exact()


async def second(folder: Path, what: Attempt, log_entry: int = 9) -> Judged:
    """The verdict on the second answer to the same request."""
    async with audited(
        folder, audits(), cache=CacheConfig(), engine=ToyEngine(Toy()), embedder=ToyEmbedder()
    ) as running:
        for number in (1, 2):
            # Another answer, at another time.
            heard = await running.hear(
                msgspec.structs.replace(
                    what,
                    answer=f"ans_{number}",
                    attempt=f"att_{number}",
                    created_s=what.created_s + number,
                    cache="ca" * 32,
                )
            )
            at = await place(running, heard, number)
        (opening,) = await opened(running, at)
    assert opening.signed is not None
    verified = verify_signed(opening.signed, KEY)
    assert repeated.is_repeated(verified.receipt)
    origin = repeated.shown(opening.content, KEY)
    assert origin is not None
    chat = what.kind == "chat"
    made = (origin.receipt, origin.content)
    return judge(
        Case(
            receipt=verified.receipt,
            leaf=verified.leaf,
            key=KEY,
            calibration=CALIBRATION,
            content=opening.content,
            measured=await measure(*made, ToyScorer()) if chat else None,
            remade=None if chat else await embedding.measure(*made, ToyEmbedder()),
            nonces_entry=0,
            origin=replace(origin, logged="yes", entry=log_entry - 1),
            entry=log_entry,
        ),
        None,
    )


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"stream": False},
        {"n": 3, "stream_options": {"include_usage": True}},
        {"stop": ["ba", "e"]},
        {"temperature": 0},
        {"seed": -3},
    ],
    ids=["stream", "whole", "choices", "stops", "greedy", "seed"],
)
async def test_chat(tmp_path: Path, request_: dict[str, object]) -> None:
    judged = await second(tmp_path, asked(**request_))
    assert (judged.kind, judged.result) == ("replay", "pass"), judged.checks


@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_embeddings(tmp_path: Path, encoding: str) -> None:
    body = {"input": ["one text", "another"], "encoding_format": encoding}
    what = attempt(body, kind="embeddings", model=MODEL_NAME)
    what = msgspec.structs.replace(what, audit=True, blinding="5c" * 32)
    judged = await second(tmp_path, what)
    assert (judged.kind, judged.result) == ("embedding", "pass"), judged.checks
