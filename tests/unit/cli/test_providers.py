"""``--provider``: what it takes, what it refuses, and that it repeats no secret."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.base.errors import ConfigError
from trunkline.cli.providers import Provider, parse


def test_an_address_alone() -> None:
    assert parse("acme=https://api.acme.example/v1/") == Provider(
        name="acme", base_url="https://api.acme.example/v1"
    )


def test_an_api_key_from_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_KEY", "x")

    assert parse("acme=https://a.example/v1,key-env=ACME_KEY").key_env == "ACME_KEY"


def test_an_api_key_from_a_file_by_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text("x")
    monkeypatch.chdir(tmp_path)

    assert parse("acme=https://a.example/v1,key-file=key").key_file == str(tmp_path / "key")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("https://a.example/v1", "name"),
        ("=https://a.example", "name"),
        ("Acme=https://a.example", "name"),
        ("alpha=https://a.example", "taken"),
        ("acme=ftp://a.example", "http"),
        ("acme=", "http"),
        ("acme=https://user:pass@a.example", "credential"),
        ("acme=https://a.example,key-env=NO_SUCH_VARIABLE_HERE", "not set"),
        ("acme=https://a.example,key-file=/no/such/file", "no file"),
        ("acme=https://a.example,colour=red", "not understood"),
    ],
)
def test_what_is_wrong_is_said(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(text)


@pytest.mark.parametrize("option", ["key=sk-verysecret", "sk-verysecret", "key-env=sk-verysecret"])
def test_an_api_key_given_by_mistake_is_not_repeated(option: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(f"acme=https://a.example/v1,{option}")

    assert "verysecret" not in caught.value.message


@given(st.text(max_size=80))
def test_any_text_gives_a_provider_or_a_config_error(text: str) -> None:
    try:
        provider = parse(text)
    except ConfigError:
        return
    assert provider.base_url.startswith("http")
