"""What a verifier asks of its own accord: chats of many shapes, as apps send them.

A node that could tell these from its users' would answer them honestly and nothing else. So they
differ in length, turns, parameters and wording as ordinary ones do. They are still made from lists:
who collects them for long enough knows the words. So plants, which other verifiers read, say what a
model said to such a question before. It refuses to ask for long answers: each is made again here.
"""

from collections.abc import Sequence
from typing import Final, TypeVar

from trunkline.base.ports import Randomness

_T = TypeVar("_T")

_THINGS: Final = (
    "a river", "the moon", "bread", "a bicycle", "winter", "a lighthouse", "music", "a bridge",
    "rain", "a library", "salt", "a train", "the sea", "a garden", "glass", "a clock", "a letter",
    "coffee", "a map", "the harbour", "a kitchen", "the wind", "a market", "paper", "a window",
    "a holiday", "a neighbour", "the night bus", "an old photograph", "a broken chair", "a recipe",
    "a small dog",
)  # fmt: skip
_ASKS: Final = (
    "Explain {} to a child.", "Write two sentences about {}.", "What is {} good for?",
    "tell me something about {}", "Why do people like {}?", "Describe {} in a few words.",
    "How would you draw {}?", "What should I know about {}?", "write a short poem about {} please",
    "Give me three facts about {}", "Compare {} with {}.", "Is {} older than {}? Why?",
    "Make up a story in which {} meets {}.", "I need a title for an essay on {} and {}",
    "Translate into French: I saw {} next to {}.", "what rhymes with {}",
    "Summarise: yesterday we talked about {}, then about {}, and nobody agreed on anything.",
    "Turn this into a polite request: bring me {} and {} now!", "List pros and cons of {}.",
    "Fix the grammar: he have seen {} and {} before i does",
)  # fmt: skip
_TURNS: Final = (
    "Sure, go on.", "That is a good question. It depends on what you want.", "Yes.",
    "I am not certain, but most people would say so.", "Here is a short answer: it varies a lot.",
    "Of course! What would you like to know about it?",
)  # fmt: skip
_SYSTEMS: Final = (
    "You are a helpful assistant.", "Answer briefly.", "You are a friendly teacher.",
    "You answer in plain English, without lists.", "You are a support agent of a small shop.",
    "Be concise and accurate. If you do not know, say so.",
)  # fmt: skip
_LENGTHS: Final = (16, 20, 32, 50, 64, 64, 80, 100, 100, 120, 128, 128, 150)
_TEMPERATURES: Final = (0.0, 0.2, 0.3, 0.5, 0.7, 0.7, 0.8, 0.9, 1.0)
_PASSAGES: Final = (5, 7, 9, 12, 15, 20, 26, 34, 45)
_WARM: Final = (0.7, 0.7, 0.8, 0.9, 1.0)


def body(
    model: str, randomness: Randomness, *, sampled: bool = False, words: str = ""
) -> dict[str, object]:
    """A chat request for ``model``, in the OpenAI format. ``sampled``: whose answer depends on its
    seed. ``words``: what it says, and none of the lists."""
    asked: dict[str, object] = {
        "model": model,
        "messages": [_user(words)] if words else _messages(randomness),
        "stream": True,
    }
    length = "max_completion_tokens" if _once_in(randomness, 3) else "max_tokens"
    asked[length] = _one(_LENGTHS, randomness)
    if sampled or not _once_in(randomness, 3):
        asked["temperature"] = _one(_WARM if sampled else _TEMPERATURES, randomness)
    if _once_in(randomness, 4):
        asked["top_p"] = _one((0.8, 0.9, 0.95, 1.0), randomness)
    if _once_in(randomness, 3):
        asked["stream_options"] = {"include_usage": True}
    if _once_in(randomness, 8):
        asked["stop"] = ["\n\n"]
    return asked


def passage(text: str, randomness: Randomness) -> str:
    """Some words of what a model said, in a row, to be asked about; empty if there are too few."""
    words = text.split()
    count = _one(_PASSAGES, randomness)
    if len(words) < min(_PASSAGES):
        return ""
    first = int.from_bytes(randomness.token(2), "big") % max(1, len(words) - count + 1)
    return " ".join(words[first : first + count])


def _messages(randomness: Randomness) -> list[dict[str, str]]:
    messages: list[dict[str, str]] = []
    if _once_in(randomness, 2):
        messages.append({"role": "system", "content": _one(_SYSTEMS, randomness)})
    while _once_in(randomness, 4) and len(messages) < 6:
        messages.append(_user(_ask(randomness)))
        messages.append({"role": "assistant", "content": _one(_TURNS, randomness)})
    return [*messages, _user(_ask(randomness))]


def _user(words: str) -> dict[str, str]:
    return {"role": "user", "content": words}


def _ask(randomness: Randomness) -> str:
    form = _one(_ASKS, randomness)
    return form.format(_one(_THINGS, randomness), _one(_THINGS, randomness))


def _once_in(randomness: Randomness, times: int) -> bool:
    return randomness.token(1)[0] % times == 0


def _one(choices: Sequence[_T], randomness: Randomness) -> _T:
    return choices[int.from_bytes(randomness.token(2), "big") % len(choices)]
