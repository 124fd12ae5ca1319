"""A node that cheats, for drills: a real one whose engine does not do what its receipts say.

``python -m trunkline.cli.cheating_node CONFIG CHEAT`` serves an honest node's configuration, under
its key. The honest engine answers whatever shows the node to be honest (its model, its self-test);
another computes the answers. No configuration of a real node can do this.
"""

import sys
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Final, Literal, TypeAlias

import msgspec

from trunkline.base.errors import ConfigError
from trunkline.cli.role import follow_parent
from trunkline.engine.client import EmbeddedEngine, EngineConfig
from trunkline.inference.ports import Engine, Generate, ModelInfo, Token
from trunkline.node import config as configuration
from trunkline.node.app import NodeApp
from trunkline.runtime.config import resolve
from trunkline.runtime.logger import configure, get_logger
from trunkline.runtime.server import run_server

Cheat: TypeAlias = Literal["weights", "sampler"]
"""``weights``: the model file's own 4-bit weights compute, at half the cost, where the receipts say
16 bits. ``sampler``: another temperature than the request's."""
COOLER: Final = 0.8
"""Of the temperature asked for, with ``sampler``."""


class CheatingEngine(Engine):
    """An honest engine for show, and what the answers come from."""

    def __init__(self, honest: EmbeddedEngine, cheat: Cheat, other: EmbeddedEngine) -> None:
        self._honest = honest
        self._cheat = cheat
        self._other = other

    async def model(self) -> ModelInfo:
        await self._other.model()
        return await self._honest.model()

    async def tokenize(self, text: str, *, parse_special: bool) -> tuple[int, ...]:
        return await self._honest.tokenize(text, parse_special=parse_special)

    async def self_test(self) -> str:
        """The honest engine's: what a cheat would show."""
        return await self._honest.self_test()

    def pieces(self) -> Sequence[bytes]:
        return self._honest.pieces()

    def generate(self, job: Generate) -> AsyncGenerator[Token, None]:
        if self._cheat == "weights":
            return self._other.generate(job)
        cooler = msgspec.structs.replace(
            job.sampling, temperature=job.sampling.temperature * COOLER
        )
        return self._honest.generate(msgspec.structs.replace(job, sampling=cooler))

    async def close(self) -> None:
        await self._honest.close()
        await self._other.close()


def run(config_path: Path, cheat: Cheat) -> None:
    """Serve until told to stop, or the supervisor is gone. Raises :class:`ConfigError`; blocks."""
    follow_parent()
    config = configuration.read(config_path)
    if not isinstance(config.engine, configuration.EmbeddedEngine):
        raise ConfigError("only a node with the embedded engine can be made to cheat")
    configure()
    logger = get_logger("node").bind(node=config.name)
    cache = str(resolve(config_path, config.engine.cache))
    honest = EmbeddedEngine(EngineConfig(cache_folder=cache))
    weights = "as_shipped" if cheat == "weights" else config.engine.weights
    other = EmbeddedEngine(EngineConfig(cache_folder=cache, weights=weights))
    run_server(
        NodeApp(
            config, base=config_path, engine=CheatingEngine(honest, cheat, other), logger=logger
        ),
        config.listen,
        logger=logger,
        shutdown_grace_s=config.shutdown_grace_s,
    )


if __name__ == "__main__":
    run(Path(sys.argv[1]), msgspec.convert(sys.argv[2], Cheat))
