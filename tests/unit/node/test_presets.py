"""Known differences of upstreams: what is renamed, added, refused, and what passes untouched."""

from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.node.harness import NAME, attempt, chat, node
from tests.unit.node.test_provider import GOOD, WHOLE, Upstream, chunk

from trunkline.base.errors import RequestError
from trunkline.node.config import NodeConfig
from trunkline.node.config_providers import OpenAIEngine
from trunkline.node.core import presets
from trunkline.node.core.presets import PRESETS, PresetName
from trunkline.remote.node import NodeRefusedError
from trunkline.remote.target import parse_url
from trunkline.runtime.server import serving
from trunkline.schema import openai_chat

HELLO = [{"role": "user", "content": "hello"}]
TOOL = {"type": "function", "function": {"name": "look", "strict": True}}


def body(**fields: Any) -> bytes:
    return msgspec.json.encode({"model": "m", "messages": HELLO} | fields)


def told(name: PresetName, **fields: Any) -> dict[str, Any]:
    made: dict[str, Any] = msgspec.json.decode(PRESETS[name].request(body(**fields)))
    return {key: value for key, value in made.items() if key not in ("model", "messages")}


def test_each_name_has_its_preset_and_each_refusal_is_of_a_known_name() -> None:
    assert set(PRESETS) == set(get_args(PresetName))
    for preset in PRESETS.values():
        assert parse_url(preset.base_url)
        assert {name.partition(".")[0] for name in preset.refused} <= openai_chat.FIELDS
        assert not preset.refused & openai_chat.HINTS
        assert not preset.refused & preset.renamed.keys()


def test_nothing_known_changes_nothing() -> None:
    raw = b'{ "model":"m", "messages":[] , "seed":1, "odd": [ 1 ] }'
    assert presets.of(None).request(raw) == raw


def test_names_are_theirs() -> None:
    assert told("mistral", seed=7, max_completion_tokens=5, temperature=0.5) == {
        "random_seed": 7, "max_tokens": 5, "temperature": 0.5,
    }  # fmt: skip
    assert told("ollama", max_tokens=5) == {"max_tokens": 5}


def test_usage_that_comes_unasked_is_not_asked_for() -> None:
    assert told("mistral", stream=True, stream_options={"include_usage": True}) == {"stream": True}
    kept = {"stream": True, "stream_options": {"include_usage": True}}
    assert told("groq", **kept) == kept


def test_a_router_is_told_to_honour_every_parameter() -> None:
    assert told("openrouter", seed=1) == {"seed": 1, "provider": {"require_parameters": True}}
    own = {"provider": {"order": ["x"]}}
    assert told("openrouter", **own) == own


@pytest.mark.parametrize(
    ("name", "fields", "param"),
    [
        ("openai", {"top_k": 4}, "top_k"),
        ("groq", {"logprobs": True}, "logprobs"),
        ("groq", {"n": 2}, "n"),
        ("groq", {"messages": [{"role": "user", "name": "bo", "content": "x"}]}, "messages.name"),
        ("mistral", {"logit_bias": {"5": 1}}, "logit_bias"),
        ("deepseek", {"seed": 1}, "seed"),
        (
            "deepseek",
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
            "response_format.json_schema",
        ),
        ("xai", {"stop": ["x"]}, "stop"),
        ("together", {"tools": [TOOL], "parallel_tool_calls": False}, "parallel_tool_calls"),
        ("vllm", {"tools": [TOOL]}, "tools.strict"),
        ("llama-server", {"n": 3}, "n"),
        ("ollama", {"tools": [TOOL], "tool_choice": "required"}, "tool_choice"),
        ("fireworks", {"prediction": {"type": "content", "content": "x"}}, "prediction"),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(
    name: PresetName, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(RequestError) as refused:
        PRESETS[name].request(body(**fields))
    assert (refused.value.error_code, refused.value.param) == ("unsupported_parameter", param)


def test_two_names_of_one_thing_are_refused() -> None:
    with pytest.raises(RequestError) as refused:
        PRESETS["mistral"].request(body(seed=1, random_seed=2))
    assert refused.value.param in ("seed", "random_seed")


OWN = st.dictionaries(
    st.from_regex(r"x_[a-z]{1,8}", fullmatch=True), st.integers() | st.text(max_size=8)
)


@given(st.sampled_from(sorted(PRESETS)), OWN, st.integers(1, 99))
def test_members_that_nobody_knows_pass_as_they_came(
    name: PresetName, own: dict[str, Any], bound: int
) -> None:
    made = told(name, max_completion_tokens=bound, **own)
    assert {key: made[key] for key in own} == own
    assert bound in (made.get("max_tokens"), made.get("max_completion_tokens"))


async def hear(folder: Path, upstream: Upstream, preset: PresetName, **fields: Any) -> Any:
    async with serving(upstream) as base_url:
        engine = OpenAIEngine(preset=preset, base_url=base_url + "/v1", models=("real-1",))
        config = NodeConfig(name=NAME, operator="alpha.example", embeddings=False, engine=engine)
        async with node(folder, config=config) as running:
            return await running.hear(attempt(chat(**fields), model="real-1"))


async def test_through_a_node(tmp_path: Path) -> None:
    upstream = Upstream(GOOD, headers=(("x-ratelimit-limit-requests", "60"),))
    heard = await hear(tmp_path, upstream, "mistral", seed=3)
    assert heard.signed is not None
    sent = msgspec.json.decode(upstream.received[0])
    assert (sent["random_seed"], "seed" in sent, "stream_options" in sent) == (3, False, False)
    assert heard.limits[0].quotas[0].window_ms == 60_000


async def test_a_refusal_sends_the_gateway_elsewhere(tmp_path: Path) -> None:
    upstream = Upstream(GOOD)
    with pytest.raises(NodeRefusedError) as caught:
        await hear(tmp_path, upstream, "groq", logprobs=True)
    refusal = caught.value.node_error
    assert (refusal.code, refusal.param, refusal.retryable) == (
        "unsupported_parameter", "logprobs", True,
    )  # fmt: skip
    assert upstream.received == []


async def test_long_thoughts_by_another_name_are_not_silence(tmp_path: Path) -> None:
    thinking = [
        msgspec.json.encode(
            {"id": "up-1", "choices": [{"index": 0, "delta": {"content": "", "reasoning": "hm"}}]}
        )
        for _ in range(100)
    ]
    heard = await hear(tmp_path, Upstream([*thinking, chunk("Hi"), chunk(None, "stop")]), "ollama")
    assert heard.signed is not None
    assert len(heard.data) == 102


async def test_a_whole_answer_of_thoughts_is_an_answer(tmp_path: Path) -> None:
    message = {"role": "assistant", "content": "", "reasoning": "hm"}
    whole = WHOLE | {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    upstream = Upstream(body=msgspec.json.encode(whole))
    heard = await hear(tmp_path, upstream, "openrouter", stream=False)
    assert heard.signed is not None


def finished(reason: str) -> bytes:
    return chunk(None, reason, odd=1.50)


@pytest.mark.parametrize(
    ("name", "own", "word"), [("together", "eos", "stop"), ("mistral", "model_length", "length")]
)
def test_finishes_are_the_formats_words(name: PresetName, own: str, word: str) -> None:
    assert PRESETS[name].answer(finished(own)) == finished(word)
    said = chunk(f'they say "{own}"')
    assert msgspec.json.decode(PRESETS[name].answer(said)) == msgspec.json.decode(said)


@given(st.sampled_from(sorted(PRESETS)), st.binary(max_size=40), st.booleans())
def test_any_answer_is_rewritten_or_left(name: PresetName, data: bytes, marked: bool) -> None:
    data += b'"eos""model_length"' if marked else b""
    assert isinstance(PRESETS[name].answer(data), bytes)


async def test_a_finish_of_another_word_is_signed_for_as_ours(tmp_path: Path) -> None:
    heard = await hear(tmp_path, Upstream([GOOD[1], finished("eos")]), "together")
    assert msgspec.json.decode(heard.data[-1])["choices"][0]["finish_reason"] == "stop"
    assert heard.signed is not None


@pytest.mark.parametrize("reason", ["error", "abort", "insufficient_system_resource"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_finish_that_means_failure_is_no_answer(
    tmp_path: Path, reason: str, stream: bool
) -> None:
    choice = WHOLE["choices"][0] | {"finish_reason": reason}  # type: ignore[index, operator]
    body = None if stream else msgspec.json.encode(WHOLE | {"choices": [choice]})
    upstream = Upstream([GOOD[1], finished(reason)], body=body)
    heard = await hear(tmp_path, upstream, "deepseek", stream=stream)
    assert heard.signed is None
    assert (heard.error.code, heard.error.retryable) == ("upstream_truncated", True)
