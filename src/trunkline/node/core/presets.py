"""Known differences of upstreams that speak the OpenAI format, as data: one preset each.

A preset says where the upstream is, what it calls differently, what it refuses or ignores, and what
of its limits it does not send. A parameter that it is known to refuse or to ignore is refused here
first, by name and so that another node may be asked: nothing is dropped. What a preset does not
name passes as it came. The table is of what vendors and projects document; none could be called
from where this was written (``docs/operate/providers.md``).
"""

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from trunkline.base.errors import RequestError
from trunkline.node.core.prefix import PrefixName
from trunkline.remote.limits import DAY_MS, MINUTE_MS, Windows
from trunkline.schema import openai_chat
from trunkline.schema.openai_chat import ChatRequest
from trunkline.schema.parsing import given, invalid, top_level, unsupported

PresetName = Literal[
    "openai", "openrouter", "together", "groq", "mistral", "deepseek", "xai", "fireworks",
    "vllm", "sglang", "llama-server", "ollama",
]  # fmt: skip


class Preset(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one upstream. The default: nothing."""

    base_url: str = ""
    refused: frozenset[str] = frozenset()
    """What it refuses or ignores: names of ``openai_chat.parameters_set``, ``messages.name``."""
    renamed: Mapping[str, str] = {}
    """Its own names of members."""
    added: Mapping[str, object] = {}
    """Members that it gets where the request has none of that name."""
    usage_unasked: bool = False
    """It counts tokens in every stream, and does not take ``stream_options``."""
    windows: Windows = {}
    """Lengths of its limits' windows, milliseconds, where its headers do not say them."""
    finishes: Mapping[str, str] = {}
    """Its own words for finish reasons of the format."""
    prefix: PrefixName = "none"
    """How it goes on after a given text."""

    def request(self, raw: bytes) -> bytes:
        """A chat request in this upstream's words; the members that stay keep their bytes.

        Raises :class:`RequestError` ``unsupported_parameter`` for what it can not honour.
        """
        if self == NOTHING_KNOWN:
            return raw
        if self.refused:
            self._check(openai_chat.parse(raw))
        members = top_level(raw)
        changed = dict(self._changed(members))
        if changed == members:
            return raw
        return msgspec.json.encode(changed)

    def answer(self, data: bytes) -> bytes:
        """A chunk or completion with finish reasons as the format has them; all else is kept."""
        if not any(b'"%b"' % word.encode() in data for word in self.finishes):
            return data
        try:
            members = _MEMBERS.decode(data)
            choices = _CHOICES.decode(members.get("choices", msgspec.Raw(b"[]")))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            # Whoever reads it next will say what is wrong with it.
            return data
        for choice in choices:
            word = self._words().get(bytes(choice.get("finish_reason", msgspec.Raw())))
            if word is not None:
                choice["finish_reason"] = word
        members["choices"] = msgspec.Raw(msgspec.json.encode(choices))
        return msgspec.json.encode(members)

    def _words(self) -> dict[bytes, msgspec.Raw]:
        encode = msgspec.json.encode
        return {encode(own): msgspec.Raw(encode(word)) for own, word in self.finishes.items()}

    def _check(self, request: ChatRequest) -> None:
        asked = openai_chat.parameters_set(request)
        if any(message.name and message.role != "tool" for message in request.messages):
            asked |= {"messages.name"}
        for name in sorted(asked & self.refused):
            raise unsupported(name, "is not supported by this provider")

    def _changed(self, members: Mapping[str, msgspec.Raw]) -> Mapping[str, msgspec.Raw]:
        changed: dict[str, msgspec.Raw] = {}
        for name, value in members.items():
            if self.usage_unasked and name == "stream_options":
                continue
            told = self.renamed.get(name, name) if given(value) else name
            if told in changed or (told != name and given(members.get(told, msgspec.Raw()))):
                raise _twice(name)
            changed[told] = value
        for name, added in self.added.items():
            changed.setdefault(name, msgspec.Raw(msgspec.json.encode(added)))
        return changed


NOTHING_KNOWN: Final = Preset()
_MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_CHOICES: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])


def _twice(name: str) -> RequestError:
    return invalid("is given by another name too", name)


_OPENAI_ONLY: Final = frozenset(
    {
        "audio", "function_call", "functions", "messages.audio", "messages.file",
        "messages.input_audio", "modalities", "moderation", "prediction", "service_tier", "store",
        "stream_options.include_obfuscation", "tool_choice.allowed_tools", "tool_choice.custom",
        "tools.custom", "verbosity", "web_search_options",
    }
)  # fmt: skip
"""What servers that are merely compatible ignore without a word, as a rule."""
_EXTENSIONS: Final = openai_chat.EXTENSIONS
_OLD_BOUND: Final = {"max_completion_tokens": "max_tokens"}

PRESETS: Final[Mapping[PresetName, Preset]] = {
    "openai": Preset(
        base_url="https://api.openai.com/v1",
        refused=_EXTENSIONS,
        windows={"requests": MINUTE_MS, "tokens": MINUTE_MS},
    ),
    "openrouter": Preset(
        base_url="https://openrouter.ai/api/v1",
        # It passes over what the provider behind it does not know, unless told not to.
        added={"provider": {"require_parameters": True}},
    ),
    "together": Preset(
        base_url="https://api.together.xyz/v1",
        # Its logprobs is a number.
        refused=_OPENAI_ONLY | {"logprobs", "parallel_tool_calls", "top_logprobs"},
        renamed=_OLD_BOUND,
        finishes={"eos": "stop"},
    ),
    "groq": Preset(
        base_url="https://api.groq.com/openai/v1",
        refused=_OPENAI_ONLY | _EXTENSIONS
        | {"frequency_penalty", "logit_bias", "logprobs", "messages.name", "n",
           "presence_penalty", "top_logprobs"},
        windows={"requests": DAY_MS, "tokens": MINUTE_MS},
    ),
    "mistral": Preset(
        base_url="https://api.mistral.ai/v1",
        refused=_OPENAI_ONLY | _EXTENSIONS
        | {"logit_bias", "logprobs", "messages.name", "top_logprobs"},
        renamed=_OLD_BOUND | {"seed": "random_seed"},
        usage_unasked=True,
        finishes={"model_length": "length"},
        windows={"requests": MINUTE_MS, "tokens": MINUTE_MS},
        prefix="mistral",
    ),
    "deepseek": Preset(
        base_url="https://api.deepseek.com",
        refused=_OPENAI_ONLY | _EXTENSIONS
        | {"frequency_penalty", "logit_bias", "messages.image_url", "n", "parallel_tool_calls",
           "presence_penalty", "response_format.json_schema", "seed", "tools.strict"},
        renamed=_OLD_BOUND,
    ),
    "xai": Preset(
        base_url="https://api.x.ai/v1",
        # The penalties and stop: refused by all of its models that reason.
        refused=_OPENAI_ONLY | _EXTENSIONS
        | {"frequency_penalty", "logit_bias", "presence_penalty", "stop"},
    ),
    "fireworks": Preset(
        base_url="https://api.fireworks.ai/inference/v1", refused=_OPENAI_ONLY
    ),
    "vllm": Preset(
        base_url="http://127.0.0.1:8000/v1",
        refused=(_OPENAI_ONLY | {"tools.strict"}) - {"messages.input_audio"},
        prefix="vllm",
    ),
    "sglang": Preset(
        base_url="http://127.0.0.1:30000/v1",
        refused=(_OPENAI_ONLY | {"tools.strict"}) - {"messages.input_audio"},
        prefix="sglang",
    ),
    "llama-server": Preset(
        base_url="http://127.0.0.1:8080/v1",
        refused=(_OPENAI_ONLY | {"n", "tools.strict"}) - {"messages.input_audio"},
        prefix="llama-server",
    ),
    "ollama": Preset(
        base_url="http://127.0.0.1:11434/v1",
        refused=_OPENAI_ONLY | _EXTENSIONS
        | {"logit_bias", "messages.name", "n", "parallel_tool_calls", "tool_choice",
           "tools.strict"},
        renamed=_OLD_BOUND,
    ),
}  # fmt: skip


def of(name: PresetName | None) -> Preset:
    """The preset of that name; None: one that knows of no difference."""
    return NOTHING_KNOWN if name is None else PRESETS[name]
