"""The policy in force: swapped whole when its file changes, kept when the file is wrong."""

import asyncio
import os
from pathlib import Path

import pytest
from tests.support.verifier_hand import VerifierHand

from trunkline.base.errors import ConfigError
from trunkline.gateway import routing
from trunkline.gateway.core.demands import Verification
from trunkline.gateway.core.policy import RoutingPolicy
from trunkline.gateway.routing import Routing, example
from trunkline.runtime.clock import SystemClock
from trunkline.runtime.logger import get_logger

FAST = '[models.fast]\nuse = ["a"]\n'
OTHER = '[models.other]\nuse = ["b"]\n'
WRONG = '[models.fast]\nuse = ["a"]\nspeed = 9\n'


def over(path: Path | None) -> Routing:
    return Routing(path, clock=SystemClock(), logger=get_logger("gateway"))


def replace(path: Path, text: str) -> None:
    """As an editor that writes beside and renames."""
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.replace(path)


def test_without_a_file_the_defaults_are_in_force() -> None:
    found = over(None)
    found.reload()
    assert found.current == RoutingPolicy()
    assert (found.status().file, found.status().problem) == ("", "")


def test_the_example_changes_nothing_and_every_part_of_it_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "routing.toml"
    path.write_text(example())
    assert over(path).current == RoutingPolicy()
    hand = VerifierHand("one")
    whole = example([hand.policy])
    assert RoutingPolicy.parse(whole) == RoutingPolicy(
        verification=Verification(verifiers=(hand.policy,))
    )
    lines = [line.removeprefix("# ") for line in whole.split("\n")]
    begin = next(number for number, line in enumerate(lines) if line.startswith("["))
    settings = [line for line in lines[begin:] if line.startswith("[") or " = " in line]
    policy = RoutingPolicy.parse("\n".join(settings))
    assert set(policy.models) == {"fast", "gpt-5", "payments"}
    assert policy.verification is not None
    assert policy.verification.webhook
    assert policy.prices
    assert policy.classes
    assert policy.operators.deny
    assert policy.limits
    assert policy.hedging is not None
    assert policy.keys["my-app"].budget_usd


def test_a_wrong_file_is_refused_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "routing.toml"
    with pytest.raises(ConfigError, match="no such file"):
        over(path)
    path.write_text(WRONG)
    with pytest.raises(ConfigError, match=r"routing\.toml: line 3: models\.fast\.speed"):
        over(path)
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="UTF-8"):
        over(path)


def test_a_wrong_file_later_leaves_the_policy_in_force_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "routing.toml"
    path.write_text(FAST)
    found = over(path)
    before = found.current
    replace(path, WRONG)
    found.reload()
    assert found.current is before
    assert "line 3: models.fast.speed" in found.status().problem
    path.unlink()
    found.reload()
    assert found.current is before
    assert "no such file" in found.status().problem
    replace(path, OTHER)
    found.reload()
    assert set(found.current.models) == {"other"}
    assert found.status().problem == ""


class Watched:
    """A routing policy whose readings can be waited for."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(routing, "LOOK_S", 0.01)
        self.routing = over(path)
        self.read = asyncio.Event()
        self._reload = self.routing.reload
        monkeypatch.setattr(self.routing, "reload", self._noticed)

    def _noticed(self) -> None:
        self._reload()
        self.read.set()

    async def models(self) -> set[str]:
        """Those of the policy in force after the next reading."""
        async with asyncio.timeout(10.0):
            await self.read.wait()
        self.read.clear()
        return set(self.routing.current.models)


def test_what_is_emptied_or_no_file_any_more_lifts_no_limit(tmp_path: Path) -> None:
    path = tmp_path / "routing.toml"
    path.write_text(FAST)
    found = over(path)
    path.write_text("\n \n")
    found.reload()
    assert "empty" in found.status().problem
    path.unlink()
    os.mkfifo(path)
    # Nobody writes to the pipe: whoever reads it waits for ever.
    found.reload()
    assert "this is no file" in found.status().problem
    path.unlink()
    path.symlink_to(path)
    found.reload()
    assert "cannot be read" in found.status().problem
    assert set(found.current.models) == {"fast"}
    path.unlink()
    replace(path, OTHER)
    found.reload()
    assert set(found.current.models) == {"other"}


async def test_a_change_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "routing.toml"
    path.write_text(FAST)
    watched = Watched(path, monkeypatch)
    watched.routing.start()
    try:
        replace(path, OTHER)
        assert await watched.models() == {"other"}
        # The same length and, by a careless copy, the same time: it is another file all the same.
        stamp = path.stat().st_mtime_ns
        beside = tmp_path / "beside"
        beside.write_text(OTHER.replace("other", "third"))
        os.utime(beside, ns=(stamp, stamp))
        beside.replace(path)
        assert await watched.models() == {"third"}
        replace(path, WRONG)
        assert await watched.models() == {"third"}
        assert watched.routing.status().problem
    finally:
        await watched.routing.stop()


async def test_a_file_that_is_being_written_is_not_read_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "routing.toml"
    path.write_text(FAST)
    watched = Watched(path, monkeypatch)
    looks = iter([(1, 1, 1), (2, 1, 0), (3, 1, 7), (4, 1, 9), (4, 1, 9)])
    seen: list[tuple[int, int, int]] = []

    def look() -> tuple[int, int, int]:
        # Once the writing has stopped, nothing changes any more.
        seen.append(next(looks, (4, 1, 9)))
        return seen[-1]

    monkeypatch.setattr(watched.routing, "_look", look)
    watched.routing.start()
    await watched.models()
    await watched.routing.stop()
    # Not before the five looks of the watch, and the one of the reading itself.
    assert len(seen) >= 6
