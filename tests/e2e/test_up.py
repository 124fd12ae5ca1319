"""``trunkline up`` from its start to its end: first run, taken ports, stopping, crashes."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.network import STOP_S_MAX, TRUNKLINE, RunningNetwork, command, running

pytestmark = pytest.mark.xdist_group("network")


def processes_of(data: Path) -> list[int]:
    """Ids of the processes that name something in this folder: its roles."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                said = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if f"{data}/" in said:
                found.append(int(entry.name))
    return [pid for pid in found if pid != os.getpid()]


def descendants(pid: int) -> list[int]:
    """Ids of the children of a process, theirs included."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *descendants(child)]
    return found


def until(true: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
    """Poll something about other processes, which nothing here is told of."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        os.sched_yield()


def alive(pid: int) -> bool:
    """Whether the process exists and is not merely waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_once_does_all_of_it_and_leaves_nothing_running(
    tmp_path: Path, model_cache: Path, port_base: int
) -> None:
    data = tmp_path / "net"
    done = command(
        "up", "--once", "Explain how rivers work to a ten year old.",
        "--data", str(data), "--port-base", str(port_base),
        env={"TRUNKLINE_CACHE": str(model_cache)}, timeout_s=240.0,
    )  # fmt: skip

    assert done.code == 0, done.out + done.err
    assert "first run" in done.err
    assert "Receipt ans_" in done.out
    assert "final, verified" in done.out
    assert processes_of(data) == []
    assert command("log", "fsck", "--data", str(data)).code == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_signal_stops_everything_it_started(
    tmp_path: Path, model_cache: Path, number: signal.Signals
) -> None:
    with running(tmp_path / "net", model_cache) as network:
        started = descendants(network.process.pid)
        network.process.send_signal(number)
        code = network.process.wait(STOP_S_MAX)

    assert len(started) >= 7
    assert code == 0
    assert [pid for pid in started if alive(pid)] == []


def test_a_killed_supervisor_takes_its_roles_with_it(tmp_path: Path, model_cache: Path) -> None:
    with running(tmp_path / "net", model_cache) as network:
        started = descendants(network.process.pid)
        network.process.kill()
        network.process.wait(STOP_S_MAX)
        until(lambda: not any(map(alive, started)), "the roles end")

    assert len(started) >= 7


@pytest.mark.parametrize("role", ["gateway", "node-beta", "log", "witness"])
def test_a_killed_role_comes_back_and_the_others_stay(network: RunningNetwork, role: str) -> None:
    before = {each["name"]: each["pid"] for each in network.status()["roles"]}
    os.kill(before[role], signal.SIGKILL)
    until(lambda: changed(network, role, before[role]), f"{role} is started again")
    network.wait_ready()
    after = {each["name"]: each["pid"] for each in network.status()["roles"]}
    once = network.command("up", "--once", "Name a bird.")

    assert {name for name in before if before[name] != after[name]} == {role}
    assert once.code == 0, once.out + once.err


def changed(network: RunningNetwork, role: str, before: int) -> bool:
    """Whether the supervisor has started the role anew."""
    roles = network.status()["roles"]
    return any(each["name"] == role and each["pid"] not in (None, before) for each in roles)


def test_a_taken_port_says_which_and_what_to_do(tmp_path: Path, port_base: int) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", port_base + 3))
        other.listen()
        done = command("up", "--data", str(tmp_path / "net"), "--port-base", str(port_base))

    assert done.code == 2
    assert f"port {port_base + 3} (for log)" in done.err
    assert "--port-base" in done.err


def test_a_wrong_configuration_is_told_with_its_file(tmp_path: Path, port_base: int) -> None:
    data = tmp_path / "net"
    assert command("init", "--data", str(data), "--port-base", str(port_base)).code == 0
    config = data / "witness" / "witness.toml"
    config.write_text(config.read_text() + '\ncolour = "red"\n')

    done = command("up", "--data", str(data))

    assert done.code == 2
    assert "witness can not run" in done.err
    assert "witness.toml" in done.err
    assert "colour" in done.err
    assert "Traceback" not in done.err


def test_a_missing_store_is_not_made_silently(tmp_path: Path, port_base: int) -> None:
    data = tmp_path / "net"
    assert command("init", "--data", str(data), "--port-base", str(port_base)).code == 0
    (data / "log" / "log.db").unlink()

    done = command("up", "--data", str(data))

    assert done.code == 2
    assert "log.db" in done.err
    assert not (data / "log" / "log.db").exists()


def test_interrupted_while_starting_leaves_nothing(tmp_path: Path, port_base: int) -> None:
    data = tmp_path / "net"
    with subprocess.Popen(
        [str(TRUNKLINE), "up", "--data", str(data), "--port-base", str(port_base)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        until(lambda: bool(processes_of(data / "log")), "the log's process")
        process.send_signal(signal.SIGINT)
        code = process.wait(STOP_S_MAX)

    assert code == 130
    assert processes_of(data) == []
