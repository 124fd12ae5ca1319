"""``--provider``: what it takes, what it refuses, and that it repeats no secret."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.base.errors import ConfigError
from trunkline.cli.providers import Provider, parse
from trunkline.node.config_providers import (
    AnthropicEngine,
    AzureEngine,
    BedrockEngine,
    GeminiEngine,
    OpenAIEngine,
    ProviderEngine,
)


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


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SOME_KEY", "x")
    return "SOME_KEY"


@pytest.mark.parametrize(
    ("text", "engine"),
    [
        ("groq=SOME_KEY", OpenAIEngine(preset="groq", api_key_env="SOME_KEY")),
        (
            "fast=SOME_KEY,kind=mistral,models=a+b",
            OpenAIEngine(preset="mistral", api_key_env="SOME_KEY", models=("a", "b")),
        ),
        (
            "ollama=http://10.0.0.5:11434/v1",
            OpenAIEngine(preset="ollama", base_url="http://10.0.0.5:11434/v1"),
        ),
        ("openai=SOME_KEY", OpenAIEngine(preset="openai", api_key_env="SOME_KEY")),
        ("openai=http://own.example/v1", OpenAIEngine(base_url="http://own.example/v1")),
        ("anthropic=SOME_KEY", AnthropicEngine(api_key_env="SOME_KEY")),
        (
            "proxy=http://p.example/v1,kind=gemini",
            GeminiEngine(base_url="http://p.example/v1"),
        ),
        (
            "azure=https://n.openai.azure.com,key-env=SOME_KEY,models=m,api-version=2024-10-21",
            AzureEngine(
                base_url="https://n.openai.azure.com", api_key_env="SOME_KEY", models=("m",),
                api_version="2024-10-21",
            ),
        ),
        (
            "bedrock=SOME_KEY,region=us-east-1,auth=signature,models=us.maker.model-v1:0",
            BedrockEngine(
                region="us-east-1", auth="signature", api_key_env="SOME_KEY",
                models=("us.maker.model-v1:0",),
            ),
        ),
    ],
)  # fmt: skip
def test_providers_that_are_known_by_name(key: str, text: str, engine: ProviderEngine) -> None:
    assert parse(text).engine() == engine


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("acme=SOME_KEY", "http"),
        ("acme=https://a.example,kind=magic", "kind is one of"),
        ("azure=SOME_KEY,models=m", "endpoint"),
        ("azure=https://n.openai.azure.com", "deployments"),
        ("bedrock=SOME_KEY,models=m", "region"),
        ("bedrock=SOME_KEY,models=m,region=us-east-1,auth=magic", "not understood"),
        ("groq=SOME_KEY,key-env=SOME_KEY", "one api_key"),
    ],
)
def test_what_a_known_provider_wants_is_said(key: str, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(text)


@pytest.mark.parametrize("text", ["groq=gsk_verysecret", "x=https://a,key-env=gsk_verysecret"])
def test_an_api_key_that_looks_like_a_variable_is_not_repeated(text: str) -> None:
    with pytest.raises(ConfigError, match="not set") as caught:
        parse(text)
    assert "verysecret" not in caught.value.message


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
    assert provider.engine().url.startswith("http")
