"""``trunkline verify`` over a file about a log that contradicted itself."""

import json
from pathlib import Path

import pytest

from trunkline.cli import verify
from trunkline.cli.exits import DONE, NO, UNABLE
from trunkline.cli.folder import Folder
from trunkline.crypto.signer import Signer, sign_note
from trunkline.evidence import split_view
from trunkline.tlog.checkpoint import Checkpoint

LOG = Signer.generate("gamma.example/log", b"\x01" * 32)


def run(path: Path, folder: Path, policy: Path | None, *, as_program: bool = False) -> int:
    return verify.command(
        str(path),
        Folder(folder),
        policy=policy,
        keys=None,
        request=None,
        response=None,
        wait_s=0,
        trust_file=False,
        as_program=as_program,
    )


def test_it_says_what_is_proven_and_to_whom(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trees = [Checkpoint(origin=LOG.name, size=7, root=bytes([n]) * 32).text() for n in (1, 2)]
    notes = (sign_note(trees[0], LOG), sign_note(trees[1], LOG))
    data = split_view.encode(LOG.vkey, notes, ())
    path, policy = tmp_path / "a.split-view.json", tmp_path / "policy"
    path.write_bytes(data)
    policy.write_text(f"log {LOG.vkey}\nquorum none\n")
    assert run(path, tmp_path, policy) == DONE
    assert (
        "gamma.example/log signed two trees that contradict each other" in capsys.readouterr().out
    )
    assert run(path, tmp_path / "nowhere", None) == UNABLE
    assert run(path, tmp_path, policy, as_program=True) == DONE
    record = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (record["type"], record["outcome"]) == ("trunkline.split-view/v1", "pass")
    path.write_bytes(data.replace(b"\\n7\\n", b"\\n8\\n"))
    assert run(path, tmp_path, policy) == NO
