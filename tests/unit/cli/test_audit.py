"""``trunkline audit show``: what it takes for the name of a receipt, and what it says of plants."""

from pathlib import Path

import msgspec
import pytest
from tests.support.audit_records import VERIFIER, verdict

from trunkline.base.errors import ConfigError
from trunkline.cli import audit
from trunkline.cli.exits import DONE, NO, UNABLE
from trunkline.cli.folder import Folder
from trunkline.crypto.signer import sign_note
from trunkline.gateway.alerts import AlertList
from trunkline.gateway.status import StandingRow
from trunkline.schema.audit import AlertPage, AlertStatement, RevealedVerdict, VerdictPage
from trunkline.verdicts import PLANT_CHECK, Check


@pytest.mark.parametrize(
    ("what", "leaf"), [("ab" * 32, "ab" * 32), ("ab" * 8 + "…", "ab" * 8), ("abcd1234", "abcd1234")]
)
def test_a_leaf_or_its_beginning(what: str, leaf: str, tmp_path: Path) -> None:
    assert audit._leaves(Folder(tmp_path), what) == [leaf]


@pytest.mark.parametrize("what", ["abcd123", "ABCD1234", "ab" * 33, "", "…", "abcd123g"])
def test_nothing_else(what: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="8 or more digits"):
        audit._leaves(Folder(tmp_path), what)


def test_one_beginning_means_one_receipt() -> None:
    found = [
        audit.Found(verifier="v", entry=None, verdict=verdict(receipt=leaf), note="")
        for leaf in ("ab" * 32, "ab" * 31 + "cd")
    ]
    audit._check_one("abababab", found[:1] * 2)
    audit._check_one("ans_1", found)
    with pytest.raises(ConfigError, match="several"):
        audit._check_one("abababab", found)


def found(
    by: str, result: str, *, withdraws: bool = False, receipt: str = "ab" * 32
) -> audit.Found:
    said = verdict(receipt=receipt, result=result, standing="failed")
    if withdraws:
        check = Check(detail="planted", name=PLANT_CHECK, result="not_applicable")
        said = msgspec.structs.replace(
            said, checks=(check,), drawn=msgspec.UNSET, result="not_applicable", standing="good"
        )
    return audit.Found(verifier=by, entry=1, verdict=said, note="")


def test_a_verdict_on_a_plant_is_shown_with_what_withdraws_it() -> None:
    drawn, back = found("mu", "fail"), found("mu", "not_applicable", withdraws=True)
    for each in ([drawn, back], [back, drawn]):
        (one,) = audit._taken_together(each)
        assert (one.verdict, one.withdrawal) == (drawn.verdict, back.verdict)


class Pages:
    """A verifier that tells one verdict at a time."""

    def __init__(self, *said: audit.Found) -> None:
        self.said = [
            RevealedVerdict(
                number=number,
                receipt=one.verdict.receipt,
                note=sign_note(one.verdict.text(), VERIFIER).decode(),
                entry=None,
            )
            for number, one in enumerate(said, 1)
        ]

    async def verdict(self, leaf: str) -> RevealedVerdict:
        return next(one for one in self.said if one.receipt == leaf)

    async def verdicts(self, after: int) -> VerdictPage:
        return VerdictPage(verdicts=tuple(self.said[after : after + 1]), newest=len(self.said))


@pytest.mark.parametrize("withdrawn", [True, False])
async def test_what_withdraws_a_verdict_is_found_behind_many_others(withdrawn: bool) -> None:
    others = [found("mu", "fail", receipt=f"{number:064x}") for number in range(4)]
    back = [found("mu", "not_applicable", withdraws=True)] if withdrawn else []
    told = Pages(found("mu", "fail"), *others, *back)
    verifier = audit._Verifier(name="mu", key=VERIFIER.vkey, caller=told)  # type: ignore[arg-type]
    (one,) = await audit._on(verifier, "ab" * 32)
    assert one.verdict.result == "fail"
    assert (one.withdrawal is not None) == withdrawn


def test_nobody_withdraws_another_s_verdict_or_one_on_another_receipt() -> None:
    drawn = found("mu", "fail")
    for other in (
        found("nu", "not_applicable", withdraws=True),
        found("mu", "not_applicable", withdraws=True, receipt="cd" * 32),
        found("mu", "not_applicable"),
    ):
        together = audit._taken_together([drawn, other])
        assert [one.withdrawal for one in together] == [None, None]


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ([("mu", "fail", True)], UNABLE),
        ([("mu", "fail", True), ("nu", "pass", False)], DONE),
        ([("mu", "fail", True), ("nu", "fail", False)], NO),
        ([("mu", "pass", False)], DONE),
        ([], UNABLE),
    ],
)
def test_what_was_planted_is_said_and_is_no_failure(
    said: list[tuple[str, str, bool]],
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    every = [found(by, result) for by, result, _ in said]
    every += [found(by, result, withdraws=True) for by, result, planted in said if planted]
    monkeypatch.setattr(audit, "_find", lambda *_: audit._taken_together(every))
    assert audit.show(Folder(tmp_path), "ab" * 32, as_program=False) == code
    shown = capsys.readouterr().out
    assert shown.count("planted: the node answered wrongly") == sum(one[2] for one in said)
    assert shown.count("its standing is good") == sum(one[2] for one in said)


class Written:
    """A verifier that has written down so many alerts, and tells 100 at a time."""

    def __init__(self, last: int, *, grows: bool = False) -> None:
        self.last, self.grows, self.asked = last, grows, 0

    async def alerts(self, after: int) -> AlertPage:
        self.asked += 1
        last = after + 100 if self.grows else min(after + 100, self.last)
        return AlertPage(alerts=tuple(written(number) for number in range(after + 1, last + 1)))


def written(number: int) -> AlertStatement:
    return AlertStatement(number=number, unix_ms=0, kind="gap", about="mu", detail="")


@pytest.mark.parametrize(("last", "shown"), [(0, []), (3, [1, 2, 3]), (230, list(range(181, 231)))])
async def test_the_newest_alerts_are_shown(last: int, shown: list[int]) -> None:
    newest = await audit._newest_alerts(Written(last))  # type: ignore[arg-type]
    assert [one.number for one in newest] == shown


async def test_a_verifier_that_writes_without_end_is_not_read_without_end() -> None:
    verifier = Written(0, grows=True)
    assert len(await audit._newest_alerts(verifier)) == audit.ALERTS_SHOWN  # type: ignore[arg-type]
    assert verifier.asked == audit.PAGES_MAX


WELL = AlertList(alerts=(), standings=(), verifiers=())
UNWELL = AlertList(
    alerts=(),
    standings=(
        StandingRow(node="n", model="m", standing="demoted", why="", by=(), verdicts=(), said_ms=0),
    ),
    verifiers=(),
)


@pytest.mark.parametrize(
    ("gateway", "verifiers", "code"),
    [
        (WELL, {"mu": 0, "nu": 0}, DONE),
        (WELL, {"mu": 0, "nu": 1}, NO),
        (UNWELL, {"mu": 0, "nu": 0}, NO),
        (UNWELL, {"mu": 0}, NO),
        (None, {"mu": 1}, NO),
        # Who does not answer may have something to say.
        (None, {"mu": 0, "nu": 0}, UNABLE),
        (WELL, {"mu": 0}, UNABLE),
    ],
)
def test_nothing_is_said_to_be_wrong_only_where_all_say_so(
    gateway: AlertList | None, verifiers: dict[str, int], code: int
) -> None:
    said = {name: tuple(map(written, range(count))) for name, count in verifiers.items()}
    found = audit.AllAlerts(gateway=gateway, verifiers=said)
    assert audit._alerts_exit(found, verifiers=2) == code
