"""``trunkline audit verifiers`` and ``nodes``: the log is read whole, verified, and judged."""

import asyncio
import json
from pathlib import Path

import msgspec
import pytest
from tests.support import audit_records as make

from trunkline.base.errors import ConfigError, ConsistencyError, QuorumError
from trunkline.cli import conduct
from trunkline.cli.folder import Folder, NetworkFile, RoleEntry
from trunkline.crypto import merkle, note
from trunkline.crypto.signer import sign_note
from trunkline.evidence import EvidenceKey
from trunkline.receipts import NonceCommitment
from trunkline.tlog.checkpoint import Checkpoint
from trunkline.tlog.tile import TILE_WIDTH, Tile, encode_bundle

POLICY_TEXT = f"log {make.LOG.vkey}\nwitness one {make.WITNESS.cosigner_vkey}\nquorum one\n"


class FakeLog:
    """Serves these entries, under a checkpoint of ``signed`` ones."""

    def __init__(
        self, entries: list[bytes], *, signed: list[bytes] | None = None, cosigned: bool = True
    ) -> None:
        self.entries = entries
        self._signed = entries if signed is None else signed
        self._cosigned = cosigned

    async def checkpoint(self) -> bytes:
        root = merkle.root([merkle.leaf_hash(entry) for entry in self._signed])
        text = Checkpoint(origin=make.LOG.name, size=len(self._signed), root=root).text()
        lines = [make.LOG.signature(text)]
        if self._cosigned:
            lines.append(make.WITNESS.cosignature(text, make.NOW_MS // 1000))
        return note.format(text, lines)

    async def tile(self, path: str) -> bytes:
        tile = Tile.parse(path)
        start = tile.index * TILE_WIDTH
        return encode_bundle(self.entries[start : start + tile.width])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """A network that pins one verifier."""
    made = Folder(tmp_path)
    key = make.VERIFIER.vkey
    pinned = EvidenceKey(name=key.name, vkey=str(key), role="verifier", operator="gamma.example")
    (tmp_path / "keys.json").write_bytes(msgspec.json.encode([pinned]))
    (tmp_path / "policy").write_text(POLICY_TEXT)
    log = RoleEntry(name="log", role="log", key=make.LOG.name, listen="127.0.0.1:1")
    monkeypatch.setattr(Folder, "network", lambda self: NetworkFile(id="test", roles=(log,)))
    return made


def serve(monkeypatch: pytest.MonkeyPatch, log: FakeLog) -> None:
    monkeypatch.setattr(conduct, "LogCaller", lambda transport, url: log)


HONEST = [b"another entry", make.signed(make.commitment(make.signed(make.verdict())))]
HONEST.append(make.signed(make.verdict()))


def test_nothing_is_found_against_an_honest_verifier(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(monkeypatch, FakeLog([b"entry %d" % at for at in range(300)] + HONEST))
    assert conduct.verifiers(folder, as_program=True) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["verifier"], found["verdicts"], found["findings"]) == (make.VERIFIER.name, 1, [])
    assert conduct.verifiers(folder, as_program=False) == 0
    assert "by 303 entries of the log" in capsys.readouterr().out


def test_a_lie_is_told_with_its_place(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    second = make.signed(make.verdict(result="inconclusive"))
    serve(monkeypatch, FakeLog([*HONEST, second]))
    assert conduct.verifiers(folder, as_program=False) == 1
    assert "entry 3: a second verdict on one drawn receipt" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("log", "error"),
    [
        (FakeLog(HONEST[::-1], signed=HONEST), ConsistencyError),
        (FakeLog(HONEST, cosigned=False), QuorumError),
    ],
)
def test_entries_that_nobody_vouches_for_are_not_judged(
    log: FakeLog, error: type[Exception], folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, log)
    with pytest.raises(error):
        conduct.verifiers(folder, as_program=True)


def test_a_log_that_is_too_long_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, FakeLog(HONEST))
    monkeypatch.setattr(conduct, "ENTRIES_MAX", 2)
    policy = conduct.Policy.parse(POLICY_TEXT)
    with pytest.raises(ConfigError, match="more than 2"):
        asyncio.run(conduct.read_log("http://127.0.0.1:1", policy))


def test_nodes_are_told_by_what_they_are_bound_to(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = make.NODE.vkey
    pinned = EvidenceKey(name=key.name, vkey=str(key), role="node", operator="alpha.example")
    (folder.path / "keys.json").write_bytes(msgspec.json.encode([pinned]))
    said = NonceCommitment(node=key.name, count=1024, root=b"\x07" * 32, unix_ms=1)
    bound = sign_note(said.text(), make.NODE)
    serve(monkeypatch, FakeLog([bound] * 3))
    assert conduct.nodes(folder, as_program=True) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["node"], found["nonces"], found["receipts"]) == (key.name, 3072, 0)
    serve(monkeypatch, FakeLog([bound] * 4))
    assert conduct.nodes(folder, as_program=False) == 1
    assert "it can choose among them" in " ".join(capsys.readouterr().out.split())
