"""What the program says of itself: documented, quick, and without a traceback."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from tests.support.network import command

from trunkline.cli.main import app

ROOT = Path(__file__).resolve().parents[3]
HEAVY = ("openai", "uvicorn", "uvloop", "numpy", "rich", "asyncio", "structlog", "httptools")


def load_docs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_script", ROOT / "scripts" / "docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_what_the_program_says() -> None:
    assert (ROOT / "docs" / "cli.md").read_text() == load_docs().render(), "run `make docs`"


def test_the_reference_has_every_command() -> None:
    documented = set(load_docs().COMMANDS)
    declared = {(each.name or getattr(each.callback, "__name__", "?"),)
                for each in app.registered_commands}  # fmt: skip
    for group in app.registered_groups:
        assert group.name is not None
        assert group.typer_instance is not None
        declared.add((group.name,))
        declared |= {
            (group.name, each.name or "?") for each in group.typer_instance.registered_commands
        }

    assert documented == declared | {()}


def test_asking_for_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from trunkline.cli.main import app; "
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=240
    )

    assert done.stdout.strip() == "[]"


def test_the_version_is_said() -> None:
    assert command("--version").out.startswith("trunkline 0.")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("status",), "no network in"),
        (("chat",), "no network in"),
        (("receipts", "ls"), "no network in"),
        (("drill", "kill-node"), "no network in"),
        (("node",), "no network in"),
        (("verify", "ans_" + "a" * 24), "no network in"),
        (("log", "fsck"), "no such store"),
    ],
)
def test_without_a_network_one_line_says_what_to_do(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = command(*arguments, "--data", str(tmp_path / "nowhere"))

    assert done.code == 2
    assert said in done.err
    assert done.err.count("\n") == 1


def test_what_does_not_exist_can_not_be_verified(tmp_path: Path) -> None:
    done = command("verify", str(tmp_path / "no.json"), "--data", str(tmp_path))

    assert (done.code, done.out) == (2, "")
    assert "no such file" in done.err


def test_what_is_no_evidence_does_not_verify(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(b"\xff\x00{")
    done = command("verify", str(file), "--json", "--data", str(tmp_path))

    assert done.code == 1
    assert done.json()["outcome"] == "fail"


def test_evidence_may_come_from_a_pipe(tmp_path: Path) -> None:
    assert command("verify", "-", "--data", str(tmp_path), stdin="{}").code == 1


def test_asking_once_and_going_on_is_a_contradiction(tmp_path: Path) -> None:
    done = command("up", "--ask", "a", "--once", "b", "--data", str(tmp_path / "net"))

    assert done.code == 2
    assert not (tmp_path / "net").exists()
