"""An operator's key at the command line: stated, revoked; and what a reader makes of it."""

import stat
from pathlib import Path

import pytest
from tests.unit.evidence import make_vectors as made
from typer.testing import CliRunner

from trunkline.base.errors import ConfigError
from trunkline.base.ports import Clock
from trunkline.cli import operator
from trunkline.cli.main import app
from trunkline.evidence import decode_keys, encode, verify

NODE = str(made.ALPHA.vkey)
BEFORE_MS = 1_780_000_000_000


class Clocks:
    """Time stands where a test puts it."""

    now_ms = BEFORE_MS

    def unix_ms(self) -> int:
        return Clocks.now_ms

    def monotonic_s(self) -> float:
        return Clocks.now_ms / 1000


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An operator's two files, as options."""
    clock: Clock = Clocks()
    monkeypatch.setattr(operator, "SystemClock", lambda: clock)
    monkeypatch.setattr(Clocks, "now_ms", BEFORE_MS)
    files = ["--key", str(tmp_path / "own.key"), "--public", str(tmp_path / "own.json")]
    done = CliRunner().invoke(app, ["operator", "create", "alpha.example", *files])
    assert done.exit_code == 0, done.output
    return files


def say(*words: str) -> str:
    done = CliRunner().invoke(app, ["operator", *words])
    assert done.exit_code == 0, done.output
    return done.output


def outcome(desk: list[str]) -> str:
    """Of evidence that witnesses saw at ``WITNESSED_S``, by the public file alone."""
    data = encode(made.evidence(made.part(made.receipt())))
    pinned = decode_keys(Path(desk[3]).read_bytes())
    return verify(data, policy=made.POLICY, trusted_keys=pinned).outcome


def test_the_key_is_a_secret_and_never_overwritten(desk: list[str]) -> None:
    key, public = Path(desk[1]), Path(desk[3])
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert key.read_text().strip() not in public.read_text()
    for again in (public, public.with_name("other.json")):
        with pytest.raises(ConfigError, match="not overwritten"):
            operator.create("alpha.example", key=key, public=again)
    with pytest.raises(ConfigError, match="not a key name"):
        operator.create("a b", key=key.with_name("k"), public=public.with_name("p"))


def test_a_stated_key_counts_for_its_days_alone(
    desk: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert outcome(desk) == "inconclusive"
    note = say("state", NODE, *desk, "--days", "1")
    assert note.startswith("trunkline.key/v1\nalpha.example\n")
    assert outcome(desk) == "pass"
    monkeypatch.setattr(Clocks, "now_ms", BEFORE_MS + 10_000)
    say("revoke", NODE, *desk)
    # It was in the log eight seconds before: honest history stays.
    assert outcome(desk) == "pass"


def test_what_is_logged_after_a_revocation_is_refused(desk: list[str]) -> None:
    say("state", NODE, *desk)
    say("revoke", NODE, *desk)
    assert outcome(desk) == "fail"


def test_a_key_stated_too_late_does_not_count_backwards(
    desk: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Clocks, "now_ms", BEFORE_MS + 5_000)
    say("state", NODE, *desk)
    assert outcome(desk) == "fail"


def test_what_is_refused(desk: list[str], tmp_path: Path) -> None:
    key, public = Path(desk[1]), Path(desk[3])
    with pytest.raises(ConfigError, match="the node's key"):
        operator.state("no key", key=key, public=public, days=1, log=None)
    other = tmp_path / "other.key"
    operator.create("alpha.example", key=other, public=tmp_path / "other.json")
    with pytest.raises(ConfigError, match="not the public file"):
        operator.state(NODE, key=other, public=public, days=1, log=None)
    with pytest.raises(ConfigError, match="cannot be read"):
        operator.revoke(NODE, key=key, public=tmp_path / "none", log=None)
