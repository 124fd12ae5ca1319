"""The configuration file: written, read back, and what is refused."""

from pathlib import Path

import msgspec
import pytest
from tests.unit.node.harness import KEY, NAME, SIGNER, prepare

from trunkline.base.errors import ConfigError
from trunkline.crypto.signer import Signer
from trunkline.node.app import NodeApp
from trunkline.node.config import (
    AuditsConfig,
    AuditVerifier,
    EmbeddedEngine,
    LogTarget,
    NodeConfig,
    read,
    render,
    verifier_keys,
)
from trunkline.node.config_providers import (
    AccountLimits,
    AnthropicEngine,
    AzureEngine,
    BedrockEngine,
    KeySource,
    OpenAIEngine,
)
from trunkline.remote.exchange import ProviderTimeouts

EMBEDDED = NodeConfig(
    name=NAME,
    operator="alpha.example",
    listen="127.0.0.1:9000",
    log=LogTarget(url="http://127.0.0.1:8483", vkey=str(KEY)),
    engine=EmbeddedEngine(model_path='a "quoted" \\ model.gguf', threads=2),
    embeddings=False,
    audits=AuditsConfig(
        verifiers=(AuditVerifier(vkey=str(KEY)), AuditVerifier(vkey=str(KEY))), rate_max=0.5
    ),
)
OPENAI = NodeConfig(
    name=NAME,
    operator="alpha.example",
    engine=OpenAIEngine(
        base_url="https://api.example.com/v1",
        api_key_file="api-key",
        models=("a", "b"),
        embedding_models=("e",),
        upstream_names={"a": "vendor/a.1"},
        timeouts=ProviderTimeouts(idle_s=7.5),
    ),
)

SEVERAL_KEYS = AnthropicEngine(
    api_keys=(KeySource(label="main", file="key-1"), KeySource(label="spare", env="SPARE")),
    max_tokens=100,
    prefix_models={"m 1": "prefill"},
    limits=AccountLimits(requests_per_minute=50, concurrency=4),
)

AUDITED = 'name = "a"\noperator = "a"\n[log]\nurl = "u"\nvkey = "v"\n[audits]\n'


@pytest.mark.parametrize(
    "config",
    [EMBEDDED, OPENAI, NodeConfig(name=NAME, operator="a"),
     msgspec.structs.replace(OPENAI, engine=OpenAIEngine(base_url="http://u", api_key_env="K")),
     msgspec.structs.replace(OPENAI, engine=SEVERAL_KEYS),
     msgspec.structs.replace(OPENAI, engine=OpenAIEngine(preset="groq", api_key_env="K")),
     msgspec.structs.replace(OPENAI, engine=BedrockEngine(
         region="us-east-1", auth="signature", models=("m",), api_key_env="K")),
     msgspec.structs.replace(OPENAI, engine=AzureEngine(base_url="https://n", models=("m",)))],
)  # fmt: skip
def test_what_is_written_reads_back(tmp_path: Path, config: NodeConfig) -> None:
    path = tmp_path / "node.toml"
    path.write_text(render(config), encoding="utf-8")

    assert read(path) == config


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('operator = "a"', "name"),
        ('name = "a b"\noperator = "a"', "name"),
        ('name = "a"\noperator = "a"\nwat = 1', "wat"),
        ('name = "a"\noperator = "a"\n[engine]\nkind = "magic"', "kind"),
        ('name = "a"\noperator = "a"\n[engine]\nkind = "embedded"\nsequences = 0', "sequences"),
        ('name = "a"\noperator = "a"\n[engine]\nkind = "openai"', "base_url"),
        (
            'name = "a"\noperator = "a"\n[engine]\nkind = "openai"\nbase_url = "u"\n'
            'api_key_file = "x"\napi_key_env = "y"',
            "api_key_file",
        ),
        (
            'name = "a"\noperator = "a"\n[engine]\nkind = "anthropic"\n'
            'api_keys = [{label = "x", env = "A"}, {label = "x", env = "B"}]',
            "label",
        ),
        (
            'name = "a"\noperator = "a"\n[engine]\nkind = "gemini"\n'
            'api_keys = [{label = "x", env = "A", file = "B"}]',
            "api_keys",
        ),
        (
            'name = "a"\noperator = "a"\n[engine]\nkind = "gemini"\n'
            "limits = {requests_per_minute = 0}",
            "requests_per_minute",
        ),
        ('name = "a"\noperator = "a"\n[audits]\nverifiers = [{vkey = "v"}]', "audits take a log"),
        (AUDITED + "verifiers = []", "audits.verifiers"),
        (AUDITED + 'verifiers = [{vkey = "v"}]\nkeep_s = 0', "audits.keep_s"),
        (AUDITED + 'verifiers = [{vkey = "v"}]\nbytes_max = 1', "audits.bytes_max"),
        (AUDITED + 'verifiers = [{vkey = "v"}]\nrate_max = 1.5', "audits.rate_max"),
        (AUDITED + 'verifiers = [{vkey = "v"}]\ndemands_per_s = 0', "audits.demands_per_s"),
    ],
)
def test_a_wrong_file_is_refused_and_the_key_is_named(
    tmp_path: Path, text: str, named: str
) -> None:
    path = tmp_path / "node.toml"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(ConfigError, match=named) as refused:
        read(path)
    assert "node.toml" in refused.value.message


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    base = prepare(tmp_path)
    (tmp_path / "key").chmod(0o644)

    with pytest.raises(ConfigError, match="chmod 600"):
        NodeApp(NodeConfig(name=NAME, operator="a"), base=base)


@pytest.mark.parametrize(
    ("key", "why"),
    [(Signer.generate("other/node", b"\x01" * 32).skey(), "not of"), ("nonsense", "private key")],
)
def test_a_key_of_another_name_is_refused_and_not_shown(tmp_path: Path, key: str, why: str) -> None:
    base = prepare(tmp_path)
    (tmp_path / "key").write_text(key)

    with pytest.raises(ConfigError, match=why) as refused:
        NodeApp(NodeConfig(name=NAME, operator="a"), base=base)
    assert key not in refused.value.message
    assert SIGNER.skey() not in refused.value.message


async def test_a_missing_store_is_an_error_and_is_not_made(tmp_path: Path) -> None:
    base = prepare(tmp_path)
    (tmp_path / "node.db").unlink()
    app = NodeApp(NodeConfig(name=NAME, operator="a"), base=base)

    with pytest.raises(ConfigError, match="no such store"):
        await app.startup()
    await app.shutdown()
    assert not (tmp_path / "node.db").exists()


@pytest.mark.parametrize("vkey", ["no key", str(SIGNER.cosigner_vkey)])
def test_a_verifier_that_could_not_sign_is_refused(vkey: str) -> None:
    audits = AuditsConfig(verifiers=(AuditVerifier(vkey=vkey),))
    with pytest.raises(ConfigError, match=r"audits\.verifiers\.vkey"):
        verifier_keys(audits)
