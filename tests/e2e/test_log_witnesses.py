"""A log and its witnesses as processes: some are killed, one lies, and the quorum decides."""

import asyncio
import signal
import socket
import sys
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from tests.support.scripted import Scripted

from trunkline.base.errors import TimedOutError
from trunkline.crypto.signer import MlDsaCosigner, Signer, sign_note
from trunkline.log.config import LogConfig, WitnessConfig, render
from trunkline.log.store import create_log
from trunkline.remote.http1 import HttpTransport
from trunkline.remote.log import LogCaller
from trunkline.runtime.http import TEXT_TYPE
from trunkline.runtime.server import serving
from trunkline.tlog.policy import Policy
from trunkline.witness import config as witness_config
from trunkline.witness.store import create_store

LOG = Signer.generate("gamma.example/log", b"\x01" * 32)
NODE = Signer.generate("alpha.example/node", b"\x03" * 32)
LIAR = Signer.generate("liar.example/witness", b"\x04" * 32)
# The roles' own entry points, saying where they listen.
PROGRAM = (
    "import importlib, sys; from pathlib import Path; "
    "from trunkline.runtime.logger import configure; configure(); "
    "importlib.import_module(f'trunkline.{sys.argv[1]}.app')"
    ".run(Path(sys.argv[2]), on_ready=lambda url: print(url, flush=True))"
)
DEADLINE_S = 90.0


def entry(number: int) -> bytes:
    return sign_note(b"trunkline.batch/v1\nentry %d\n" % number, NODE)


@asynccontextmanager
async def process(room, config):
    """Start a role; yields its process and base URL, and kills it at the end."""
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, room, str(config),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(DEADLINE_S):
            url = (await started.stdout.readline()).decode().strip()
        yield started, url
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()
        await started.stdout.read()


def set_up_witness(folder, signer, listen="127.0.0.1:0"):
    kind = "ml-dsa-44" if isinstance(signer, MlDsaCosigner) else "ed25519"
    settings = witness_config.WitnessConfig(
        listen=listen,
        name=signer.name,
        algorithm=kind,
        logs=(witness_config.WitnessedLog(vkey=str(LOG.vkey)),),
    )
    if not folder.exists():
        create_store(folder)
        (folder / "key").write_text(signer.skey())
        (folder / "key").chmod(0o600)
    (folder / "witness.toml").write_text(witness_config.render(settings))
    return folder / "witness.toml"


async def lie(call):
    body = await call.body(1_000_000)
    forged = LIAR.cosignature(body[-100:] + b"\n", 1_700_000_000).line()
    await call.reply(200, forged, TEXT_TYPE)


async def test_two_of_four_with_one_killed_and_one_lying(tmp_path):
    """Three real witnesses, one of them with ML-DSA-44, beside a liar; two are enough."""
    signers = [
        Signer.generate("a.example/witness", b"\x05" * 32),
        MlDsaCosigner("b.example/witness", b"\x06" * 32),
        Signer.generate("c.example/witness", b"\x07" * 32),
    ]
    transport = HttpTransport()
    async with AsyncExitStack() as stack:
        liar_url = await stack.enter_async_context(serving(Scripted(lie)))
        witnesses = [
            await stack.enter_async_context(
                process("witness", set_up_witness(tmp_path / signer.name[0], signer))
            )
            for signer in signers
        ]
        keys = [*(signer.cosigner_vkey for signer in signers), LIAR.cosigner_vkey]
        text = f"log {LOG.vkey}\n" + "".join(
            f"witness {key.name[0]} {key}\n" for key in keys
        ) + "group enough 2 a b c l\nquorum enough\n"  # fmt: skip
        policy = Policy.parse(text)
        urls = [*(url for _, url in witnesses), liar_url]
        config = LogConfig(
            listen="127.0.0.1:0",
            origin=LOG.name,
            data="data",
            checkpoint_interval_ms=0,
            quorum_window_s=0.5,
            policy_file="policy",
            witnesses=tuple(
                WitnessConfig(url=url, vkey=str(key)) for url, key in zip(urls, keys, strict=True)
            ),
        )
        (tmp_path / "key").write_text(LOG.skey())
        (tmp_path / "key").chmod(0o600)
        (tmp_path / "policy").write_text(text)
        (tmp_path / "log.toml").write_text(render(config))
        create_log(tmp_path / "data", LOG)
        _, log_url = await stack.enter_async_context(process("log", tmp_path / "log.toml"))
        caller = LogCaller(transport, log_url, timeout_s=60.0)

        async def prove(number, timeout_s=DEADLINE_S):
            index = await caller.add(entry(number))
            proof = await caller.fetch_inclusion(entry(number), index, policy, timeout_s=timeout_s)
            return {name for name, _ in policy.accepts(proof.checkpoint_note).witnesses}

        assert len(await prove(0)) >= 2
        # One killed, one lying: the two that are left are the quorum.
        witnesses[2][0].kill()
        await witnesses[2][0].wait()
        for number in range(1, 5):
            assert await prove(number) == {"a", "b"}
        # Another killed: entries are sequenced and published, and no policy accepts them yet.
        witnesses[1][0].kill()
        await witnesses[1][0].wait()
        # Nobody else is given its port meanwhile.
        host, _, port = urls[1].removeprefix("http://").rpartition(":")
        kept = stack.enter_context(socket.socket())
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind((host, int(port)))
        with pytest.raises(TimedOutError):
            await prove(5, timeout_s=1.0)
        # It comes back as it was, and what waited becomes final.
        listen = urls[1].removeprefix("http://")
        again = await stack.enter_async_context(
            process("witness", set_up_witness(tmp_path / "b", signers[1], listen))
        )
        assert again[1] == urls[1]
        assert await prove(5) == {"a", "b"}
        witnesses[0][0].send_signal(signal.SIGTERM)
        assert await witnesses[0][0].wait() == 0
    await transport.aclose()
