"""``trunkline.verify`` as a library: alone, offline, and light."""

import json
import subprocess
import sys
from pathlib import Path

VECTORS = Path(__file__).parents[2] / "docs" / "spec" / "evidence-vectors.json"
PROGRAM = """
import json, sys, trunkline
document = json.load(open(sys.argv[1]))
keys = [trunkline.EvidenceKey(**key) for key in document["trusted_keys"]]
evidence = document["cases"][0]["evidence"].encode()
report = trunkline.verify(evidence, policy=document["policy"], trusted_keys=keys)
print(json.dumps([report.outcome, sorted(sys.modules)]))
"""
OURS = {"base", "crypto", "evidence", "receipts", "schema", "tlog", "verdicts"}
"""Rooms that verifying loads."""
FOREIGN = {
    "asyncio", "socket", "ssl", "http", "http.client", "urllib.request", "sqlite3", "subprocess",
    "httptools", "httpx", "aiohttp", "requests", "uvicorn", "uvloop", "openai", "anthropic",
    "numpy", "structlog", "typer", "rich",
}  # fmt: skip


def test_verifying_loads_no_gateway_and_no_http() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(VECTORS)], capture_output=True, text=True, check=True
    )
    outcome, loaded = json.loads(done.stdout)
    assert outcome == "pass"
    rooms = {name.split(".")[1] for name in loaded if name.startswith("trunkline.")}
    assert rooms == OURS
    assert FOREIGN.isdisjoint(loaded)
