"""A real verifier process, killed at each named point and started again: no audit is lost, and no
second, different statement is ever made.

The engine is a toy; log and node are served by the test, which outlives the verifier.
"""

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager

import pytest
from tests.support.toy_network import LAMBDA, honest, toy_network, write_verifier

from trunkline.audit import recompute
from trunkline.remote.http1 import HttpTransport
from trunkline.remote.verifier import VerifierCaller
from trunkline.runtime.crash import CRASH_VARIABLE
from trunkline.verdicts import (
    COMMITMENT_TYPE,
    DRAW_TYPE,
    VERDICT_TYPE,
    Commitment,
    Draw,
    Verdict,
    check_sequence,
)
from trunkline.verifier.crash import CRASH_POINTS

PROGRAM = (
    "import sys; from pathlib import Path; from tests.support.toy_network import app_of; "
    "from trunkline.runtime.logger import configure, get_logger; "
    "from trunkline.runtime.server import run_server; configure(); "
    "run_server(app_of(Path(sys.argv[1])), '127.0.0.1:0', logger=get_logger('verifier'), "
    "on_ready=lambda url: print(url, file=sys.stderr, flush=True))"
)
ANSWERS = (1, 2, 3)
DEADLINE_S = 150.0


@asynccontextmanager
async def verifier(path, *, crash_at=""):
    """A verifier's process and its base URL; killed at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, str(path),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, CRASH_VARIABLE: crash_at},
    )  # fmt: skip
    try:
        line = b""
        while not line.startswith(b"http://"):
            line = await process.stderr.readline()
            assert line, "the verifier ended before it served"
        yield process, line.decode().strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await process.stderr.read()


async def revealed(caller: VerifierCaller, count: int):
    found = []
    while len(found) < count:
        found += (await caller.verdicts(len(found), 10)).verdicts
    return found


def check_statements(log, answers) -> None:
    """What anybody can check from the log alone."""
    draws = [Draw.open_note(one, LAMBDA.vkey) for one in log.statements(DRAW_TYPE)]
    assert check_sequence(draws) == ()
    leaves = {honest(number).leaf.hex() for number in answers}
    verdicts = {}
    for note in log.statements(VERDICT_TYPE):
        verdict = Verdict.open_note(note, LAMBDA.vkey)
        assert verdict.receipt not in verdicts, "two different verdicts on one receipt"
        verdicts[verdict.receipt] = note
    assert set(verdicts) == leaves
    for note in log.statements(COMMITMENT_TYPE):
        commitment = Commitment.open_note(note, LAMBDA.vkey)
        assert commitment.binds(verdicts[commitment.receipt])
    previous = [Verdict.open_note(note, LAMBDA.vkey).previous for note in verdicts.values()]
    assert len(set(previous)) == len(previous), "evidence was counted twice, or not at all"


@pytest.mark.parametrize("point", CRASH_POINTS)
async def test_killed_and_started_again(tmp_path, point):
    transport = HttpTransport()
    async with asyncio.timeout(DEADLINE_S), toy_network(tmp_path) as network:
        path = write_verifier(
            tmp_path / "verifier", LAMBDA, log_url=network.log_url, node_url=network.node_url,
            crash_points=True,
        )  # fmt: skip
        network.node.answer(*(honest(number) for number in ANSWERS))
        async with verifier(path, crash_at=point) as (process, _):
            assert await process.wait() == -signal.SIGKILL

        async with verifier(path) as (_, url):
            caller = VerifierCaller(transport, url)
            await revealed(caller, len(ANSWERS))

            check_statements(network.log, ANSWERS)
            for one in await revealed(caller, len(ANSWERS)):
                verdict = Verdict.open_note(one.note.encode(), LAMBDA.vkey)
                bundle = await caller.bundle(one.receipt)
                recompute.verdict(verdict, bundle, await caller.calibration(verdict.calibration))
    await transport.aclose()


async def test_two_processes_share_the_work_and_one_dies(tmp_path):
    transport = HttpTransport()
    answers = range(1, 13)
    async with asyncio.timeout(DEADLINE_S), toy_network(tmp_path) as network:
        path = write_verifier(
            tmp_path / "verifier", LAMBDA, log_url=network.log_url, node_url=network.node_url
        )
        async with verifier(path) as (first, _), verifier(path) as (_, url):
            for number in answers:
                network.node.answer(honest(number))
            caller = VerifierCaller(transport, url)
            await revealed(caller, 3)
            first.kill()
            await revealed(caller, len(answers))

            check_statements(network.log, answers)
    await transport.aclose()
