"""``kill -9`` of any one role while chats run: the others stay up, nothing acknowledged is lost."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import openai
import pytest
from tests.support.network import READY_S_MAX, RunningNetwork, running

import trunkline
from trunkline.evidence import decode, decode_keys
from trunkline.receipts import decode as decode_receipt

pytestmark = [pytest.mark.xdist_group("network"), pytest.mark.timeout(1200)]

MODEL = "smollm2-135m-instruct"
CLIENTS = 3
ROLES = ("node-alpha", "log", "witness", "node-beta", "gateway")
FINAL_S_MAX = 60


@dataclass
class Load:
    """Chats that go on until told to stop. Only whole answers count as acknowledged."""

    network: RunningNetwork
    acknowledged: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    progress: threading.Condition = field(default_factory=threading.Condition)

    def run(self, number: int) -> None:
        client = openai.OpenAI(
            base_url=f"{self.network.base_url}/v1", api_key="none", max_retries=0, timeout=180
        )
        asked = 0
        while not self.stop.is_set():
            asked += 1
            try:
                raw = client.chat.completions.with_raw_response.create(
                    model=MODEL,
                    messages=[{"role": "user", "content": f"Count from {asked}."}],
                    max_tokens=6,
                    seed=number * 1000 + asked,
                )
                assert raw.parse().choices[0].finish_reason in ("stop", "length")
                outcome, into = raw.headers["trunkline-receipt"], self.acknowledged
            except openai.APIError as error:
                outcome, into = type(error).__name__, self.failed
            with self.progress:
                into.append(outcome)
                self.progress.notify_all()

    def wait_for_more(self, count: int) -> None:
        """Wait until ``count`` further answers were acknowledged."""
        with self.progress:
            target = len(self.acknowledged) + count
            assert self.progress.wait_for(lambda: len(self.acknowledged) >= target, timeout=240)


@contextmanager
def chatting(network: RunningNetwork) -> Iterator[Load]:
    """Clients that chat for the duration of the block."""
    load = Load(network)
    threads = [threading.Thread(target=load.run, args=(n,)) for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.stop.set()
        for thread in threads:
            thread.join()


def test_any_role_may_be_killed_and_nothing_acknowledged_is_lost(
    tmp_path: Path, model_cache: Path
) -> None:
    with running(tmp_path / "data", model_cache) as network:
        with chatting(network) as load:
            load.wait_for_more(CLIENTS)
            for role in ROLES:
                before = {each["name"]: each["pid"] for each in network.status()["roles"]}
                failed_before = len(load.failed)
                os.kill(before[role], signal.SIGKILL)
                network.wait_ready()
                after = {each["name"]: each["pid"] for each in network.status()["roles"]}
                assert after[role] != before[role], f"{role} came back as another process"
                del before[role], after[role]
                assert after == before, f"the others stayed up when {role} died"
                load.wait_for_more(CLIENTS)
                if role != "gateway":
                    # Only the front door's own death can be seen by an app.
                    assert load.failed[failed_before:] == []
        assert len(load.acknowledged) == len(set(load.acknowledged))
        _every_receipt_is_final_and_verifies(network, load.acknowledged)
        fsck = network.command("log", "fsck")
        assert fsck.code == 0, fsck.out + fsck.err


def test_a_node_gets_a_new_key_and_no_answer_is_lost(tmp_path: Path, model_cache: Path) -> None:
    with running(tmp_path / "data", model_cache) as network:
        with chatting(network) as load:
            load.wait_for_more(CLIENTS)
            before = network.pid("node-alpha")
            done = network.command("operator", "rotate", "node-alpha")
            assert done.code == 0, done.err
            vkey = done.out.strip().removeprefix("node-alpha: ")
            until_other_pid(network, "node-alpha", before)
            network.wait_ready()
            signers: set[str] = set()
            while vkey not in signers:
                load.wait_for_more(CLIENTS)
                signers = {_signer(network, answer) for answer in load.acknowledged}
        assert load.failed == []
        _every_receipt_is_final_and_verifies(network, load.acknowledged)


def until_other_pid(network: RunningNetwork, role: str, pid: int) -> None:
    """Its process has ended, and the next one was started."""
    deadline = time.monotonic() + READY_S_MAX
    while {each["name"]: each["pid"] for each in network.status()["roles"]}[role] in (pid, None):
        assert time.monotonic() < deadline, f"{role} was not restarted"


def _signer(network: RunningNetwork, answer: str) -> str:
    """The key that signed the answer's receipt."""
    with httpx2.Client(base_url=network.base_url) as client:
        evidence = client.get(f"/trunkline/v1/receipts/{answer}").content
    signed = decode(evidence).parts[0].signed
    return decode_receipt(signed.receipt.encode()).key


def _every_receipt_is_final_and_verifies(network: RunningNetwork, answers: list[str]) -> None:
    policy = (network.data / "policy").read_text()
    keys = decode_keys((network.data / "keys.json").read_bytes())
    with httpx2.Client(base_url=network.base_url, timeout=FINAL_S_MAX + 10) as client:
        for answer in answers:
            reply = client.get(f"/trunkline/v1/receipts/{answer}?wait_s={FINAL_S_MAX}")
            assert reply.status_code == 200, f"{answer} is lost"
            report = trunkline.verify(reply.content, policy=policy, trusted_keys=keys)
            assert report.outcome == "pass", (answer, report.steps)
