"""A log with witnesses in this process, over real HTTP on loopback."""

from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from trunkline.crypto.signer import Signer, sign_note
from trunkline.log.app import LogService, create_log
from trunkline.log.config import LogConfig, WitnessConfig
from trunkline.remote.http1 import HttpTransport
from trunkline.remote.log import LogCaller
from trunkline.runtime.clock import SystemClock
from trunkline.runtime.logger import get_logger
from trunkline.runtime.server import serving
from trunkline.tlog.policy import Policy
from trunkline.witness.app import WitnessService, create_store
from trunkline.witness.config import WitnessConfig as WitnessServiceConfig
from trunkline.witness.config import WitnessedLog

LOG = Signer.generate("gamma.example/log", b"\x01" * 32)
NODE = Signer.generate("alpha.example/node", b"\x03" * 32)


def make_entry(number: int) -> bytes:
    return sign_note(b"trunkline.batch/v1\nentry %d\n" % number, NODE)


class Network:
    """Everything that a test starts, and how to call it."""

    log_key = LOG
    node_key = NODE
    entry = staticmethod(make_entry)

    def __init__(self, path, stack):
        self.path = path
        self.data = path / "log"
        self.fatal = []
        self.witnesses = []
        self._stack = stack
        self.transport = HttpTransport()

    async def witness(self, name, seed=b""):
        """Start a witness of the log; returns its configuration as the log has it. ``seed``: for
        another key of the same name."""
        signer = Signer.generate(name, (seed + name.encode()).ljust(32, b"."))
        data = self.path / (seed.decode() + name)
        if not data.exists():
            create_store(data)
        config = WitnessServiceConfig(name=name, logs=(WitnessedLog(vkey=str(LOG.vkey)),))
        service = WitnessService(
            config=config,
            data=data,
            signer=signer,
            clock=SystemClock(),
            logger=get_logger("witness"),
        )
        url = await self._stack.enter_async_context(serving(service))
        found = WitnessConfig(url=url, vkey=str(signer.cosigner_vkey))
        self.witnesses.append(found)
        return found

    def service(self, **config):
        """A log's service over this network's folder, which is created where there is none."""
        if not (self.data / "log.db").exists():
            create_log(self.data, LOG)
        config.setdefault("checkpoint_interval_ms", 0)
        return LogService(
            config=LogConfig(origin=LOG.name, **config),
            data=self.data,
            signer=LOG,
            transport=HttpTransport(),
            clock=SystemClock(),
            logger=get_logger("log"),
            on_fatal=lambda: self.fatal.append(True),
        )

    @asynccontextmanager
    async def log(self, **config):
        """Serve the log; yields a caller of it, with ``url`` and ``service`` beside."""
        service = self.service(**config)
        async with serving(service) as url:
            caller = LogCaller(self.transport, url, timeout_s=60.0)
            yield caller, url, service

    def policy(self, quorum=None):
        """The policy that trusts this log and needs ``quorum`` of the witnesses (default all)."""
        lines = [f"log {LOG.vkey}"]
        lines += [f"witness w{i} {one.vkey}" for i, one in enumerate(self.witnesses)]
        if self.witnesses and quorum != 0:
            names = " ".join(f"w{i}" for i in range(len(self.witnesses)))
            lines += [f"group all-of-them {quorum or 'all'} {names}", "quorum all-of-them"]
        else:
            lines.append("quorum none")
        return Policy.parse("\n".join(lines) + "\n")


@pytest.fixture
async def network(tmp_path):
    async with AsyncExitStack() as stack:
        found = Network(tmp_path, stack)
        yield found
        await found.transport.aclose()
