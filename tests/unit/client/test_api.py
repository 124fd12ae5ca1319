"""The root package: its door is complete, and opening it starts nothing."""

import subprocess
import sys
from types import ModuleType

import trunkline

FORBIDDEN = (
    *("asyncio", "http", "httptools", "openai", "socket", "sqlite3", "ssl", "subprocess"),
    *("structlog", "typer", "urllib.request", "uvicorn", "uvloop", "numpy", "xllamacpp"),
    *(f"trunkline.{room}" for room in ("cli", "client", "gateway", "log", "node")),
    *(f"trunkline.{room}" for room in ("remote", "runtime", "sampling", "witness")),
    # Nothing here can sign.
    "trunkline.crypto.signer",
)


def test_all_names_every_public_name() -> None:
    public = {
        name
        for name, value in vars(trunkline).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert set(trunkline.__all__) == public | {"__version__"}
    assert trunkline.__all__ == sorted(trunkline.__all__)


def test_verifying_loads_no_network_and_no_service() -> None:
    program = (
        "import sys, trunkline\n"
        "report = trunkline.verify(b'{}')\n"
        "assert report.outcome == 'fail', report\n"
        "print('\\n'.join(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=240
    )
    loaded = set(done.stdout.split())
    assert "trunkline.evidence" in loaded
    assert loaded.isdisjoint(FORBIDDEN)
