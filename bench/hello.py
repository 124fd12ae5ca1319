"""From nothing to a first answer, and what the front door costs.

    python bench/hello.py

Prints, from one run:
- how long ``trunkline up --once`` takes on an empty data folder, from start to verified receipt
  ("cold": the derived model file is made too), and again on the same folder ("warm");
- memory per role (proportional set size);
- CPU per request of the gateway, streamed and whole, beside nginx on the same load, if nginx is
  installed; it says so when it is not.

The load of the last part runs against ``bench/upstream.py``, a scripted upstream, so that no
model's speed is in the figures. nginx is a plain reverse proxy: it reads nothing, signs nothing and
stores nothing, and is the floor, not a like.
"""

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from network import TRUNKLINE, Network, children, cpu_s, free_port_base, memory_bytes

QUESTION = "What is the capital of France?"
REQUEST = {
    "model": "scripted",
    "messages": [{"role": "user", "content": "hello"}],
}


def once(data: Path, port_base: int) -> tuple[float, str]:
    """Seconds that ``up --once`` takes, and what it said."""
    begun = time.monotonic()
    done = subprocess.run(
        [str(TRUNKLINE), "up", "--once", QUESTION, "--data", str(data),
         "--port-base", str(port_base)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    took_s = time.monotonic() - begun
    if done.returncode != 0:
        raise RuntimeError(f"up --once ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return took_s, done.stdout


async def send(port: int, body: bytes, path: str, count: int, clients: int) -> float:
    """Send ``count`` requests on ``clients`` kept connections; return the wall seconds."""
    left = iter(range(count))
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode()

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        try:
            for _ in left:
                writer.write(head + body)
                await whole_response(reader)
        finally:
            writer.close()

    begun = time.monotonic()
    await asyncio.gather(*(one() for _ in range(clients)))
    return time.monotonic() - begun


async def whole_response(reader: asyncio.StreamReader) -> None:
    """Read one response by its framing; anything but a whole 200 ends the bench."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if not head.startswith(b"http/1.1 200"):
        raise RuntimeError(f"unexpected answer: {head[:200]!r}")
    if b"transfer-encoding: chunked" in head:
        tail = b""
        while True:
            size = int((await reader.readuntil(b"\r\n")).strip(), 16)
            data = await reader.readexactly(size + 2)
            if size == 0:
                break
            tail = (tail + data[:-2])[-64:]
        if b"text/event-stream" in head and b"[DONE]" not in tail:
            raise RuntimeError("a stream ended without [DONE]")
        return
    for line in head.split(b"\r\n"):
        if line.startswith(b"content-length:"):
            await reader.readexactly(int(line[15:]))
            return
    raise RuntimeError("an answer without framing")


def measure(name: str, pids: list[int], port: int, path: str, body: bytes, count: int) -> float:
    """CPU milliseconds per request that the processes ``pids`` used for ``count`` requests."""
    asyncio.run(send(port, body, path, max(50, count // 10), 8))
    before = sum(map(cpu_s, pids))
    wall_s = asyncio.run(send(port, body, path, count, 8))
    used_ms = (sum(map(cpu_s, pids)) - before) * 1000 / count
    print(f"    {name:<28} {used_ms:8.3f} ms CPU a request   {count / wall_s:8.0f} requests/s")
    return used_ms


@contextmanager
def nginx(port: int, upstream_port: int) -> Iterator[list[int]]:
    """nginx as a plain reverse proxy; yields its worker's process ids."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "nginx.conf"
        config.write_text(
            f"""
            daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
            events {{ worker_connections 512; }}
            http {{
              access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
              fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
              upstream up {{ server 127.0.0.1:{upstream_port}; keepalive 32; }}
              server {{
                listen 127.0.0.1:{port}; keepalive_requests 1000000;
                location / {{ proxy_pass http://up; proxy_http_version 1.1;
                  proxy_set_header Connection ""; proxy_buffering off; }}
              }}
            }}"""
        )
        process = subprocess.Popen(
            ["nginx", "-c", str(config), "-p", folder], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            asyncio.run(listening(port))
            yield children(process.pid)
        finally:
            process.terminate()
            process.wait()


@contextmanager
def scripted(port: int, chunks: int) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("upstream.py")),
         "--port", str(port), "--chunks", str(chunks)],
    )  # fmt: skip
    try:
        asyncio.run(listening(port))
        yield
    finally:
        process.terminate()
        process.wait()


async def listening(port: int) -> None:
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
            continue
        writer.close()
        return
    raise RuntimeError(f"nothing listens on {port}")


def first_answers() -> None:
    with tempfile.TemporaryDirectory(prefix="trunkline-hello-") as folder:
        base = free_port_base()
        cold_s, said = once(Path(folder) / "data", base)
        warm_s, _ = once(Path(folder) / "data", base)
    print("First answer (trunkline up --once, start to verified receipt to stopped)")
    print(f"    cold, empty data folder      {cold_s:8.1f} s")
    print(f"    warm                         {warm_s:8.1f} s   ratio {warm_s / cold_s:.2f}")
    print(f"    it said: {said.strip().splitlines()[0][:90]}")


def memory(network: Network) -> None:
    print("Memory per role (PSS: shared pages divided among those who share them)")
    total = 0
    for role in network.status()["roles"]:
        pids = [role["pid"], *children(role["pid"])]
        used = sum(map(memory_bytes, pids))
        total += used
        print(f"    {role['name']:<28} {used / 2**20:8.1f} MiB  in {len(pids)} processes")
    print(f"    {'together':<28} {total / 2**20:8.1f} MiB")


def door(count: int, chunks: int) -> None:
    upstream_port = free_port_base() + 40
    streamed = json.dumps({**REQUEST, "stream": True}, separators=(",", ":")).encode()
    whole = json.dumps(REQUEST, separators=(",", ":")).encode()
    path = "/v1/chat/completions"
    with (
        scripted(upstream_port, chunks),
        Network("--provider", f"scripted=http://127.0.0.1:{upstream_port}/v1") as network,
    ):
        memory(network)
        gateway = next(r["pid"] for r in network.status()["roles"] if r["name"] == "gateway")
        print(f"CPU per request, {chunks} chunks a stream, 8 connections, {count} requests each")
        own = {
            kind: measure(f"gateway, {kind}", [gateway], network.port_base, path, body, count)
            for kind, body in (("streamed", streamed), ("whole", whole))
        }
        if shutil.which("nginx") is None:
            print("    nginx is not installed: no peer in this run (Debian: nginx-light)")
            return
        port = network.port_base + 12
        with nginx(port, upstream_port) as pids:
            for kind, body in (("streamed", streamed), ("whole", whole)):
                floor = measure(f"nginx, {kind}", pids, port, path, body, count)
                if floor > 0:
                    print(f"    ratio gateway / nginx, {kind}: {own[kind] / floor:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--chunks", type=int, default=20)
    parser.add_argument("--only", choices=("first", "door"))
    options = parser.parse_args()
    if options.only != "door":
        first_answers()
    if options.only != "first":
        door(options.requests, options.chunks)


if __name__ == "__main__":
    main()
