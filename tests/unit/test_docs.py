"""The documentation held against the program: every key of every configuration file, both ways."""

import importlib.util
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import get_args, get_origin, get_type_hints

import msgspec
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```toml\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE_COMMENT = re.compile(r"^# \S+\.toml\n", re.MULTILINE)


def load_docs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_script", ROOT / "scripts" / "docs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its records look their module up
    spec.loader.exec_module(module)
    return module


DOCS = load_docs()


def snippets() -> Iterator[tuple[str, str]]:
    """Every TOML example: where it stands, and its text. One block may show several files."""
    for page in PAGES:
        for block in BLOCK.findall(page.read_text()):
            for number, part in enumerate(FILE_COMMENT.split(block)):
                if part.strip():
                    yield f"{page.relative_to(ROOT)} #{number} {part.split()[0]}", part


def unknown(table: Mapping[str, object], kind: object) -> Iterator[str]:
    """Keys of ``table`` that no struct in ``kind`` has."""
    structs = DOCS._structs(kind)
    if not structs:
        return
    if get_origin(kind) in (dict, Mapping):
        for name, inner in table.items():
            if isinstance(inner, dict):
                yield from unknown(inner, get_args(kind)[1])
            else:
                # A table of another file's, whose key is called the same.
                yield name
        return
    tag = table.get("kind")
    chosen = [one for one in structs if one.__struct_config__.tag == tag] or list(structs)
    hints = {name: hint for one in chosen for name, hint in get_type_hints(one).items()}
    fields = {name for one in chosen for name in one.__struct_fields__}
    for name, value in table.items():
        if name == "kind" and tag in {one.__struct_config__.tag for one in chosen}:
            continue
        if name not in fields:
            yield name
            continue
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, dict):
                yield from unknown(inner, hints[name])


def test_the_configuration_reference_is_what_the_program_reads() -> None:
    written = (ROOT / "docs" / "operate" / "configuration.md").read_text()

    assert written == DOCS.configuration(), "run `make docs`"


def test_the_reference_says_something_of_every_key() -> None:
    silent = [line for line in DOCS.configuration().splitlines() if line.endswith("|  |")]

    assert silent == []


@pytest.mark.parametrize("struct", [struct for struct, _ in DOCS.FILES.values()])
def test_the_reference_has_every_key(struct: type[msgspec.Struct]) -> None:
    rows = set(re.findall(r"^\| `([a-z_]+)` \|", DOCS.configuration(), re.MULTILINE))
    places = set(re.findall(r"^### `\[+([a-z_.]+)", DOCS.configuration(), re.MULTILINE))

    for name in struct.__struct_fields__:
        assert name in rows or any(place.split(".")[0] == name for place in places), name


@pytest.mark.parametrize("text", [pytest.param(text, id=where) for where, text in snippets()])
def test_every_example_has_only_keys_that_exist(text: str) -> None:
    table = tomllib.loads(text)
    wrong = {file: list(unknown(table, struct)) for file, (struct, _) in DOCS.FILES.items()}

    assert [] in wrong.values(), wrong


def test_an_example_with_a_wrong_key_would_be_found() -> None:
    table = tomllib.loads('[engine]\nkind = "openai"\nmodel = "m"\n')

    assert list(unknown(table, DOCS.FILES["node.toml"][0])) == ["model"]


def test_the_map_names_files_that_exist() -> None:
    """ARCHITECTURE's table of where each decision lives: core on the left, shells beside it."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    gateway = ROOT / "src" / "trunkline" / "gateway"
    rows = re.findall(r"^\| [a-z ,]+ \| (.*?) \| (.*?) \| \[", text, re.MULTILINE)
    named = [
        place / f"{name}.py"
        for decided, carried in rows
        for place, cell in ((gateway / "core", decided), (gateway, carried))
        if "(rooms)" not in cell
        for name in re.findall(r"`([a-z_]+)`", cell)
    ]

    assert len(named) > 30
    assert [path.name for path in named if not path.exists()] == []


def test_the_index_leads_to_every_page() -> None:
    linked = set(re.findall(r"\]\(([^)#]+)", (ROOT / "docs" / "README.md").read_text()))
    pages = {
        str(page.relative_to(ROOT / "docs"))
        for page in (ROOT / "docs").rglob("*.md")
        if page.parent.name != "adr"
    }

    assert pages - linked - {"README.md"} == set()


def test_every_decision_record_is_listed_under_a_number_of_its_own() -> None:
    folder = ROOT / "docs" / "adr"
    files = sorted(path.name for path in folder.glob("0*.md"))
    listed = re.findall(
        r"^\| \[(\d{4})\]\((.*?)\)", (folder / "README.md").read_text(), re.MULTILINE
    )

    assert sorted(file for _, file in listed) == files
    assert [number for number, _ in listed] == [f"{n:04}" for n in range(1, len(files) + 1)]
    assert all(file.startswith(number) for number, file in listed)
    assert all((folder / file).read_text().startswith(f"# {number}: ") for number, file in listed)


def test_the_front_page_counts_as_the_fault_matrix_does() -> None:
    counted = re.search(
        r"^(\d+) answers: (\d+) whole, (\d+) error, 0 damage, 0 hang\.$",
        (ROOT / "docs" / "fault-matrix.md").read_text(),
        re.MULTILINE,
    )
    said = re.search(
        r"ask for (\d+) answers in more ways: (\d+)\swhole, (\d+) explicit errors",
        (ROOT / "README.md").read_text(),
    )

    assert counted is not None and said is not None
    assert said.groups() == counted.groups()
