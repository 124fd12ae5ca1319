"""Judges an answer that a provider's model gave, as its app understood it.

There are no tokens to compute it from, but what the model says to somebody is known
(:func:`trunkline.sim.upstream.spoken`), so anything lost, doubled, altered, mixed in from another
model or wrongly said to be finished shows in the text, whoever went on with it.
"""

import json
from typing import Any, Final

from trunkline.sim.app import Ask, Ending, Seen
from trunkline.sim.reading import Told, read
from trunkline.sim.upstream import PROMPT_TOKENS, TOOL, Spoken, spoken, vector

_BOUNDS: Final = ("max_tokens", "max_output_tokens")


def wrong_with(seen: Seen, text: bytes, model: str, *, failed: bool, parts: int) -> str:
    """What is wrong with the answer if ``model`` gave it; empty if nothing is.

    ``text``: the body without the error that it ends with if it ``failed``. ``parts``: attempts
    that may have added to it.
    """
    ask = seen.ask
    asked = json.loads(ask.body)
    if ask.format == "openai.embeddings":
        return _vectors(seen, asked, model) if seen.ending is Ending.COMPLETE else ""
    if not ask.stream and seen.ending is not Ending.COMPLETE:
        return ""
    told = read(ask.format, text, stream=ask.stream)
    if told.wrong:
        return f"not readable: {told.wrong}"
    said = spoken(model, ask.said, tool="tools" in asked, document="response_format" in asked)
    found = "another model named" if told.models - {model} else _marks(told)
    if seen.ending is Ending.COMPLETE and not failed:
        return found or _whole(ask, asked, told, said, parts)
    if failed and told.finish:
        return "finished and failed"
    if failed and (told.arguments or (told.text and "response_format" in asked)):
        return "parts of a value that was held back"
    shown = told.arguments if said.tool else told.text
    return found or ("" if said.text.startswith(shown) else "no beginning of what the model says")


def _marks(told: Told) -> str:
    """What one stream must have of one kind."""
    if len(told.models) > 1:
        return "two models named"
    if len(told.ids) > 1:
        return "two ids"
    return "begun twice" if told.begun > 1 else ""


def _whole(ask: Ask, asked: Any, told: Told, said: Spoken, parts: int) -> str:
    if told.ended != 1 or told.begun != 1:
        return f"begun {told.begun} times, ended {told.ended}"
    bound = next((asked[name] for name in _BOUNDS if name in asked), None)
    pieces = said.pieces
    finish = said.finish
    if bound is not None and bound < len(pieces):
        pieces, finish = pieces[:bound], "length"
    if said.tool:
        same = told.tool == TOOL and json.loads(told.arguments) == json.loads(said.text)
        return "" if same and told.finish == finish else "another call"
    if told.text != "".join(pieces) or told.finish != finish:
        # Whose provider does not count as it goes can not take what was shown off the bound.
        longer = parts > 1 and bound is not None and said.text.startswith(told.text)
        if not longer or len(told.text) < len("".join(pieces)):
            return f"another text, finish {told.finish}"
        return ""
    if told.usage is None or told.usage_parts or (ask.format != "openai.chat" and parts > 1):
        return ""
    if told.usage == (0, 0) and ask.format != "openai.chat":
        # The format has no word for a count that the provider broke off before.
        return ""
    # Where the text so far ends in space, that is said, and counted, once more at the seam.
    most = len(pieces) + parts - 1
    if told.usage[0] != PROMPT_TOKENS or not len(pieces) <= told.usage[1] <= most:
        return f"usage {told.usage} of {PROMPT_TOKENS}, {len(pieces)}"
    return ""


def _vectors(seen: Seen, asked: Any, model: str) -> str:
    given = json.loads(seen.body)["data"]
    wanted = [vector(model, text) for text in asked["input"]]
    got = [one["embedding"] for one in sorted(given, key=lambda one: int(one["index"]))]
    return "" if got == wanted else "other vectors"
