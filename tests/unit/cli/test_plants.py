"""``trunkline audit plants``: what was planted, what was said of it, and what comes of it here."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support import audit_records as make
from tests.support import planting
from tests.support.auditing import NODE, Made, ToyScorer
from tests.unit.cli.test_conduct import POLICY_TEXT, FakeLog, serve

from trunkline.cli import plants
from trunkline.cli.folder import Folder, NetworkFile, RoleEntry
from trunkline.crypto.signer import Signer
from trunkline.evidence import EvidenceKey

PLANTER, LAZY = make.VERIFIER, make.OTHER


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """A network that pins two verifiers and a node."""
    pinned = [
        EvidenceKey(name=key.name, vkey=str(key.vkey), role=role, operator=key.name)
        for key, role in ((PLANTER, "verifier"), (LAZY, "verifier"), (NODE, "node"))
    ]
    (tmp_path / "keys.json").write_bytes(msgspec.json.encode(pinned))
    (tmp_path / "policy").write_text(POLICY_TEXT)
    log = RoleEntry(name="log", role="log", key=make.LOG.name, listen="127.0.0.1:1")
    monkeypatch.setattr(Folder, "network", lambda self: NetworkFile(id="test", roles=(log,)))
    return Folder(tmp_path)


def planted(number: int, *, expect: str = "fail", wrong: bool = True) -> tuple[Made, bytes]:
    """An answer, and what opens it as a plant."""
    note = planting.plant(PLANTER, number, expect=expect)
    made = planting.answered(note, number, wrong=wrong)
    without = {} if expect == "fail" else {"accepted": ""}
    return made, planting.opening(PLANTER, note, made, planting.signed(made), **without)


def said(signer: Signer, made: Made, result: str) -> bytes:
    checks = () if result == "pass" else make.verdict().checks
    verdict = make.verdict(signer, receipt=made.leaf.hex(), result=result, checks=checks)
    return make.signed(verdict, signer)


def shown(
    folder: Folder,
    entries: Sequence[bytes],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> tuple[int, list[dict[str, Any]]]:
    """The exit code and the rows, replayed by the toy."""
    serve(monkeypatch, FakeLog(list(entries)))
    code = plants.plants(
        folder,
        again=True,
        as_program=True,
        engine=lambda _: ToyScorer(),  # type: ignore[arg-type, return-value]
    )
    return code, json.loads(capsys.readouterr().out)


def test_what_a_lazy_verifier_missed_is_shown_and_proved(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made, opening = planted(1)
    verdicts = [said(PLANTER, made, "fail"), said(LAZY, made, "pass")]
    code, (row,) = shown(folder, [*verdicts, b"trunkline.plant-opening/v1\n", opening],
                         monkeypatch, capsys)  # fmt: skip
    assert code == 1
    assert (row["entry"], row["expect"], row["replayed"]) == (3, "fail", "fail")
    assert row["said"] == {PLANTER.name: "fail", LAZY.name: "pass"}
    assert plants.plants(folder, again=False, as_program=False) == 1
    assert made.leaf.hex()[:8] in capsys.readouterr().out


def test_a_liar_among_two_is_found_by_whoever_has_the_model(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made, opening = planted(1, expect="pass", wrong=False)
    verdicts = [said(PLANTER, made, "pass"), said(LAZY, made, "fail")]
    code, (row,) = shown(folder, [*verdicts, opening], monkeypatch, capsys)
    assert (code, row["replayed"]) == (1, "pass")


def test_a_plot_of_planter_and_node_is_found_too(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Agreed to, and answered rightly: the verifier that passes it is in the right."""
    made, opening = planted(1, wrong=False)
    code, (row,) = shown(folder, [said(PLANTER, made, "fail"), opening], monkeypatch, capsys)
    assert (code, row["expect"], row["replayed"]) == (1, "fail", "pass")


def test_what_was_found_out_is_no_fault(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made, opening = planted(1)
    verdicts = [said(PLANTER, made, "fail"), said(LAZY, made, "fail")]
    code, (row,) = shown(folder, [*verdicts, opening], monkeypatch, capsys)
    assert (code, row["replayed"]) == (0, "fail")
    serve(monkeypatch, FakeLog(verdicts))
    assert plants.plants(folder, again=False, as_program=False) == 0
    assert "no plants" in capsys.readouterr().out
