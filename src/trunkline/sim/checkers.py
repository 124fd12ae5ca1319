"""The judges. They stand outside: they know what apps saw, what crossed the wire, and the disks.

Checks, by the names that a violation carries:

============ =======================================================================================
``deadline`` a call took longer than the deadline that came with it
``cut``      a connection ended without a word although the gateway lived
``silent``   an end that is neither a whole answer nor exactly one error in the client's format
``forged``   a finish reason in a stream that was never finished
``mixed``    one stream has the marks of two models
``substituted`` a model was asked that the policy does not let stand in for the one wanted
``damaged``  text that is not what the undisturbed answer has at that place: lost, doubled, altered
``unproven`` a whole answer, and no verified receipt on the disk the moment the app saw its end
``lost``     a receipt that was on the disk is not there, or not final, in the end
``forked``   a node's chain of receipts or batches is broken, or it lost a receipt that it gave
``dead``     after the faults a call failed, or a breaker stayed open
``bug``      a failure outside the error tree, or a broken invariant, in any process
============ =======================================================================================
"""

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from trunkline.base.errors import Error
from trunkline.crypto.keys import VerifierKey
from trunkline.gateway.writer import stream_translator, whole_answer
from trunkline.inference.answer import Event
from trunkline.node.chat import EmbeddedChat
from trunkline.node.core.statement import Identity
from trunkline.receipts import Receipt, open_batch, verify_signed
from trunkline.schema import openai_responses
from trunkline.schema.attempt import (
    ATTEMPT_PATH,
    Accepted,
    Attempt,
    ClientFormat,
    Limits,
    SignedReceipt,
)
from trunkline.schema.grid import responses_openai
from trunkline.schema.sse import SseParser
from trunkline.sim.app import Ending, Seen
from trunkline.sim.disk import Disk
from trunkline.sim.engine import KeyedEngine
from trunkline.sim.ports import SimNonces, SimRandomness
from trunkline.sim.roles import PLACES
from trunkline.sim.violation import Violation
from trunkline.sim.words import wrong_with

LATE_S_MAX: Final = 1.0
"""A deadline is kept within this: connecting to the gateway, and the last bytes' way."""
HONEST_STATUSES: Final = frozenset({402, 429, 502, 503, 504, 529})
"""What a call that nothing is wrong with may be answered instead of 200; 402 says that its key's
budget is spent."""
FRAME_BYTES_MAX: Final = 1 << 20
WHOLE: Final = "ended as whole"
"""In the detail of ``damaged``, where the app could not tell."""


class Tapped:
    """One attempt as it crossed the wire: what the node was asked, and what it accepted."""

    def __init__(self, attempt: Attempt, at_s: float) -> None:
        self.attempt = attempt
        self.at_s = at_s
        self.accepted: Accepted | None = None
        self._parser: SseParser | None = SseParser(FRAME_BYTES_MAX)

    def hear(self, frame: bytes) -> None:
        """One frame as the node sent it."""
        if self._parser is None:
            return
        for event in self._parser.feed(frame):
            if event.event == "accepted":
                self.accepted = msgspec.json.decode(event.data or b"", type=Accepted)
                self._parser = None
                return


class Taps:
    """Every attempt that crossed the wire, by its answer."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Tapped]] = {}

    def tap(self, _host: str, path: str, body: bytes) -> Callable[[bytes], None]:
        """A network's ``tap``."""
        if path != ATTEMPT_PATH:
            return _unheard
        now_s = asyncio.get_running_loop().time()
        tapped = Tapped(msgspec.json.decode(body, type=Attempt), now_s)
        self.answers.setdefault(tapped.attempt.answer, []).append(tapped)
        return tapped.hear

    def of(self, seen: Seen) -> Sequence[Tapped]:
        """The attempts at the answer that an app saw."""
        return self.answers.get(seen.answer or "", ())


def _unheard(_frame: bytes) -> None:
    """Polls are not listened to."""


class _Collect:
    """Takes a work's output for nobody's app."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []

    async def event(self, event: Event) -> None:
        if event.id is not None and event.data is not None:
            self.messages.append(event.data)

    async def replayed(self, digest: str) -> None:
        """An undisturbed answer takes nothing over."""

    async def limits(self, limits: Limits) -> None:
        """Nobody schedules by them here."""

    async def alive(self) -> None:
        """No one listens."""


class Undisturbed:
    """Computes what an answer would have been had nothing gone wrong."""

    def __init__(self, engines: Mapping[str, KeyedEngine], identity: Identity) -> None:
        """``engines``: an honest one by weights digest."""
        self._engines = engines
        self._identity = identity
        self._chats: dict[str, EmbeddedChat] = {}

    async def _chat(self, weights: str) -> EmbeddedChat:
        chat = self._chats.get(weights)
        if chat is None:
            chat = self._chats[weights] = EmbeddedChat(
                self._engines[weights],
                self._identity,
                choices_max=PLACES,
                nonces=SimNonces(SimRandomness("unused")),
            )
            await chat.load()
        return chat

    async def answer(self, tapped: Tapped, body: bytes) -> tuple[bytes, ...]:
        """The app's bytes, one piece per message, for the seed and weights that were accepted.
        ``body``: the app's request."""
        accepted, attempt = tapped.accepted, tapped.attempt
        if accepted is None or accepted.weights is None:
            raise AssertionError("only an accepted attempt has an undisturbed answer")
        chat = await self._chat(accepted.weights)
        work = await chat.prepare(
            msgspec.structs.replace(
                attempt, seed=accepted.seed, resume=None, numerics=None, previous=()
            )
        )
        output = _Collect()
        await work.run(output)
        return _told(attempt, body, output.messages)


def _told(attempt: Attempt, body: bytes, messages: list[bytes]) -> tuple[bytes, ...]:
    """Messages as the client's format has them. ``body``: the app's own request."""
    format_, answer = attempt.client_format, attempt.answer
    echo = None
    if format_ == "openai.responses":
        echo = responses_openai.echo(openai_responses.parse(body))
    if not json.loads(bytes(attempt.request)).get("stream"):
        (message,) = messages
        return (whole_answer(message, format_, answer, echo),)
    translator = stream_translator(format_, answer, echo)
    return (*(translator.feed(message) for message in messages), translator.finish())


_MARKS: Final[Mapping[ClientFormat, bytes]] = {
    "anthropic.messages": b"event: error\n",
    "openai.chat": b'data: {"error"',
    "openai.responses": b"event: response.failed\n",
}
"""How the end of a failed stream begins."""


def split_error(format_: ClientFormat, body: bytes) -> tuple[bytes, bool]:
    """A stream's text and whether it ends in a failure, by one event or several."""
    mark = _MARKS[format_]
    start = 0 if body.startswith(mark) else body.rfind(b"\n\n" + mark) + 2
    if start == 1:
        # An app that leaves may have half of the event.
        start = body.rfind(b"\n\n") + 2 if b"\n\n" in body else 0
        if start == len(body) or not mark.startswith(body[start:]):
            return body, False
    return body[:start], True


def succeeded(seen: Seen) -> bool:
    """The app has every reason to think that its answer is whole."""
    whole = seen.ending is Ending.COMPLETE and seen.status == 200
    return whole and not (seen.ask.stream and split_error(seen.ask.format, seen.body)[1])


class Judge:
    """Judges what one app saw of one call."""

    def __init__(
        self,
        undisturbed: Undisturbed,
        keys: Mapping[str, VerifierKey],
        allowed: Mapping[str, frozenset[str]],
    ) -> None:
        """``allowed``: models that may serve each name."""
        self._undisturbed = undisturbed
        self._keys = keys
        self._allowed = allowed

    async def judge(self, calls: Iterable[Seen], taps: Taps) -> list[Violation]:
        """Everything wrong with these calls."""
        return [wrong for seen in calls for wrong in await self._judge(seen, taps.of(seen))]

    async def _judge(self, seen: Seen, attempts: Sequence[Tapped]) -> list[Violation]:
        found = [*_time(seen), *_ending(seen)]
        allowed = self._allowed[seen.ask.model]
        if any(one.attempt.model not in allowed for one in attempts):
            found.append(Violation("substituted", f"{seen.ask.model} was asked for"))
        if seen.status == 200:
            found += await self._text(seen, attempts)
        if succeeded(seen):
            found += self._evidence(seen)
        number = f"call {seen.ask.number}, answer {seen.answer}: "
        return [Violation(item.check, number + item.detail) for item in found]

    async def _text(self, seen: Seen, tapped: Sequence[Tapped]) -> list[Violation]:
        text, failed = split_error(seen.ask.format, seen.body) if seen.ask.stream else (b"", False)
        marks = _fingerprints(seen)
        if len(marks) > 1:
            return [Violation("mixed", f"{len(marks)} fingerprints in one stream")]
        if failed and _finished(seen, text):
            return [Violation("forged", "a finish reason before an error")]
        wrong: list[str] = []
        accepted = [one for one in tapped if one.accepted is not None]
        models = dict.fromkeys(one.attempt.model for one in accepted if not _weighted(one))
        for model in models:
            told = text if seen.ask.stream else seen.body
            wrong.append(wrong_with(seen, told, model, failed=failed, parts=len(accepted)))
            if not wrong[-1]:
                return []
        for attempt in filter(_weighted, accepted):
            pieces = await self._undisturbed.answer(attempt, seen.ask.body)
            whole = b"".join(pieces)
            if seen.ending is Ending.LEFT and whole.startswith(seen.body):
                return []
            if seen.ending is Ending.COMPLETE and not failed:
                if seen.body == whole:
                    return []
            elif failed:
                if text != whole and _whole_pieces(text, pieces):
                    return []
            elif whole.startswith(seen.body):
                return []
        end = WHOLE if seen.ending is Ending.COMPLETE and not failed else "ended explicitly"
        what = f"{len(seen.body)} bytes, {end}, are not the undisturbed answer's"
        what = "; ".join((what, *wrong))
        return [Violation("damaged", what)]

    def _evidence(self, seen: Seen) -> list[Violation]:
        if seen.kept is None:
            return [Violation("unproven", "nothing is on the disk")]
        try:
            receipt = self._verified(seen.kept.signed)
        except Error as error:
            return [Violation("unproven", f"the receipt does not verify: {error.error_code}")]
        if receipt.answer != seen.answer:
            return [Violation("unproven", "the receipt is another answer's")]
        return []

    def _verified(self, data: bytes) -> Receipt:
        signed = msgspec.json.decode(data, type=SignedReceipt)
        name = json.loads(signed.receipt)["node"]
        return verify_signed(signed, self._keys[name]).receipt


def history(key: VerifierKey, disk: Disk, kept: Iterable[bytes]) -> list[Violation]:
    """A node's disk in the end. ``kept``: signed receipts that gateways hold, of any node."""
    found: list[Violation] = []
    root: bytes | None = None
    for (note,) in disk.connection.execute("SELECT note FROM batches ORDER BY number"):
        batch = open_batch(note, key)
        if batch.previous != root:
            found.append(Violation("forked", f"{disk.name}: a batch names another before it"))
        root = batch.root
    rows = disk.connection.execute("SELECT signed FROM receipts ORDER BY batch, place")
    given = [msgspec.json.decode(signed, type=SignedReceipt) for (signed,) in rows]
    leaf = b""
    for signed in given:
        verified = verify_signed(signed, key)
        if verified.receipt.previous != leaf.hex():
            found.append(Violation("forked", f"{disk.name}: a receipt names another before it"))
        leaf = verified.leaf
    for data in kept:
        held = msgspec.json.decode(data, type=SignedReceipt)
        if json.loads(held.receipt)["node"] == key.name and held not in given:
            found.append(Violation("forked", f"{disk.name}: it does not have a receipt it gave"))
    return found


def _weighted(tapped: Tapped) -> bool:
    """By a model whose weights are known."""
    return tapped.accepted is not None and tapped.accepted.weights is not None


def _time(seen: Seen) -> list[Violation]:
    took_s = seen.ended_s - seen.began_s - seen.rested_s
    if took_s > seen.ask.deadline_s + LATE_S_MAX:
        return [Violation("deadline", f"took {took_s:.2f} s of {seen.ask.deadline_s:.0f} s")]
    return []


def _ending(seen: Seen) -> list[Violation]:
    if seen.ending in (Ending.CUT, Ending.REFUSED):
        return [] if seen.bereft else [Violation("cut", f"{seen.ending.name} by a live gateway")]
    if seen.ending is Ending.LEFT or seen.status == 200:
        return []
    if seen.status not in HONEST_STATUSES:
        return [Violation("silent", f"status {seen.status}")]
    return _one_error(seen.body)


def _one_error(body: bytes) -> list[Violation]:
    try:
        told = json.loads(body)
    except ValueError:
        return [Violation("silent", "the error is no JSON")]
    explicit = isinstance(told, dict) and isinstance(told.get("error"), dict)
    return [] if explicit else [Violation("silent", "no error object")]


def _fingerprints(seen: Seen) -> set[str]:
    """The marks of models in an OpenAI stream; the Anthropic format has none."""
    if seen.ask.format != "openai.chat" or not seen.ask.stream:
        return set()
    found: set[str] = set()
    for block in seen.body.split(b"\n\n")[:-1]:
        if block.startswith(b"data: {"):
            message = json.loads(block.removeprefix(b"data: "))
            if "error" not in message:
                found.add(str(message.get("system_fingerprint")))
    return found


def _finished(seen: Seen, text: bytes) -> bool:
    """Whether the text says of all its choices that they are finished."""
    if seen.ask.format == "anthropic.messages":
        return b'"stop_reason":"' in text
    if seen.ask.format == "openai.responses":
        return b"event: response.completed" in text or b"event: response.incomplete" in text
    choices: int = json.loads(seen.ask.body).get("n", 1)
    return text.count(b'"finish_reason":"') >= choices


def _whole_pieces(text: bytes, pieces: tuple[bytes, ...]) -> bool:
    """Whether ``text`` is the first so many of the pieces."""
    came = 0
    for piece in pieces:
        if came == len(text):
            break
        came += len(piece)
    return came == len(text) and b"".join(pieces).startswith(text)
