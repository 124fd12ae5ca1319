"""``trunkline up`` with a verifier in it that lies: run by its path, as ``trunkline`` would be.

    liars.py MANNER up …               a network whose verifier ``verifier-mu`` lies
    liars.py MANNER verifier CONFIG    that verifier

It is the product's verifier in everything but the scores that it judges by: what it says it signs,
commits to and reveals as any, and its numbers fit each other.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.support.lazy_network import LAZY, recast, verify

from trunkline.audit.judge import Case
from trunkline.audit.replay import Measured
from trunkline.base.errors import UpstreamError
from trunkline.cli.main import app
from trunkline.crypto.keys import VerifierKey
from trunkline.remote.http1 import HttpTransport
from trunkline.remote.verifier import VerifierCaller
from trunkline.verdicts import Verdict
from trunkline.verifier.config import PeerVerifier, read
from trunkline.verifier.judging import Judge, Place, Unshown
from trunkline.verifier.queue import Audit

LIAR = LAZY
ECHO = "verifier-nu"
FRIEND = "node-alpha"
FRIEND_KEY = "alpha.localhost/node"
COPY_S_MAX = 40.0
"""For how long a copier waits for another's verdict: longer than they are kept back."""

Manner: TypeAlias = Literal["slander", "slander-one", "collude", "copy", "echo"]
"""``slander``: fails every answer, ``slander-one``: those of one node. ``collude``: passes every
answer of one node, which cheats. ``copy``: says what another verifier has said, once it is shown,
and runs no model. ``echo``: as ``slander-one``, and ``verifier-nu`` copies what that one says."""


COPYING: tuple[Manner, ...] = ("copy", "echo")


def framed(measured: Measured) -> Measured:
    """No token is the model's."""
    return _scored(measured, margin=5.0)


def flattered(measured: Measured) -> Measured:
    """Each token is the model's."""
    return _scored(measured, margin=0.0)


def _scored(measured: Measured, *, margin: float) -> Measured:
    scores = tuple(
        tuple(
            msgspec.structs.replace(score, margin=margin, kept=True, decided=True)
            for score in choice
        )
        for choice in measured.scores
    )
    return msgspec.structs.replace(measured, scores=scores)


async def copied(case: Case, measured: Measured, peers: tuple[PeerVerifier, ...]) -> Measured:
    """As the first verdict says that another verifier shows; a pass if none does in time."""
    transport = HttpTransport()
    try:
        async with asyncio.timeout(COPY_S_MAX):
            while True:
                for peer in peers:
                    result = await _shown(VerifierCaller(transport, peer.url), peer, case)
                    if result:
                        return framed(measured) if result == "fail" else flattered(measured)
                await asyncio.sleep(0.5)
    except TimeoutError:
        return flattered(measured)
    finally:
        await transport.aclose()


async def _shown(caller: VerifierCaller, peer: PeerVerifier, case: Case) -> str:
    try:
        note = (await caller.verdict(case.leaf.hex())).note
    except UpstreamError:
        return ""
    return Verdict.open_note(note.encode(), VerifierKey.parse(peer.vkey)).result


Lie: TypeAlias = Callable[[Case, Measured], Awaitable[Measured]]


def lie_of(manner: Manner, peers: tuple[PeerVerifier, ...]) -> Lie:
    """What a verifier of this manner takes for measured."""

    async def lie(case: Case, measured: Measured) -> Measured:
        friend = case.receipt.node == FRIEND_KEY
        if manner in COPYING:
            return await copied(case, measured, peers)
        if manner == "collude":
            return flattered(measured) if friend else measured
        return framed(measured) if manner == "slander" or friend else measured

    return lie


def corrupt(lie: Lie) -> None:
    """Have every judge go by the lie."""
    honest = Judge.settle

    async def settle(
        self: Judge, what: Case | Unshown, place: Place, audit: Audit | None
    ) -> tuple[bytes, bool]:
        # Nobody waits for a copier's answer to a question of theirs.
        if isinstance(what, Case) and what.measured is not None and audit is not None:
            what = replace(what, measured=await lie(what, what.measured))
        return await honest(self, what, place, audit)

    # It is made deep inside the verifier: only its class can be reached.
    Judge.settle = settle  # type: ignore[method-assign]


def main(manner: str, *arguments: str) -> None:
    if manner not in get_args(Manner):
        raise SystemExit(f"{manner}: choose from {', '.join(get_args(Manner))}")
    if arguments[0] == "verifier":
        path = Path(arguments[1])
        whom = "mu." if manner == "echo" else ""
        peers = tuple(peer for peer in read(path).verifiers if peer.vkey.startswith(whom))
        corrupt(lie_of(manner, peers))  # type: ignore[arg-type]
        verify(path, scoring=manner not in COPYING)
        return
    instead: dict[str, Callable[[str], tuple[str, ...]]] = {
        LIAR: lambda config: (__file__, manner, "verifier", config)
    }
    if manner == "echo":
        instead[LIAR] = lambda config: (__file__, "slander-one", "verifier", config)
        instead[ECHO] = lambda config: (__file__, manner, "verifier", config)
    if manner == "collude":
        instead[FRIEND] = lambda config: ("-m", "trunkline.cli.cheating_node", config, "weights")
    recast(instead)
    sys.argv[1:] = arguments
    app()


if __name__ == "__main__":
    main(*sys.argv[1:])
