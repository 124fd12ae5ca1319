"""``trunkline receipts``: which answers, what is said of them, and what is left out of a folder."""

import asyncio
import json
import os
import resource
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest

from trunkline.base.errors import BadResponseError, ConfigError
from trunkline.cli import api, export, moment, receipts
from trunkline.cli.exits import DONE, UNABLE
from trunkline.cli.folder import Folder
from trunkline.gateway.store import AnswerRow, Wanted

VECTORS = json.loads(
    (Path(__file__).parents[3] / "docs" / "spec" / "evidence-vectors.json").read_text()
)
CASES = {case["name"]: case["evidence"].encode() for case in VECTORS["cases"]}
FINAL, PROVISIONAL = CASES["final"], CASES["provisional"]
NOW = datetime(2026, 11, 21, 14, 0, tzinfo=UTC)


class Gateway:
    """What the commands hear of one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers = {"ans_1": FINAL, "ans_2": PROVISIONAL, "ans_3": FINAL}
        self.asked: list[tuple[int, Wanted]] = []
        self.waited: list[int] = []
        monkeypatch.setattr(api, "evidence", self.evidence)
        monkeypatch.setattr(api, "newest", self.newest)

    async def evidence(self, base_url: str, answer: str, *, wait_s: int = 0) -> bytes:
        self.waited.append(wait_s)
        if answer not in self.answers:
            raise api.NotFoundError("no such answer")
        if not self.answers[answer]:
            raise BadResponseError("the gateway answered with no evidence file")
        return self.answers[answer]

    async def newest(self, base_url: str, limit: int, wanted: Wanted) -> list[AnswerRow]:
        self.asked.append((limit, wanted))
        return [
            AnswerRow(
                answer=name, created_ms=1_780_000_000_000, ended_ms=1_780_000_001_000,
                format="openai.chat", model="tiny", node="alpha.example/node",
                operator="alpha.example", attempts=1,
                state="provisional" if data is PROVISIONAL else "final",
            )
            for name, data in self.answers.items()
        ]  # fmt: skip


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Gateway:
    return Gateway(monkeypatch)


@pytest.fixture
def folder() -> Folder:
    one = SimpleNamespace(one=lambda name: SimpleNamespace(url="http://127.0.0.1:1"))
    return cast(Folder, SimpleNamespace(network=lambda: one))


def exported(
    folder: Folder, *answers: str, into: Path | None = None, to: Path | None = None
) -> int:
    return export.command(folder, answers, Wanted(), limit=20, to=to, into=into, wait_s=0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2026-11-21", datetime(2026, 11, 21, tzinfo=UTC)),
        ("2026-11-21T13:05", datetime(2026, 11, 21, 13, 5, tzinfo=UTC)),
        ("2026-11-21T13:05+02:00", datetime(2026, 11, 21, 11, 5, tzinfo=UTC)),
        ("2026-11-21T13:05Z", datetime(2026, 11, 21, 13, 5, tzinfo=UTC)),
        ("90m", NOW - timedelta(minutes=90)),
        ("7d", NOW - timedelta(days=7)),
    ],
)
def test_times_as_people_type_them(text: str, said: datetime) -> None:
    assert moment.unix_ms(text, NOW) == int(said.timestamp() * 1000)


def test_a_time_without_offset_is_the_readers_own() -> None:
    east = NOW.astimezone(timezone(timedelta(hours=3)))
    assert moment.unix_ms("2026-11-21T13:05", east) == int(
        datetime(2026, 11, 21, 10, 5, tzinfo=UTC).timestamp() * 1000
    )


@pytest.mark.parametrize("text", ["1969-12-31", "0001-01-02", "999999h"])
def test_nothing_is_older_than_unix_time(text: str) -> None:
    """The gateway takes no moment before it."""
    assert moment.unix_ms(text, NOW) == 0


@pytest.mark.parametrize(
    "text", ["", "yesterday", "5", "5w", "-5m", "13:05", "999999d", "2026-13-01"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is no time"):
        moment.unix_ms(text, NOW)


def test_the_list_says_what_is_proved_and_what_is_pending(
    gateway: Gateway, folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = Wanted(model="tiny", state="final")
    assert receipts.ls(folder, wanted, limit=5, as_program=False) == DONE
    assert "2 final: proved to be in the log; 1 provisional: not yet" in capsys.readouterr().out
    assert receipts.ls(folder, wanted, limit=5, as_program=True) == DONE
    assert [row["state"] for row in json.loads(capsys.readouterr().out)] == [
        "final", "provisional", "final",
    ]  # fmt: skip
    assert gateway.asked == [(5, wanted)] * 2
    gateway.answers.clear()
    receipts.ls(folder, wanted, limit=5, as_program=False)
    assert capsys.readouterr().out == "no such answers\n"


def test_a_receipt_says_its_place_in_the_log(
    gateway: Gateway, folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    receipts.show(folder, "ans_1", as_program=False)
    assert "final: entry 2 of log.example, in its tree of 4; receipt 2" in capsys.readouterr().out
    receipts.show(folder, "ans_2", as_program=False)
    assert "provisional: signed, and not proved to be in the log yet" in capsys.readouterr().out


def test_a_folder_takes_what_is_final_and_names_the_rest(
    gateway: Gateway, folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    into = tmp_path / "evidence"
    assert exported(folder, into=into) == UNABLE
    said = capsys.readouterr()
    assert said.out == f"{into}: 2 written, 0 there already\n"
    assert said.err == "left out: ans_2: not proved to be in the log yet; export again later\n"
    assert {path.name: path.read_bytes() for path in into.iterdir()} == {
        "ans_1.evidence.json": FINAL, "ans_3.evidence.json": FINAL,
    }  # fmt: skip
    assert (into / "ans_1.evidence.json").stat().st_mode & 0o777 == 0o600

    gateway.answers["ans_2"] = FINAL
    (into / "ans_1.evidence.json").write_text("mine")
    assert exported(folder, into=into) == DONE
    assert capsys.readouterr().out == f"{into}: 1 written, 2 there already\n"
    assert (into / "ans_1.evidence.json").read_text() == "mine"


def test_a_folder_of_answers_by_name(
    gateway: Gateway, folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exported(folder, "ans_3", "ans_9", "ans_3", into=tmp_path) == UNABLE
    assert capsys.readouterr().err == "left out: ans_9: the gateway has no such answer\n"
    assert [path.name for path in tmp_path.iterdir()] == ["ans_3.evidence.json"]
    assert gateway.asked == []


def test_one_answer_is_one_file(
    gateway: Gateway, folder: Folder, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    to = tmp_path / "a.json"
    assert exported(folder, "ans_2", to=to) == DONE
    assert to.read_bytes() == PROVISIONAL
    assert b"ans_2 is provisional: signed" in capsysbinary.readouterr().err
    with pytest.raises(ConfigError, match="not overwritten"):
        exported(folder, "ans_2", to=to)
    assert exported(folder, "ans_1") == DONE
    assert capsysbinary.readouterr() == (FINAL + b"\n", b"")


def test_one_that_can_not_be_had_keeps_no_other_from_the_folder(
    gateway: Gateway, folder: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.answers["ans_1"] = b""
    assert exported(folder, "ans_1", "ans_3", into=tmp_path) == UNABLE
    assert capsys.readouterr() == (
        f"{tmp_path}: 1 written, 0 there already\n",
        "left out: ans_1: the gateway answered with no evidence file\n",
    )


def test_a_folder_that_can_not_be_is_named(
    gateway: Gateway, folder: Folder, tmp_path: Path
) -> None:
    taken = tmp_path / "taken"
    taken.touch()
    with pytest.raises(ConfigError, match=r"taken: no folder can be made there: .*--folder"):
        exported(folder, "ans_1", into=taken)


def test_a_full_disk_leaves_no_half_of_a_file(
    gateway: Gateway, folder: Folder, tmp_path: Path
) -> None:
    """It would be taken for the whole one by every export after."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(FINAL) - 1, limits[1]))
    try:
        with pytest.raises(ConfigError, match="cannot be written"):
            exported(folder, "ans_1", into=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []
    assert exported(folder, "ans_1", into=tmp_path) == DONE


def test_a_file_is_written_where_there_are_no_links(
    gateway: Gateway, folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    assert exported(folder, "ans_1", to=tmp_path / "a") == DONE
    with pytest.raises(ConfigError, match="not overwritten"):
        exported(folder, "ans_3", to=tmp_path / "a")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": FINAL}


def test_what_can_not_be_meant_is_said(gateway: Gateway, folder: Folder, tmp_path: Path) -> None:
    for answers in ((), ("ans_1", "ans_2")):
        with pytest.raises(ConfigError, match="one answer's id, or --folder"):
            exported(folder, *answers)
    with pytest.raises(ConfigError, match="say one of them"):
        exported(folder, "ans_1", to=tmp_path / "a", into=tmp_path)
    with pytest.raises(ConfigError, match="not both"):
        export.command(
            folder, ["ans_1"], Wanted(model="m"), limit=1, to=None, into=tmp_path, wait_s=0
        )
    with pytest.raises(ConfigError, match="not both"):
        export.command(folder, ["ans_1"], Wanted(model="m"), limit=1, to=None, into=None, wait_s=0)
    assert gateway.waited == []


@pytest.mark.parametrize(("limit", "said"), [(3, True), (4, False)])
def test_where_there_may_be_more_than_was_looked_at_is_said(
    gateway: Gateway,
    folder: Folder,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    limit: int,
    said: bool,
) -> None:
    gateway.answers["ans_2"] = FINAL
    code = export.command(folder, [], Wanted(), limit=limit, to=None, into=tmp_path, wait_s=0)
    assert code == DONE
    assert ("looked at the newest 3 alone" in capsys.readouterr().err) == said


def test_filters_reach_the_gateway_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def get(url: str, **bounds: object) -> bytes:
        asked.append(url)
        return msgspec.json.encode({"answers": []})

    monkeypatch.setattr(api, "get", get)
    asyncio.run(api.newest("http://g", 3, Wanted(model="a b", since_ms=0)))
    asyncio.run(api.newest("http://g", 3, Wanted()))
    assert asked == [
        "http://g/trunkline/v1/receipts?limit=3&model=a+b&since_ms=0",
        "http://g/trunkline/v1/receipts?limit=3",
    ]
