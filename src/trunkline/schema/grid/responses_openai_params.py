"""Names of parameters in errors, from a chat request's to a Responses one's (part of
``responses_openai``).

A node refuses parameters by the names of the request that it was given. A name without a
counterpart is left as it is.
"""

import re
from typing import Final

from trunkline.schema.errors import Described, renamed

_NAMES: Final = (
    ("response_format.json_schema", "text.format"),
    ("response_format", "text.format"),
    ("reasoning_effort", "reasoning.effort"),
    ("max_completion_tokens", "max_output_tokens"),
    ("verbosity", "text.verbosity"),
    ("logprobs", "include"),
    ("messages.image_url", "input.input_image"),
    ("messages.file", "input.input_file"),
    ("messages", "input"),
)
"""The longer of two names that begin alike comes first."""

_IN_TOOL: Final = re.compile(r"(tools\[\d+\])\.function\.")
_MESSAGE: Final = re.compile(r"messages\[\d+\].*")


def caller_name(param: str) -> str:
    """The parameter's name in the Responses request."""
    if _MESSAGE.fullmatch(param) is not None:
        # Messages are not items: their numbers would mislead.
        return "input"
    for theirs, ours in _NAMES:
        rest = param.removeprefix(theirs)
        if rest != param and rest[:1] in ("", ".", "["):
            return ours + rest
    return _IN_TOOL.sub(lambda met: f"{met[1]}.", param, count=1)


def caller_words(described: Described) -> Described:
    """The error, said in the caller's names."""
    return renamed(described, caller_name)
