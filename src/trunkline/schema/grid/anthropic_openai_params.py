"""Names of parameters in errors, from OpenAI's to Anthropic's (part of ``anthropic_openai``).

A node refuses parameters by the names of the request that it was given. Whoever sent a Messages
request knows other names for the same. A name without a counterpart is left as it is.
"""

import re

from trunkline.schema.errors import Described, renamed

_NAMES = (
    ("response_format.json_schema.schema", "output_config.format.schema"),
    ("response_format", "output_config.format"),
    ("reasoning_effort", "output_config.effort"),
    ("max_completion_tokens", "max_tokens"),
    ("parallel_tool_calls", "tool_choice.disable_parallel_tool_use"),
    ("stop", "stop_sequences"),
    ("user", "metadata.user_id"),
    ("messages.image_url", "messages.image"),
    ("messages.file", "messages.document"),
)
"""The longer of two names that begin alike comes first."""

_IN_TOOL = re.compile(r"(tools\[\d+\])\.function\.(parameters)?")


def caller_name(param: str) -> str:
    """The parameter's name in the Messages request."""
    for theirs, ours in _NAMES:
        rest = param.removeprefix(theirs)
        if rest != param and rest[:1] in ("", ".", "["):
            return ours + rest
    return _IN_TOOL.sub(lambda met: f"{met[1]}.{'input_schema' if met[2] else ''}", param, count=1)


def caller_words(described: Described) -> Described:
    """The error, said in the caller's names."""
    return renamed(described, caller_name)
