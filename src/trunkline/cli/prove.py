"""``trunkline receipts prove``: an answer's receipts against the log as it is now, step by step.

The evidence file shows that a receipt's batch was in the log once. Here the running log is asked
for its newest checkpoint, for the batch's place in that tree, and for the proof that the old tree
is its beginning: so nothing was taken out or rewritten since. It believes the log nothing that does
not verify under the reader's policy.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import msgspec
import typer

from trunkline.base.errors import ConfigError, Error, UpstreamError
from trunkline.cli import api
from trunkline.cli.folder import Folder
from trunkline.cli.report import EXITS, show_steps
from trunkline.cli.terminal import console
from trunkline.cli.verify import trust_of
from trunkline.crypto import merkle
from trunkline.evidence import EvidencePart, Step, decode, verify
from trunkline.evidence.report import (
    Finding,
    failed,
    inconclusive,
    numbered,
    outcome_of,
    passed,
    plain,
)
from trunkline.remote.http1 import HttpTransport
from trunkline.remote.log import LogCaller
from trunkline.tlog import proof as tlog_proof
from trunkline.tlog.checkpoint import Checkpoint
from trunkline.tlog.policy import Policy
from trunkline.tlog.tile_proof import inclusion_proof, tiles_needed_for_inclusion

TIMEOUT_S: Final = 30.0
_SIGNED: Final = ("receipts", "signatures", "batch paths")


@dataclass(slots=True, kw_only=True)
class _Proving:
    """One part while it is proven; each step adds what the next ones need."""

    evidence: bytes
    part: EvidencePart
    policy: Policy
    log: LogCaller
    proof: tlog_proof.Proof | None = None
    then: Checkpoint | None = None
    now: Checkpoint | None = None

    async def signed(self) -> Finding:
        """The receipts are signed, as ``trunkline verify`` finds."""
        steps = [step for step in verify(self.evidence).steps if step.title in _SIGNED]
        wrong = [step.detail for step in steps if step.result != "pass"]
        return failed("; ".join(wrong)) if wrong else passed("signed by its node, in a batch")

    async def entry(self) -> Finding:
        """What is looked for in the log."""
        if self.part.proof is None:
            return inconclusive("no proof yet: the receipt is provisional")
        self.proof = tlog_proof.parse(self.part.proof.encode())
        return passed(f"the batch is entry {self.proof.index}, leaf hash {self._leaf().hex()}")

    async def logged(self) -> Finding:
        """The old tree, under the policy, holds it."""
        if self.proof is None:
            return inconclusive("not checked: no proof")
        self.then = tree = tlog_proof.verify(self.proof, self._leaf(), self.policy).checkpoint
        return passed(f"{len(self.proof.path)} hashes lead to the root of {_tree(tree)}")

    async def newest(self) -> Finding:
        """The log's newest checkpoint, under the policy."""
        self.now = self.policy.accepts(await self.log.checkpoint()).checkpoint
        return passed(f"{_tree(self.now)}, signed by the log, cosigned by a quorum")

    async def consistent(self) -> Finding:
        """The old tree is the beginning of the newest."""
        then, now = self.then, self.now
        if then is None or now is None:
            return inconclusive("not checked: there are no two trees")
        if then.origin != now.origin:
            return failed("the running log is another than the one that the proof is of")
        if now.size < then.size:
            return failed(f"the log shows {now.size} entries; it had {then.size}")
        proof = []
        if now.size > then.size:
            proof = await self.log.consistency_proof(then.size, now.size)
        merkle.verify_consistency(then.size, now.size, proof, then.root, now.root)
        return passed(f"{len(proof)} hashes: nothing of those {then.size} entries was changed")

    async def included(self) -> Finding:
        """The newest tree still holds it."""
        if self.proof is None or self.now is None:
            return inconclusive("not checked: there is no newest tree")
        index, size = self.proof.index, self.now.size
        if index >= size:
            return failed(f"the log shows {size} entries, and no entry {index}")
        paths = tiles_needed_for_inclusion(index, size)
        tiles = {path: await self.log.tile(path) for path in paths}
        path = inclusion_proof(index, size, tiles)
        merkle.verify_inclusion(self._leaf(), index, size, path, self.now.root)
        return passed(f"{len(path)} hashes lead from entry {index} to the newest root")

    def _leaf(self) -> bytes:
        return merkle.leaf_hash(self.part.signed.batch.encode())


def command(folder: Folder, answer: str, *, wait_s: int, as_program: bool) -> int:
    """Prove every part of an answer, print the steps, and return the exit code."""
    policy = trust_of(folder).policy
    if policy is None:
        raise ConfigError("there is no policy in the data folder: which log and witnesses count?")
    network = folder.network()
    evidence = asyncio.run(api.evidence(network.one("gateway").url, answer, wait_s=wait_s))
    steps = asyncio.run(prove(evidence, Policy.parse(policy), network.one("log").url))
    if as_program:
        typer.echo(msgspec.json.encode(steps).decode())
    else:
        show_steps(console(), steps)
    return EXITS[outcome_of(steps)]


async def prove(evidence: bytes, policy: Policy, log_url: str) -> tuple[Step, ...]:
    """The steps for every part of an evidence file, numbered on. Raises :class:`MalformedError` for
    what is no evidence."""
    transport = HttpTransport()
    steps: list[Step] = []
    try:
        for part in decode(evidence).parts:
            log = LogCaller(transport, log_url)
            proving = _Proving(evidence=evidence, part=part, policy=policy, log=log)
            steps += await _steps(proving, len(steps) + 1)
    finally:
        await transport.aclose()
    return tuple(steps)


async def _steps(proving: _Proving, first: int) -> tuple[Step, ...]:
    checks: tuple[tuple[str, Callable[[], Awaitable[Finding]]], ...] = (
        ("receipt", proving.signed),
        ("entry", proving.entry),
        ("inclusion", proving.logged),
        ("newest checkpoint", proving.newest),
        ("consistency", proving.consistent),
        ("inclusion now", proving.included),
    )
    found = [await _find(check) for _, check in checks]
    return numbered([title for title, _ in checks], found, first)


async def _find(check: Callable[[], Awaitable[Finding]]) -> Finding:
    """What a check found. A log that can not be reached shows nothing either way."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await check()
    except TimeoutError:
        return inconclusive(f"the log did not answer within {TIMEOUT_S:.0f} s")
    except UpstreamError as error:
        return inconclusive(f"the log: {error.message}")
    except Error as error:
        return failed(error.message)


def _tree(tree: Checkpoint) -> str:
    return f"{plain(tree.origin)} at size {tree.size}, {tree.root.hex()[:16]}…"
