"""``kill -9`` while nonces are reserved and handed out: none is ever handed out twice."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from trunkline.node.nonces import NONCES_RESERVED, RESERVE
from trunkline.node.store import create_store
from trunkline.runtime.crash import CRASH_VARIABLE

LIVES = 8
LINE_S_MAX = 60

PROGRAM = """
import asyncio, sys
from pathlib import Path
from trunkline.crypto.signer import Signer
from trunkline.node import store
from trunkline.node.nonces import Nonces
from trunkline.runtime.clock import SystemClock, SystemRandomness
from trunkline.runtime.crash import crash_hook

async def main():
    source = Nonces(
        Signer.generate("alpha.example/node", bytes(32)), store.open_store(Path(sys.argv[1])),
        clock=SystemClock(), randomness=SystemRandomness(), enqueue=None,
        crash=crash_hook(enabled=True),
    )
    while True:
        nonce = await source.take()
        print(nonce.root.hex(), nonce.index, nonce.value.hex(), flush=True)

asyncio.run(main())
"""


def life(folder: Path, lines: int, crash_at: str = "") -> list[str]:
    """What one process handed out until it was killed after ``lines`` lines, or at a point."""
    environment = os.environ | ({CRASH_VARIABLE: crash_at} if crash_at else {})
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder)], stdout=subprocess.PIPE, env=environment
    )
    assert process.stdout is not None
    pipe, said = process.stdout.fileno(), b""
    try:
        while said.count(b"\n") < lines:
            assert select.select([pipe], [], [], LINE_S_MAX)[0], "nothing came"
            piece = os.read(pipe, 65_536)
            if not piece:
                break
            said += piece
    finally:
        process.kill()
    # What it had written when it was killed counts as well; a half-written line does not.
    while piece := os.read(pipe, 65_536):
        said += piece
    process.stdout.close()
    assert process.wait(LINE_S_MAX) == -signal.SIGKILL
    return said.decode().split("\n")[:-1]


def test_no_nonce_is_handed_out_twice_whenever_it_is_killed(tmp_path: Path) -> None:
    create_store(tmp_path)
    handed: list[str] = []
    for number in range(LIVES):
        handed += life(tmp_path, lines=1 + number * RESERVE // 3)
        # Reserved on disk, and dead before one of them was given to anybody.
        assert life(tmp_path, lines=1, crash_at=NONCES_RESERVED) == []
    assert len(set(handed)) == len(handed) > LIVES * RESERVE
    values = {line.split()[2] for line in handed}
    assert len(values) == len(handed)
