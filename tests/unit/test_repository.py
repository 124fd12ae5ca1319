"""The repository's own rules: what a reviewer would otherwise have to look for by hand."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILE_LINES_MAX = {"src": 600, "scripts": 600, "bench": 600, "tests": 800}
FUNCTION_LINES_MAX = 100
REASON = re.compile(r"one thing|one file because|one module because", re.IGNORECASE)
TEXT_SUFFIXES = {".py", ".md", ".toml", ".sh", ".json", ".txt", ".cfg", ""}
MACHINE = re.compile(
    r"/(?:home|root|work|Users)/[a-z]|https?://[^\s/]*(?:pypi|artifactory|nexus|registry)[^\s/]*/",
    re.IGNORECASE,
)
SLEEPS = {("time", "sleep"), ("asyncio", "sleep")}
POLL_S_MAX = 0.25
"""A pause inside a loop that polls, or a zero that yields; more is a guess at a duration."""


def tracked() -> list[Path]:
    """Every file that git knows, as of now on disk."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False, timeout=30
    )
    if listed.returncode:
        pytest.skip("not a git checkout: there is no list of files")
    paths = (ROOT / name for name in listed.stdout.decode().split("\0") if name)
    return [path for path in paths if path.is_file()]


def python_files(*folders: str) -> list[Path]:
    return [
        path
        for path in tracked()
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in folders
    ]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_every_module_says_what_it_is() -> None:
    silent = [
        name(path)
        for path in python_files("src", "tests", "scripts", "bench")
        if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]

    assert silent == []


def test_a_long_file_says_why_it_is_one() -> None:
    unexplained = [
        f"{name(path)}: {lines} lines"
        for path in python_files(*FILE_LINES_MAX)
        if (lines := len(path.read_text().splitlines()))
        > FILE_LINES_MAX[path.relative_to(ROOT).parts[0]]
        and not REASON.search(ast.get_docstring(ast.parse(path.read_text())) or "")
    ]

    assert unexplained == []


def test_no_function_is_endless() -> None:
    long = [
        f"{name(path)}:{node.lineno} {node.name}"
        for path in python_files("src")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno > FUNCTION_LINES_MAX
    ]

    assert long == []


def _sleeps(tree: ast.AST, *, looping: bool = False) -> Iterator[ast.Call]:
    """Calls of sleep that are neither zero nor a short pause in a polling loop."""
    for node in ast.iter_child_nodes(tree):
        inside = looping or isinstance(node, ast.While | ast.For | ast.AsyncFor)
        if isinstance(node, ast.Call) and _is_sleep(node) and not _may_pause(node, inside):
            yield node
        yield from _sleeps(node, looping=inside)


def _is_sleep(call: ast.Call) -> bool:
    function = call.func
    return (
        isinstance(function, ast.Attribute)
        and isinstance(function.value, ast.Name)
        and (function.value.id, function.attr) in SLEEPS
    )


def _may_pause(call: ast.Call, looping: bool) -> bool:
    match call.args:
        case [ast.Constant(value=int() | float() as seconds)]:
            # An hour is not a guess at a duration: it stands for "never", and is cancelled.
            return seconds == 0 or seconds >= 3600 or (looping and seconds <= POLL_S_MAX)
        case _:
            return looping


def test_no_test_sleeps_for_a_guessed_time() -> None:
    asleep = [
        f"{name(path)}:{call.lineno}"
        for path in python_files("tests")
        if ROOT / "tests" / "sim" not in path.parents  # time is virtual there, and costs nothing
        for call in _sleeps(ast.parse(path.read_text()))
    ]

    assert asleep == []


def test_nothing_names_this_machine_or_a_package_index() -> None:
    found = [
        f"{name(path)}:{number}: {match[0]}"
        for path in tracked()
        if path.suffix in TEXT_SUFFIXES and path != Path(__file__)
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1)
        if (match := MACHINE.search(line))
    ]

    assert found == []


def test_links_between_documents_lead_somewhere() -> None:
    link = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")
    broken = [
        f"{name(path)}: {target}"
        for path in tracked()
        if path.suffix == ".md"
        for target in link.findall(path.read_text())
        if not (path.parent / target).exists()
    ]

    assert broken == []


def test_every_make_target_is_one_line_and_described() -> None:
    lines = (ROOT / "Makefile").read_text().splitlines()
    targets = [i for i, line in enumerate(lines) if re.match(r"[a-z0-9]+:", line)]

    assert len(targets) >= 10
    assert [lines[i] for i in targets if " ## " not in lines[i]] == []
    recipes = [
        sum(1 for line in lines[i + 1 : j] if line.startswith("\t"))
        for i, j in zip(targets, [*targets[1:], len(lines)], strict=True)
    ]
    assert max(recipes) == 1


def test_every_locked_package_has_hashes() -> None:
    for lock in (ROOT / "requirements").glob("*.lock"):
        entries = re.split(r"\n(?=[A-Za-z0-9])", lock.read_text())
        without = [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry]

        assert without == [], lock.name


def test_decision_records_are_listed() -> None:
    folder = ROOT / "docs" / "adr"
    index = (folder / "README.md").read_text()

    assert [p.name for p in folder.glob("0*.md") if f"]({p.name})" not in index] == []
