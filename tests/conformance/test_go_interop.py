"""A log that is really served, read by Go's golang.org/x/mod/sumdb; and a note signed by Go.

The Go program is ``go/check.go``. It needs a Go toolchain and the module's source from a package
(``docs/verify-elsewhere.md``): nothing is fetched.
"""

import asyncio
import json
import os
import shutil
import subprocess
from base64 import b64encode
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.unit.log.conftest import LOG, Network

from trunkline.base.errors import SignatureError
from trunkline.crypto import note
from trunkline.crypto.keys import VerifierKey
from trunkline.receipts.batch import Batch, batch_text, open_batch
from trunkline.tlog.checkpoint import Checkpoint, open_checkpoint
from trunkline.tlog.tile import decode_bundle, new_tiles
from trunkline.tlog.tile_proof import consistency_proof, inclusion_proof

SOURCE = Path(__file__).with_name("go") / "check.go"
GO = shutil.which("go")
GOPATH = Path(os.environ.get("TRUNKLINE_GOPATH", "/usr/share/gocode"))
BEFORE, SIZE = 200, 300
"""Of the old and the new tree: the second has a full tile, a partial one, and a second level."""

SIGNED_TEXT = batch_text(
    node="go.example/node", count=3, root=b"\x07" * 32, previous=None, unix_ms=1_780_000_000_000
)

SIGNATURE = ("public", "message", "signature")
SIGNATURES = json.loads((SOURCE.parents[3] / "docs" / "spec" / "ed25519-vectors.json").read_text())[
    "cases"
]

pytestmark = [
    # One build and one log for all of these.
    pytest.mark.xdist_group("go"),
    pytest.mark.skipif(GO is None, reason="no Go toolchain on the PATH: interop is not tested"),
    pytest.mark.skipif(
        not (GOPATH / "src/golang.org/x/mod/sumdb").is_dir(),
        reason=f"no golang.org/x/mod below {GOPATH}: interop is not tested (set TRUNKLINE_GOPATH)",
    ),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    """``check.go``, built from the packaged sources alone."""
    built = tmp_path_factory.mktemp("go") / "check"
    environment = {
        **os.environ,
        "GO111MODULE": "off",
        "GOPATH": str(GOPATH),
        "GOPROXY": "off",
        "GOFLAGS": "",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
        "GOCACHE": os.environ.get("GOCACHE", str(built.parent / "cache")),
    }
    done = subprocess.run(
        [str(GO), "build", "-o", str(built), str(SOURCE)],
        env=environment, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return built


async def _serve(folder: Path) -> dict[str, Any]:
    """Fill a log with a witness, and fetch all that it serves."""
    async with AsyncExitStack() as stack:
        network = Network(folder, stack)
        stack.push_async_callback(network.transport.aclose)
        witness = await network.witness("one.example")
        async with network.log(witnesses=(witness,)) as (caller, _, _):
            policy = network.policy()

            async def grow(begin: int, end: int) -> bytes:
                entries = [network.entry(number) for number in range(begin, end)]
                indexes = await asyncio.gather(*map(caller.add, entries))
                last = entries[indexes.index(end - 1)]
                found = await caller.fetch_inclusion(last, end - 1, policy, timeout_s=90)
                return found.checkpoint_note

            old, new = await grow(0, BEFORE), await grow(BEFORE, SIZE)
            paths = [tile.path for tile in new_tiles(0, SIZE)]
            fetched = await asyncio.gather(*map(caller.tile, paths))
    return {"old": old, "new": new, "tiles": dict(zip(paths, fetched, strict=True))}


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> dict[str, Any]:
    return asyncio.run(_serve(tmp_path_factory.mktemp("log")))


def spell(items) -> list[str]:
    return [b64encode(item).decode() for item in items]


@pytest.fixture(scope="module")
def work(served) -> dict[str, Any]:
    """What the program is given: the log as served, and our proofs out of it."""
    tiles = served["tiles"]
    bundles = sorted(path for path in tiles if path.startswith("tile/entries/"))
    widths = (256, SIZE - 256)
    entries = [
        entry
        for path, width in zip(bundles, widths, strict=True)
        for entry in decode_bundle(tiles[path], width)
    ]
    return {
        "vkey": str(LOG.vkey),
        "old": served["old"].decode(),
        "new": served["new"].decode(),
        "tiles": {path: b64encode(data).decode() for path, data in tiles.items()},
        "entries": spell(entries),
        "inclusion": [spell(inclusion_proof(index, SIZE, tiles)) for index in range(SIZE)],
        "consistency": spell(consistency_proof(BEFORE, SIZE, tiles)),
        "sign_text": SIGNED_TEXT.decode(),
        "sign_name": "go.example/node",
        "signatures": [
            {name: b64encode(bytes.fromhex(case[name])).decode() for name in SIGNATURE}
            for case in SIGNATURES
        ],
    }


def run(program: Path, work: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(program)], input=json.dumps(work), capture_output=True, text=True, timeout=240
    )


@pytest.fixture(scope="module")
def found(program, work) -> dict[str, Any]:
    done = run(program, work)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_go_accepts_checkpoints_tiles_entries_and_proofs(found):
    assert (found["old_size"], found["new_size"], found["entries"]) == (BEFORE, SIZE, SIZE)
    # The witness's cosignature is a signature by a key that the program does not know.
    assert found["unknown"] == 1
    # Both tiles of the leaves and the one above them.
    assert found["tiles_read"] == 3


def flip(text: str, at: int) -> str:
    return text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda work: work | {"vkey": str(Network.node_key.vkey)}, "old checkpoint"),
        (lambda work: work | {"new": work["new"].replace("300", "299", 1)}, "new checkpoint"),
        (
            lambda work: (
                work
                | {"tiles": work["tiles"] | {"tile/0/000": flip(work["tiles"]["tile/0/000"], 9)}}
            ),
            "consistency",
        ),
        (
            lambda work: work | {"entries": [work["entries"][1], *work["entries"][1:]]},
            "inclusion of entry 0",
        ),
        (
            lambda work: work | {"inclusion": work["inclusion"][::-1]},
            "inclusion of entry 0",
        ),
        (lambda work: work | {"consistency": work["consistency"][:-1]}, "consistency"),
    ],
)
def test_go_refuses_what_is_spoilt(program, work, spoil, says):
    done = run(program, spoil(work))
    assert done.returncode == 1
    assert says in done.stderr


def test_go_takes_every_signature_that_counts_and_a_few_others(found):
    taken = list(zip(SIGNATURES, found["taken"], strict=True))
    assert all(go for case, go in taken if case["valid"])
    others = {case["comment"].partition(":")[0] for case, go in taken if go and not case["valid"]}
    assert others == {"key", "usual nonce, key", "nonce"}


def test_a_note_signed_by_go_is_accepted(found):
    key = VerifierKey.parse(found["signed_vkey"])
    signed = found["signed_note"].encode()
    assert open_batch(signed, key) == Batch.parse(SIGNED_TEXT)
    with pytest.raises(SignatureError):
        note.parse(signed.replace(b"\n3\n", b"\n4\n")).verify(key)


def test_the_key_that_go_made_has_our_spelling(found):
    assert str(VerifierKey.parse(found["signed_vkey"])) == found["signed_vkey"]


def test_the_checkpoints_are_our_log_s(served):
    sizes = [open_checkpoint(served[name], LOG.vkey).size for name in ("old", "new")]
    assert sizes == [BEFORE, SIZE]
    assert Checkpoint.parse(note.parse(served["new"]).text).origin == LOG.name
