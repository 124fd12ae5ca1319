"""Configuration: what is refused, and that every refusal names the file, the key and the fix."""

import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.base.errors import ConfigError
from trunkline.crypto.signer import Signer
from trunkline.runtime.config import load, read_key, read_secret, resolve, toml_value

texts = st.text(st.characters(exclude_categories=["Cs"]))
plain = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | texts


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    size: int = 1


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    listen: str = "127.0.0.1:1"
    name: str
    part: Part = Part()


class Loose(msgspec.Struct):
    name: str


@pytest.fixture
def file(tmp_path: Path):
    def write(text: str | bytes) -> Path:
        path = tmp_path / "role.toml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def test_load(file, monkeypatch):
    monkeypatch.delenv("TRUNKLINE_LISTEN", raising=False)
    path = file('name = "x"\n[part]\nsize = 2\n')
    assert load(path, Config) == Config(name="x", part=Part(size=2))


def test_listen_can_be_overridden_from_the_environment(file, monkeypatch):
    path = file('name = "x"\nlisten = "127.0.0.1:5"\n')
    monkeypatch.setenv("TRUNKLINE_LISTEN", "127.0.0.1:9")
    assert load(path, Config).listen == "127.0.0.1:9"
    # A file without such a key is not given one.
    assert load(file("size = 3"), Part) == Part(size=3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('name = "x"\nnme = 1', "unknown field `nme`"),
        ('name = "x"\n[part]\nsise = 1', "key part: .*unknown field `sise`"),
        ('name = "x"\n[part]\nsize = "1"', "key part.size: expected `int`, got `str`"),
        ("listen = 'x'", "required field `name`"),
        ("name = x", "not valid TOML: .*line 1"),
        (b"name = '\xff'", "not UTF-8"),
        ("#" * 2_000_000, "larger than"),
    ],
)
def test_refusals(file, text, said):
    path = file(text)
    with pytest.raises(ConfigError, match=said) as caught:
        load(path, Config)
    assert caught.value.message.startswith(f"{path}: ")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ConfigError, match="trunkline init"):
        load(tmp_path / "nothing.toml", Config)
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path, Config)


def test_a_struct_that_admits_unknown_keys_is_a_bug(file):
    with pytest.raises(TypeError):
        load(file('name = "x"'), Loose)


def test_secret(file):
    path = file(b"  s3cret\n")
    path.chmod(0o600)
    assert read_secret(path) == "s3cret"


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (b"s3cret", 0o644, "chmod 600"),
        (b"s3cret", 0o660, "chmod 600"),
        (b" \n", 0o600, "empty"),
        (b"s3cret\xff", 0o600, "UTF-8"),
        (b"s3cret" * 100_000, 0o600, "larger"),
    ],
)
def test_bad_secrets_are_not_quoted(file, content, mode, said):
    path = file(content)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=said) as caught:
        read_secret(path)
    assert "s3cret" not in caught.value.message


def test_relative_paths_start_at_the_file():
    assert resolve(Path("/a/b.toml"), "c/d") == Path("/a/c/d")
    assert resolve(Path("/a/b.toml"), "/c") == Path("/c")


def test_a_key_is_read_and_what_is_no_key_is_named_and_not_quoted(file):
    key = Signer.generate("alpha.example/node", b"\x01" * 32)
    path = file(key.skey())
    path.chmod(0o600)
    assert read_key(path, Signer.parse).vkey == key.vkey
    path = file("s3cret")
    with pytest.raises(ConfigError) as caught:
        read_key(path, Signer.parse)
    assert caught.value.message.startswith(f"{path}: ")
    assert "s3cret" not in caught.value.message


@given(plain | st.lists(plain).map(tuple))
def test_what_is_written_is_read_again(value):
    (read,) = tomllib.loads(f"value = {toml_value(value)}").values()
    assert (tuple(read) if isinstance(value, tuple) else read) == value


def test_what_a_configuration_does_not_hold_is_a_bug():
    with pytest.raises(TypeError, match="no bytes"):
        toml_value(b"")
