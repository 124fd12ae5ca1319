"""The systems that people use today, started as they would start them, each with its best settings.

A peer lives in a folder of its own outside the project (``--peers FOLDER``):

    python -m venv FOLDER/litellm && FOLDER/litellm/bin/pip install 'litellm[proxy]'
    cd FOLDER/portkey && npm i @portkey-ai/gateway     # see bench/README.md for the overrides

One that is not there is named as missing, and nothing is said about it.
"""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from network import TRUNKLINE, free_port_base

READY_S_MAX = 120.0
SILENCE_S = 2.0
"""Every system here is told to put up with so much silence, wherever it can be told."""
SECRET = "sk-bench"  # noqa: S105 - opens nothing but a peer on loopback


@dataclass(frozen=True)
class Deployments:
    """By model, the base URLs of its deployments, in the order in which they should be asked."""

    urls: Mapping[str, Sequence[str]]
    cooldown: bool = True
    """Whether a deployment that failed may be left alone for a while. Off where each answer is to
    be a case of its own."""


@dataclass(frozen=True)
class System:
    """One system under test, ready to be asked."""

    name: str
    base_url: str
    headers: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By model, what the client has to send beside the request."""
    note: str = ""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@asynccontextmanager
async def process(
    command: Sequence[str], log: Path, *, cwd: Path, env: Mapping[str, str] | None = None
) -> AsyncIterator[subprocess.Popen[bytes]]:
    """Run a server in a process group of its own for the duration of the block."""
    with log.open("ab") as out:
        child = subprocess.Popen(
            command, cwd=cwd, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL,
            stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        yield child
    finally:
        os.killpg(child.pid, signal.SIGTERM)
        try:
            await asyncio.to_thread(child.wait, 10)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


async def listening(port: int, child: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until something accepts connections on the port."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + READY_S_MAX
    while loop.time() < end_s:
        if child.poll() is not None:
            raise RuntimeError(f"it ended at once: {log.read_text(errors='replace')[-1500:]}")
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.1)
            continue
        writer.close()
        return
    raise RuntimeError(f"nothing listens on {port}: {log.read_text(errors='replace')[-1500:]}")


# LiteLLM.


def litellm_version(folder: Path) -> str:
    found = sorted(folder.glob("lib/python3*/site-packages/litellm-*.dist-info"))
    return found[-1].name.removeprefix("litellm-").removesuffix(".dist-info") if found else "?"


def _litellm_config(deployments: Deployments, *, continues: bool) -> str:
    """A model group per deployment, the next one being the fallback of the one before."""
    models: list[object] = []
    fallbacks: list[object] = []
    for model, urls in deployments.urls.items():
        groups = [model, *(f"{model}-{number}" for number in range(2, len(urls) + 1))]
        for group, url in zip(groups, urls, strict=True):
            params = {"model": f"openai/{model}", "api_base": url, "api_key": "x"}
            info = {"supports_assistant_prefill": True}
            models.append({"model_name": group, "litellm_params": params, "model_info": info})
        if groups[1:]:
            fallbacks.append({model: groups[1:]})
    router = {
        # The next deployment is better than the same one again: retries come with back-off.
        "num_retries": 0,
        "timeout": SILENCE_S,
        "stream_timeout": SILENCE_S,
        "fallbacks": fallbacks,
        "disable_cooldowns": not deployments.cooldown,
    }
    if continues:
        router["enable_mid_stream_fallback_continuation"] = True
    # JSON is YAML.
    return json.dumps(
        {
            "model_list": models,
            "router_settings": router,
            "litellm_settings": {"request_timeout": SILENCE_S, "telemetry": False},
            "general_settings": {"master_key": SECRET},
        }
    )


@asynccontextmanager
async def litellm(folder: Path, scratch: Path, deployments: Deployments) -> AsyncIterator[System]:
    """The LiteLLM proxy of a virtual environment: fallbacks, mid-stream continuation."""
    version = litellm_version(folder)
    scratch.mkdir()
    config, log, port = scratch / "litellm.yaml", scratch / "log", free_port()
    numbers = [int(part) for part in re.findall(r"\d+", version)[:2]]
    continues = numbers >= [1, 109]
    config.write_text(_litellm_config(deployments, continues=continues))
    command = [
        str(folder / "bin" / "litellm"), "--config", str(config), "--host", "127.0.0.1",
        "--port", str(port), "--num_workers", "1",
    ]  # fmt: skip
    env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": SECRET}
    async with process(command, log, cwd=scratch, env=env) as child:
        await listening(port, child, log)
        note = "fallbacks" + (", mid-stream continuation on" if continues else "")
        yield System(f"LiteLLM {version}", f"http://127.0.0.1:{port}/v1", note=note)


# Portkey.


def _portkey_headers(urls: Sequence[str]) -> dict[str, str]:
    targets = [
        {
            "provider": "openai",
            "custom_host": url,
            "api_key": "x",
            "request_timeout": int(SILENCE_S * 1000),
        }
        for url in urls
    ]
    return {"x-portkey-config": json.dumps({"strategy": {"mode": "fallback"}, "targets": targets})}


@asynccontextmanager
async def portkey(folder: Path, scratch: Path, deployments: Deployments) -> AsyncIterator[System]:
    """The Portkey gateway of an npm folder, with a fallback over all deployments."""
    package = folder / "node_modules" / "@portkey-ai" / "gateway"
    version = json.loads((package / "package.json").read_text())["version"]
    scratch.mkdir()
    log, port = scratch / "log", free_port()
    node = shutil.which("node")
    if node is None:
        raise RuntimeError("node is not installed")
    command = [node, str(package / "build" / "start-server.js"), f"--port={port}", "--headless"]
    async with process(command, log, cwd=scratch) as child:
        await listening(port, child, log)
        headers = {model: _portkey_headers(urls) for model, urls in deployments.urls.items()}
        yield System(f"Portkey {version}", f"http://127.0.0.1:{port}/v1", headers, "fallback")


# Trunkline.

ROLES = ("log", "witness", "gateway")


def _edited(text: str, table: str, values: Mapping[str, object]) -> str:
    """A configuration file with values set in one of its tables."""
    head, mark, rest = text.partition(f"[{table}]\n")
    body, between, tail = rest.partition("\n[")
    for name, value in values.items():
        line = f"{name} = {json.dumps(value)}"
        body, count = re.subn(rf"(?m)^{name} = .*$", lambda _, line=line: line, body)  # type: ignore[misc]
        if not count:
            body = f"{line}\n{body}"
    return head + mark + body + between + tail


def _configure(data: Path, name: str, models: Sequence[str], engine: Mapping[str, object]) -> None:
    path = data / f"node-{name}" / "node.toml"
    text = _edited(path.read_text(), "engine", {"models": list(models), **engine})
    limits = {"connect_s": 1.0, "stream_head_s": SILENCE_S, "whole_head_s": SILENCE_S}
    path.write_text(_edited(text, "engine.timeouts", limits | {"idle_s": SILENCE_S}))


@asynccontextmanager
async def trunkline(
    scratch: Path, deployments: Deployments, engine: Mapping[str, object]
) -> AsyncIterator[System]:
    """Real processes: a gateway, a node per upstream, a log and a witness; no embedded model.

    ``engine``: set in the ``[engine]`` table of every node.
    """
    scratch.mkdir()
    data, base = scratch / "net", free_port_base(32)
    served: dict[str, list[str]] = {}
    for model, urls in deployments.urls.items():
        for url in urls:
            served.setdefault(url, []).append(model)
    names = {url: f"p{at}" for at, url in enumerate(served)}
    command = [str(TRUNKLINE), "init", "--data", str(data), "--port-base", str(base)]
    for url, name in names.items():
        command += ["--provider", f"{name}={url}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    for url, name in names.items():
        _configure(data, name, served[url], engine)
    path = data / "gateway" / "gateway.toml"
    stages = ("head_s", "first_event_s", "first_token_s", "whole_s", "idle_s")
    path.write_text(_edited(path.read_text(), "timeouts", dict.fromkeys(stages, SILENCE_S)))
    started = [(role, data / role / f"{role}.toml") for role in ROLES]
    started += [("node", data / f"node-{name}" / "node.toml") for name in names.values()]
    async with roles(started, scratch):
        await _all_seen(f"http://127.0.0.1:{base}/v1/models", set(deployments.urls))
        yield System("Trunkline", f"http://127.0.0.1:{base}/v1", note="as `trunkline init` sets it")


@asynccontextmanager
async def roles(started: Sequence[tuple[str, Path]], scratch: Path) -> AsyncIterator[None]:
    """Run these roles, one after another, each by its file; their logs go to ``scratch``."""
    async with AsyncExitStack() as stack:
        for role, config in started:
            log = scratch / f"{config.parent.name}.log"
            run = [sys.executable, "-m", "trunkline.cli.role", role, str(config)]
            child = await stack.enter_async_context(process(run, log, cwd=scratch))
            port = int(re.findall(r'(?m)^listen = ".*:(\d+)"', config.read_text())[0])
            await listening(port, child, log)
        yield


async def _all_seen(url: str, models: set[str]) -> None:
    """Wait until the gateway lists every model that is to be asked for."""
    end_s = time.monotonic() + READY_S_MAX
    while time.monotonic() < end_s:
        with urllib.request.urlopen(url, timeout=10) as answer:
            if models <= {entry["id"] for entry in json.load(answer)["data"]}:
                return
        await asyncio.sleep(0.1)
    raise RuntimeError("the gateway does not list all models")
