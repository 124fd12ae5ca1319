"""What is typed for an answer: its id, or the one that an app has of it."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from trunkline.cli import audit, export, receipts, verify
from trunkline.cli.folder import Folder
from trunkline.cli.main import app
from trunkline.cli.options import answer_id
from trunkline.gateway.writer import message_id, response_id
from trunkline.inference.answer import AnswerHead

ANSWER = "ans_5g6q4wwdb6ugqc33gsxilmap"
HEAD = AnswerHead(answer=ANSWER, created_s=1, model="m", fingerprint="")
APP_IDS = [message_id(ANSWER), response_id(ANSWER), HEAD.completion_id]


@pytest.mark.parametrize("what", [ANSWER, *APP_IDS])
def test_an_answer_is_known_by_what_its_app_calls_it(what: str) -> None:
    assert answer_id(what) == ANSWER


@pytest.mark.parametrize(
    "what",
    ["", "febe4cad4de3ae76", "chatcmpl-short", "msg_" + "A" * 24, "x" + APP_IDS[0], "a.json"],
)
def test_anything_else_is_left_as_it_is(what: str) -> None:
    assert answer_id(what) == what


@pytest.mark.parametrize(
    ("command", "room", "name"),
    [
        (("audit", "show"), audit, "show"),
        (("audit", "recompute"), audit, "recompute"),
        (("receipts", "show"), receipts, "show"),
        (("receipts", "export"), export, "command"),
    ],
)
@pytest.mark.parametrize("what", APP_IDS)
def test_every_command_takes_it(
    command: tuple[str, ...],
    room: object,
    name: str,
    what: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard: list[object] = []

    def hear(_folder: object, told: object, *_: object, **__: object) -> int:
        heard.append(told)
        return 0

    monkeypatch.setattr(room, name, hear)
    assert CliRunner().invoke(app, [*command, what]).exit_code == 0
    assert heard == [[ANSWER] if name == "command" else ANSWER]


def test_a_file_of_that_name_is_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / APP_IDS[0]).write_bytes(b"a file")
    found = verify._evidence(APP_IDS[0], Folder(tmp_path), 0)
    assert found == b"a file"
