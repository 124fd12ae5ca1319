"""What a provider's answer must be before it is passed on: pure checks over its events and body.

The answer is relayed as the provider wrote it. Its ``id``, ``created`` and ``model`` too, which are
the same throughout (``heads.py``), and whoever goes on with it elsewhere is told them
(``joint.py``). Checked, and failed with a stable code when it does not hold: every chunk is a chunk
of this answer, every choice finishes and says nothing after it, something was said, the model is
the one asked for, counts of the tokens so far never fall, and no more chunks speak than tokens were
counted because one of them came twice. Chunks have no numbers: one that is lost, or that changed
places where nothing was counted, can not be told from what the model said. Of what is wrong only
slips are put right that lose nothing (``mending.py``), and no finish is forged.
"""

from collections.abc import Mapping, Sequence
from typing import Final, get_args

import msgspec

from trunkline.base.errors import BadResponseError, MalformedError, TruncatedError
from trunkline.node.core.mending import FINISHES, countable, mended
from trunkline.node.core.order import BAD_CHUNK, REPEATED, Order
from trunkline.node.core.served import ServedName
from trunkline.schema.openai_answer import (
    Chunk,
    ChunkChoice,
    FinishReason,
    ReadChoice,
    Usage,
    parse_chunk,
    parse_completion,
)
from trunkline.schema.parsing import given, top_level

EMPTY: Final = "upstream_empty"
HELD_EVENTS_MAX: Final = 64
"""Chunks held back until the first that says something; a stream with more has said nothing."""
HELD_BYTES_MAX: Final = 1024 * 1024
NAME_CHARS_MAX: Final = 256
CHOICES_MAX: Final = 128
FAILED_FINISHES: Final = frozenset(
    {"error", "abort", "insufficient_system_resource", "network_error",
     "cancelled", "canceled", "failed", "timeout", "interrupted", "server_error",
     "internal_error", "malformed_function_call", "unexpected_tool_call"}
)  # fmt: skip
"""Finish reasons that mean that none was reached, in lower case: of OpenRouter, Mistral and
Together; of vLLM and SGLang; of DeepSeek; of Zhipu; of Gemini; and what proxies say in their place.
A finish under any other name is passed on, to apps of this format."""
_KNOWN: Final = frozenset(get_args(FinishReason))
_CALLED: Final = frozenset({"tool_calls", "function_call"})

_encode = msgspec.json.Encoder().encode


def with_model(raw: bytes, model: str) -> bytes:
    """The request with another ``model``; every other member's bytes are kept, unknown ones too."""
    return with_members(raw, {"model": _encode(model)})


def with_members(raw: bytes, changes: Mapping[str, bytes]) -> bytes:
    """The JSON object with some members set to these values (JSON too); the rest is kept."""
    return joined({**top_level(raw), **changes})


def joined(members: Mapping[str, bytes | msgspec.Raw]) -> bytes:
    """The JSON object of these members; their values are JSON and kept to the byte."""
    return b"{%b}" % b",".join(
        _encode(name) + b":" + bytes(value) for name, value in members.items()
    )


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What the upstream said of its answer, for the receipt."""

    model: str = ""
    fingerprint: str = ""
    finish: tuple[str, ...] = ()
    usage: Usage | None = None


def one_line(data: bytes) -> bytes:
    """JSON on one line: line ends can only stand between its tokens."""
    return data.replace(b"\r", b" ").replace(b"\n", b" ")


class StreamCheck:
    """Follows a stream of chunks; ``feed`` returns what may be passed on now."""

    __slots__ = (
        "_choices", "_copies", "_counted", "_done", "_fingerprint", "_finish", "_held",
        "_held_bytes", "_known", "_last", "_order", "_served", "_speaking", "_spoken", "_usage",
    )  # fmt: skip

    def __init__(
        self,
        choices: int,
        names: Sequence[str] = (),
        *,
        goes_on: bool = False,
        running: bool = False,
        known: bool = False,
    ) -> None:
        """``choices``: how many the request asked for. ``names``: right ones for the model.
        ``goes_on``: after a given text, so that nothing more may be left to say. ``running``: each
        chunk was asked to count the tokens so far. ``known``: the app's format is another one, and
        has no words for a finish that this one does not know."""
        self._choices = choices
        self._known = known
        self._served = ServedName(names)
        self._last = b""
        self._copies = 0
        # Of several choices each may count its own.
        self._order = Order(counts=running and choices <= 1)
        self._speaking = 0
        self._finish: dict[int, str] = {}
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._spoken = goes_on
        self._done = False
        self._fingerprint = ""
        self._usage: Usage | None = None
        self._counted = False
        """The count at the end has come."""

    @property
    def over(self) -> bool:
        """The answer has ended, whatever becomes of the connection: the stream's end was said, or
        every choice has finished."""
        return self._done or len(self._finish) == max(self._choices, 1)

    def feed(self, data: bytes) -> list[bytes]:
        """Take one event's data; what follows the stream's end is nobody's. Raises
        BadResponseError ``upstream_bad_chunk`` or ``upstream_wrong_model``."""
        self._done = self._done or data.strip() == b"[DONE]"
        if self._done:
            return []
        data, chunk = _read_chunk(data)
        self._note(chunk)
        line = one_line(data)
        if any(_speaks(choice) for choice in chunk.choices):
            self._speaking += 1
            self._note_repeat(line, chunk)
            self._order.note(chunk)
        self._last = line
        if self._spoken:
            return [line]
        self._held.append(line)
        self._held_bytes += len(line)
        if self._speaking:
            self._spoken = True
            held, self._held = self._held, []
            return held
        if len(self._held) > HELD_EVENTS_MAX or self._held_bytes > HELD_BYTES_MAX:
            raise BadResponseError("many chunks, and nothing in them", code=EMPTY)
        return []

    def end(self) -> Said:
        """The stream is over. Raises :class:`TruncatedError` or BadResponseError
        ``upstream_empty`` unless it was an answer."""
        if not self._spoken:
            raise BadResponseError("the answer is empty", code=EMPTY)
        unfinished = [
            index for index in range(max(self._choices, 1)) if not self._finish.get(index)
        ]
        if unfinished:
            raise TruncatedError("the stream ended without a finish reason")
        self._check_repeats()
        return Said(
            model=self._served.name[:NAME_CHARS_MAX],
            fingerprint=self._fingerprint,
            finish=tuple(self._finish[index] for index in sorted(self._finish)),
            usage=self._usage,
        )

    def closing(self) -> bytes | None:
        """The chunk with the count at the end, for a stream that broke off before it and counted
        as it went; None if there is nothing to make it of, or no need."""
        usage = self._usage
        if self._counted or usage is None or not usage.completion_tokens:
            return None
        counted = {"choices": b"[]", "usage": _encode(usage)}
        return with_members(self._last, counted)

    def _note_repeat(self, line: bytes, chunk: Chunk) -> None:
        """A chunk that is the same as the last, byte for byte, may be a copy of it. It is one if
        it counts the tokens so far, and not one more."""
        if line != self._last:
            return
        if chunk.usage is not None and chunk.usage.completion_tokens > 0:
            raise BadResponseError("a chunk came twice", code=BAD_CHUNK)
        self._copies += 1

    def _check_repeats(self) -> None:
        """Chunks have no numbers, and a model may say the same twice. But each chunk that speaks
        holds a token at least: where there are more of them than tokens, and would not be without
        those that came twice, they are copies. (Where there still would be, the provider cuts its
        tokens into pieces, or counts otherwise.)"""
        counted = 0 if self._usage is None else self._usage.completion_tokens
        if self._speaking - self._copies <= counted < self._speaking and counted:
            raise BadResponseError("a chunk came twice", code=REPEATED)

    def _note(self, chunk: Chunk) -> None:
        self._served.note(chunk.model)
        self._fingerprint = self._fingerprint or (chunk.system_fingerprint or "")[:NAME_CHARS_MAX]
        if chunk.usage is not None:
            self._usage = chunk.usage
            self._counted = not chunk.choices
        if len({choice.index for choice in chunk.choices}) < len(chunk.choices):
            raise BadResponseError("a choice is in a chunk twice", code=BAD_CHUNK)
        for choice in chunk.choices:
            if not 0 <= choice.index < max(self._choices, 1):
                raise BadResponseError("a chunk of a choice nobody asked for", code=BAD_CHUNK)
            self._note_finish(choice)

    def _note_finish(self, choice: ChunkChoice) -> None:
        if _failed(choice, known=self._known):
            raise TruncatedError("the provider broke the answer off")
        before = self._finish.get(choice.index)
        again = choice.finish_reason not in (None, before)
        if before is not None and (again or _says(choice)):
            raise BadResponseError("a choice goes on after its finish", code=BAD_CHUNK)
        if choice.finish_reason:
            self._finish[choice.index] = choice.finish_reason[:NAME_CHARS_MAX]


def _read_chunk(data: bytes) -> tuple[bytes, Chunk]:
    """The chunk, and its bytes with small slips put right. Raises BadResponseError."""
    try:
        if not data.isascii():
            # In members that nobody reads here, too: an app's parser may stumble over them.
            data.decode()
        chunk = _clean_chunk(data)
        if chunk is None:
            data = mended(data)
            chunk = parse_chunk(data)
    except (MalformedError, UnicodeDecodeError):
        raise BadResponseError("a chunk does not parse", code=BAD_CHUNK) from None
    if b'"choices"' not in data:
        # An error in a shape of its own, as likely as not.
        raise BadResponseError("an event of the stream is no chunk", code=BAD_CHUNK)
    return data, chunk


def _clean_chunk(data: bytes) -> Chunk | None:
    """The chunk; None if it does not parse, or reads well here and might not elsewhere."""
    try:
        chunk = parse_chunk(data)
    except MalformedError:
        return None
    numbered = sum(1 + len(choice.delta.tool_calls or ()) for choice in chunk.choices)
    slips = data.count(b'"index"') < numbered or data.count(b'"delta"') < len(chunk.choices)
    slips = slips or (chunk.usage is not None and not countable(chunk.usage))
    return None if slips or any(c.finish_reason in FINISHES for c in chunk.choices) else chunk


def _failed(choice: ChunkChoice | ReadChoice, *, known: bool) -> bool:
    finish = choice.finish_reason or ""
    unsayable = known and bool(finish) and finish not in _KNOWN
    return given(choice.error) or finish.lower() in FAILED_FINISHES or unsayable


def _speaks(choice: ChunkChoice) -> bool:
    return _says(choice) or _explains(choice.finish_reason)


def _explains(finish: str | None) -> bool:
    """Whether it explains an empty answer: a filter, a length. That calls were made does not."""
    return finish not in (None, "stop", *_CALLED)


def _says(choice: ChunkChoice) -> bool:
    delta = choice.delta
    said = delta.content or delta.refusal or delta.tool_calls or delta.function_call
    thought = delta.reasoning_content or _some(delta.reasoning)
    return bool(said or thought)


def _some(thought: msgspec.Raw) -> bool:
    return given(thought) and bytes(thought) != b'""'


def readable(body: bytes) -> bytes:
    """A whole answer with its small slips put right, as those of a stream's chunks are."""
    try:
        found = parse_completion(body)
    except MalformedError:
        return mended(body)
    choices = found.choices
    slips = body.count(b'"index"') < len(choices)
    slips = slips or (found.usage is not None and not countable(found.usage))
    return mended(body) if slips or any(c.finish_reason in FINISHES for c in choices) else body


def check_completion(
    body: bytes, choices: int, names: Sequence[str] = (), *, known: bool = False
) -> Said:
    """Check a whole answer, as :class:`StreamCheck` does a stream. Raises BadResponseError or
    :class:`TruncatedError`."""
    try:
        completion = parse_completion(body)
    except MalformedError:
        raise BadResponseError("the answer is no completion", code=BAD_CHUNK) from None
    ServedName(names).note(completion.model)
    if len(completion.choices) < max(choices, 1):
        raise BadResponseError("the answer lacks choices", code=EMPTY)
    if sorted(choice.index for choice in completion.choices) != list(range(max(choices, 1))):
        raise BadResponseError("the answer holds other choices than asked for", code=BAD_CHUNK)
    if any(_failed(choice, known=known) for choice in completion.choices):
        raise TruncatedError("the provider broke the answer off")
    if any(not choice.finish_reason for choice in completion.choices):
        raise TruncatedError("the answer has no finish reason")
    if not all(_answers(choice) for choice in completion.choices):
        raise BadResponseError("the answer is empty", code=EMPTY)
    return Said(
        model=completion.model[:NAME_CHARS_MAX],
        fingerprint=(completion.system_fingerprint or "")[:NAME_CHARS_MAX],
        finish=tuple(
            (choice.finish_reason or "")[:NAME_CHARS_MAX]
            for choice in completion.choices[:CHOICES_MAX]
        ),
        usage=completion.usage,
    )


def _answers(choice: ReadChoice) -> bool:
    message = choice.message
    said = message.content or message.refusal or message.tool_calls or message.function_call
    thought = message.reasoning_content or _some(message.reasoning)
    return bool(said or thought or _explains(choice.finish_reason))
