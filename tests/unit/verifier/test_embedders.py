"""Embeddings in a verifier: from a logged receipt to a verdict; an embedder when one is needed."""

import asyncio

import pytest
from tests.support.auditing import PROMPTS
from tests.support.embedding import CHEATS, Cheat, ToyEmbedder, served
from tests.support.toy_network import LAMBDA, ToyEngine, ToyNetwork, revealed, write_verifier

from trunkline.audit import embedding, recompute
from trunkline.audit.calibration import Parties, build, encode
from trunkline.base.errors import ConfigError
from trunkline.inference.ports import Embedder, EmbedderInfo
from trunkline.node.embeddings import MODEL_NAME
from trunkline.remote.http1 import HttpTransport
from trunkline.remote.verifier import VerifierCaller
from trunkline.runtime.clock import SystemClock
from trunkline.runtime.logger import get_logger
from trunkline.runtime.server import serving
from trunkline.schema.audit import AskedAudit
from trunkline.verdicts import Verdict
from trunkline.verifier.app import VerifierApp
from trunkline.verifier.config import read
from trunkline.verifier.embedders import Embedders

TEXTS = ("a dog", "a cat on a mat")
HONEST = ToyEmbedder()


async def verifier(
    network: ToyNetwork, transport: HttpTransport, embedder: Embedder, **settings: object
) -> VerifierCaller:
    path = write_verifier(
        network.folder / "lambda",
        LAMBDA,
        log_url=network.log_url,
        node_url=network.node_url,
        **settings,
    )
    (path.parent / "calibrations" / "embedder.json").write_bytes(await calibration())
    app = VerifierApp(
        read(path), base=path, engines=[lambda: ToyEngine(None)], embedder=lambda: embedder
    )
    url = await network.stack.enter_async_context(serving(app, shutdown_grace_s=0.05))
    return VerifierCaller(transport, url)


async def calibration() -> bytes:
    vectors = (await HONEST.embed(TEXTS, query=False)).vectors
    clean = embedding.compare(vectors, vectors, clip=embedding.CLIP)
    parties = Parties(
        configuration="toy embedders",
        model=MODEL_NAME,
        node="toye5-",
        verifier="toye5-",
        weights=(await HONEST.model()).weights_digest,
    )
    return encode(
        build([clean] * 2000, parties=parties, regime="exact", prompts=PROMPTS, seeds="none")
    )


async def verdict_of(caller: VerifierCaller) -> Verdict:
    (found,) = await revealed(caller, 1)
    verdict = Verdict.open_note(found.note.encode(), LAMBDA.vkey)
    measure = await caller.calibration(verdict.calibration)
    recompute.verdict(verdict, await caller.bundle(verdict.receipt), measure)
    return verdict


async def test_honest_embeddings_pass_to_the_bit(
    network: ToyNetwork, transport: HttpTransport
) -> None:
    network.node.answer(await served(HONEST, TEXTS))
    verdict = await verdict_of(await verifier(network, transport, HONEST))
    assert (verdict.kind, verdict.regime, verdict.result) == ("embedding", "exact", "pass")
    assert verdict.subject.model == MODEL_NAME
    assert verdict.subject.weights == (await HONEST.model()).weights_digest


@pytest.mark.parametrize("cheat", ["rounded to float16", "the other prefix"])
async def test_a_cheat_is_found(cheat: str, network: ToyNetwork, transport: HttpTransport) -> None:
    network.node.answer(await served(Cheat(claims=HONEST, **CHEATS[cheat]), TEXTS))  # type: ignore[arg-type]
    verdict = await verdict_of(await verifier(network, transport, HONEST))
    assert (verdict.kind, verdict.result) == ("embedding", "fail")


async def test_numerics_of_another_build_are_held_against_no_exact_calibration(
    network: ToyNetwork, transport: HttpTransport
) -> None:
    network.node.answer(await served(ToyEmbedder(drift=0.001), TEXTS))
    verdict = await verdict_of(await verifier(network, transport, HONEST))
    assert (verdict.regime, verdict.result) == ("none", "inconclusive")


async def test_without_an_embedder_it_is_inconclusive(
    network: ToyNetwork, transport: HttpTransport
) -> None:
    network.node.answer(await served(HONEST, TEXTS))
    verdict = await verdict_of(await verifier(network, transport, HONEST, embeddings=False))
    assert (verdict.kind, verdict.result) == ("embedding", "inconclusive")


async def test_a_caller_brings_what_it_was_given(
    network: ToyNetwork, transport: HttpTransport
) -> None:
    made, other = await served(HONEST, TEXTS), await served(HONEST, ("else",))
    (signed,) = network.node.answer(made)
    caller = await verifier(network, transport, HONEST, rate_ppm=0)
    swapped = AskedAudit(signed=signed, content=other.content, deadline_ms=60_000)
    told = await caller.audit(swapped, timeout_s=90)
    assert (told.result, told.reason) == ("inconclusive", "not_bound")
    asked = AskedAudit(signed=signed, content=made.content, deadline_ms=60_000)
    assert (await caller.audit(asked, timeout_s=90)).result == "pass"


class Counted(ToyEmbedder):
    """Says when it was closed."""

    closed: asyncio.Event

    async def close(self) -> None:
        self.closed.set()


async def test_it_starts_when_needed_and_stops_when_idle() -> None:
    started = 0
    closed = asyncio.Event()

    def make() -> Embedder:
        nonlocal started
        started += 1
        made = Counted()
        object.__setattr__(made, "closed", closed)
        return made

    pool = Embedders(make, clock=SystemClock(), idle_s=0.01, logger=get_logger("verifier"))
    assert started == 0
    made = await served(HONEST, TEXTS)
    tending = asyncio.create_task(pool.tend())
    try:
        assert await pool.remake(made.receipt, made.content) is not None
        async with asyncio.timeout(10):
            await closed.wait()
        assert await pool.remake(made.receipt, made.content) is not None
        assert started == 2
    finally:
        tending.cancel()
        await pool.close()


class Missing(ToyEmbedder):
    async def model(self) -> EmbedderInfo:
        raise ConfigError("the embedding model does not load")


async def test_one_that_can_not_start_is_not_tried_again() -> None:
    started = 0

    def make() -> Embedder:
        nonlocal started
        started += 1
        return Missing()

    pool = Embedders(make, clock=SystemClock(), idle_s=60.0, logger=get_logger("verifier"))
    made = await served(HONEST, TEXTS)
    assert await pool.remake(made.receipt, made.content) is None
    await pool.close()
    assert await pool.remake(made.receipt, made.content) is None
    assert started == 1
