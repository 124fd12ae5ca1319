"""A node with its real model is audited: what it opens is what its model, asked again, chooses."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import msgspec
import pytest
import pytest_asyncio
from tests.support.audit_records import LOG
from tests.unit.node.harness import KEY, NAME, Node, attempt, chat, node
from tests.unit.node.test_openings import Log, audits, opened, place
from tests.unit.node.test_self_test import stated

from trunkline.crypto.encoding import decode_base64
from trunkline.engine.client import EmbeddedEngine, EngineConfig
from trunkline.engine.embeddings import EmbeddedEmbedder, EmbedderConfig
from trunkline.inference.ports import Sampling, Score
from trunkline.node.config import EmbeddedEngine as EngineSettings
from trunkline.node.config import LogTarget, NodeConfig
from trunkline.receipts import decode, open_nonces, verify_nonce
from trunkline.runtime.server import serving
from trunkline.sampling import choice_seed

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "smollm2-135m-instruct"


class Audited(msgspec.Struct, frozen=True):
    node: Node
    engine: EmbeddedEngine
    embedder: EmbeddedEmbedder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def audited(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Audited]:
    folder = tmp_path_factory.mktemp("audited")
    engine = EmbeddedEngine(
        EngineConfig(
            cache_folder=str(folder / "cache"),
            weights="as_shipped",
            sequences=2,
            context_tokens=512,
        )
    )
    embedder = EmbeddedEmbedder(EmbedderConfig())
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serving(Log()))
        config = NodeConfig(
            name=NAME,
            operator="alpha.example",
            engine=EngineSettings(sequences=2),
            log=LogTarget(url=url, vkey=str(LOG.vkey)),
            audits=audits(),
        )
        running = await stack.enter_async_context(
            node(folder / "a", engine, embedder=embedder, config=config)
        )
        yield Audited(running, engine, embedder)


async def test_an_opened_answer_scores_without_a_mismatch(audited: Audited) -> None:
    asked = attempt(
        chat("Name three colours.", temperature=1.0, max_tokens=24), number=1, model=MODEL
    )
    asked = msgspec.structs.replace(asked, audit=True, blinding="b1" * 32)
    heard = await audited.node.hear(asked)
    (opening,) = await opened(audited.node, await place(audited.node, heard, 1))
    content = opening.content
    assert content is not None
    assert opening.signed is not None
    receipt = decode(opening.signed.receipt.encode())
    said = receipt.sampling
    assert said.source == "nonces"
    scores = await audited.engine.score(
        Score(
            prompt=content.prompt,
            tokens=content.tokens[0],
            sampling=Sampling(
                temperature=float(said.temperature),
                top_p=float(said.top_p),
                top_k=said.top_k,
                min_p=float(said.min_p),
                seed=choice_seed(bytes.fromhex(said.seed), 0),
            ),
        )
    )
    assert len(scores) == receipt.usage.completion == len(content.tokens[0])
    assert all(score.kept and score.margin == 0 for score in scores)
    assert content.nonce is not None
    commitment = open_nonces(content.nonce.note.encode(), KEY)
    path = [decode_base64(hash_) for hash_ in content.nonce.path]
    verify_nonce(commitment, content.nonce.index, bytes.fromhex(said.node_nonce), path)


async def test_opened_vectors_are_the_embedders(audited: Audited) -> None:
    asked = attempt(
        {"input": ["one", "two"], "input_type": "query"},
        number=2,
        kind="embeddings",
        model="multilingual-e5-small",
    )
    heard = await audited.node.hear(msgspec.structs.replace(asked, audit=True))
    (opening,) = await opened(audited.node, await place(audited.node, heard, 2))
    assert opening.content is not None
    vectors = [decode_base64(text) for text in opening.content.vectors]
    again = await audited.embedder.embed(["one", "two"], query=True)
    assert vectors == list(again.vectors)


async def test_the_self_test_is_the_engines(audited: Audited) -> None:
    said = await stated(audited.node)
    assert said.bits == await audited.engine.self_test()
    model = await audited.engine.model()
    assert (said.numerics, said.weights, said.model) == (
        model.numerics, model.weights_digest, MODEL,
    )  # fmt: skip
