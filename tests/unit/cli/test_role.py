"""What every role has in common when it is started as a process of its own."""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import msgspec
import pytest
import structlog

from trunkline.cli import role
from trunkline.runtime.logger import get_logger


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before, handlers = structlog.get_config(), logging.getLogger().handlers[:]
    yield
    structlog.configure(**before)
    logging.getLogger().handlers[:] = handlers


@pytest.mark.parametrize("name", role.ROOMS)
def test_the_diagnostics_of_every_role_are_json(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    room = ModuleType("toy_room")
    room.run = lambda config: get_logger(name).info("role.began", file=config.name)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "toy_room", room)
    monkeypatch.setitem(role.ROOMS, name, "toy_room")

    role.run(name, tmp_path / "role.toml")

    line = msgspec.json.decode(capsys.readouterr().err)
    assert (line["room"], line["event"], line["file"]) == (name, "role.began", "role.toml")
