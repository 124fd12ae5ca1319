"""``trunkline up`` with a lazy verifier in it: run by its path, as ``trunkline`` would be.

``lazy_network.py up …`` starts a network in which the verifier ``verifier-mu`` is another program:
this one, as ``lazy_network.py verifier CONFIG``. It does all that a verifier does, but that it
never runs the model over an answer: every token is found to be just the right one. It signs the
honest engine's self-test, as a cheat would.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from trunkline.cli.main import app
from trunkline.cli.role import follow_parent
from trunkline.cli.supervise import Role, Supervisor
from trunkline.engine.client import EmbeddedEngine, EngineConfig
from trunkline.inference.ports import ModelInfo, Score, TokenScore
from trunkline.runtime.config import resolve
from trunkline.runtime.logger import configure, get_logger
from trunkline.runtime.server import run_server
from trunkline.verifier.app import VerifierApp
from trunkline.verifier.config import read

LAZY = "verifier-mu"


class LazyEngine:
    """The honest engine for show."""

    def __init__(self, honest: EmbeddedEngine) -> None:
        self._honest = honest

    @property
    def pid(self) -> int | None:
        return self._honest.pid

    async def model(self) -> ModelInfo:
        return await self._honest.model()

    async def tokenize(self, text: str, *, parse_special: bool) -> tuple[int, ...]:
        return await self._honest.tokenize(text, parse_special=parse_special)

    def pieces(self) -> Sequence[bytes]:
        return self._honest.pieces()

    async def self_test(self) -> str:
        return await self._honest.self_test()

    async def score(self, job: Score) -> tuple[TokenScore, ...]:
        return tuple(
            TokenScore(
                token=token, position=position, margin=0.0, kept=True, decided=True,
                entropy=1.0, end=0.0,
            )
            for position, token in enumerate(job.tokens)
        )  # fmt: skip

    async def close(self) -> None:
        await self._honest.close()


def verify(path: Path, *, scoring: bool = False) -> None:
    """Serve as a verifier until told to stop. ``scoring``: it does run the model."""
    follow_parent()
    config = read(path)
    os.nice(config.niceness)
    configure()
    logger = get_logger("verifier").bind(verifier=config.name)
    engine = EngineConfig(
        cache_folder=str(resolve(path, config.cache)),
        sequences=2,
        context_tokens=config.models[0].context_tokens,
        threads=config.models[0].threads,
    )
    lazy = [lambda: LazyEngine(EmbeddedEngine(engine))]
    verifier = VerifierApp(config, base=path, engines=None if scoring else lazy, logger=logger)
    run_server(verifier, config.listen, logger=logger, shutdown_grace_s=config.shutdown_grace_s)


def recast(instead: Mapping[str, Callable[[str], tuple[str, ...]]]) -> None:
    """Have every supervisor run other programs in the place of some roles. ``instead``: by the
    role's name, the command's arguments for a configuration."""
    honest = Supervisor.command

    def command(self: Supervisor, role: Role) -> tuple[str, ...]:
        made = honest(self, role)
        if role.entry.name not in instead:
            return made
        return (sys.executable, *instead[role.entry.name](made[-1]))

    # It is made deep inside the command: only its class can be reached.
    Supervisor.command = command  # type: ignore[method-assign]


if __name__ == "__main__":
    if sys.argv[1] == "verifier":
        verify(Path(sys.argv[2]))
    else:
        recast({LAZY: lambda config: (__file__, "verifier", config)})
        app()
