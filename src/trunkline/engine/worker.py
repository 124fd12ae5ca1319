"""The engine's process: loads the model, then one loop that reads jobs, computes, and answers.

Started by ``client.py`` as ``python -m trunkline.engine.worker FD``, where ``FD`` is its end
of a socket pair. It opens no port, logs no prompt, and ends when its parent does: the kernel kills
it (``PR_SET_PDEATHSIG``), and should that fail, its socket reads end of file.

Single-threaded, except inside the native library: a job is only ever touched between two native
calls, so there is nothing to lock.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import msgspec
import numpy as np
from numpy.typing import NDArray

from trunkline.base.errors import ConfigError, CorruptStateError, Error
from trunkline.engine import llama, torch_memory, weights
from trunkline.engine.batcher import ROWS_MIN, Batcher, Event, Job, Memory, Moves
from trunkline.engine.confinement import begin, silence_native_output
from trunkline.engine.frames import (
    Cancel,
    EngineSetup,
    Failed,
    FrameSocket,
    Ready,
    SelfTested,
    Start,
    StartScore,
    Step,
    TestSelf,
    ToEngine,
    Tokenize,
    Tokenized,
    failure,
)
from trunkline.engine.scoring import Scoring
from trunkline.engine.self_test import SelfTest
from trunkline.engine.sequence import Running
from trunkline.inference.ports import ModelInfo, Token, TokenScore

PIECE_TOKENS = 32
"""Rows in a piece of a prompt: others wait for it. One of 63 takes 4 % less for a token."""
LONE_PIECE_TOKENS = llama.ATTENTION_ROWS_MAX
"""Rows in a piece that no answer waits for."""

QUEUE_JOBS_MAX = 256
"""More than any client keeps in flight: its own bound is the one that callers meet."""

_CACHE_ALIGNMENT = 256


def main(arguments: list[str]) -> int:
    """Run until the parent hangs up. Returns the exit status."""
    decoder = msgspec.msgpack.Decoder(ToEngine)
    begun = begin(arguments, decoder, EngineSetup)
    if isinstance(begun, int):
        return begun
    channel, setup, bodies = begun
    try:
        engine = _Engine(setup, channel)
    except ConfigError as error:
        channel.send(failure(0, error))
        return 1
    engine.announce()
    silence_native_output()
    for body in bodies:
        engine.handle(decoder.decode(body))
    while (received := channel.receive(block=not engine.busy)) is not None:
        for body in received:
            engine.handle(decoder.decode(body))
        engine.work()
    return 0


class _Engine:
    """The loaded model and the jobs that run on it."""

    def __init__(self, setup: EngineSetup, channel: FrameSocket) -> None:
        self._channel = channel
        self._name = setup.model_name
        self._context_tokens = setup.context_tokens
        prepared = weights.prepare(
            weights.locate(setup.model_path), setup.weights, Path(setup.cache_folder)
        )
        self._weights = prepared
        self._advice = weights.advice(setup.model_path)
        self._library = llama.Library(llama.library_path(), log=_log_native)
        text_alone = setup.compute == "vocabulary"
        self._model = llama.Model(self._library, prepared.path, vocabulary_only=text_alone)
        # How long the model may read is not known without its weights.
        if not text_alone and setup.context_tokens > self._model.context_tokens_trained:
            raise ConfigError(
                f"the engine's context_tokens is {setup.context_tokens}; the model was trained"
                f" for at most {self._model.context_tokens_trained}"
            )
        slots = max(setup.sequences, ROWS_MIN)
        self._end_tokens = frozenset(self._model.end_tokens())
        memory, self._numerics, piece_tokens = self._compute(setup, slots)
        self._batcher = Batcher(
            memory,
            slots=slots,
            piece_tokens=piece_tokens,
            lone_piece_tokens=LONE_PIECE_TOKENS,
            queue_jobs_max=QUEUE_JOBS_MAX,
        )
        self._tests: list[SelfTest] = []

    def _compute(self, setup: EngineSetup, slots: int) -> tuple[Memory, str, int]:
        """What computes logits, its numerics, and the tokens in a piece of a prompt."""
        advice = (self._advice.temperature, self._advice.top_p)
        if setup.compute == "vocabulary":
            return _Nothing(), "", PIECE_TOKENS
        if setup.compute == "pytorch":
            model = torch_memory.load(self._weights.path, threads=setup.threads)
            numerics = torch_memory.numerics(self._weights.digest, weights.PIPELINE_VERSION, advice)
            memory = torch_memory.TorchMemory(model, sequences=slots)
            return memory, numerics, torch_memory.PIECE_TOKENS
        # One position more than a job may use, for fillers, in the library's own granularity.
        room = (setup.context_tokens // _CACHE_ALIGNMENT + 1) * _CACHE_ALIGNMENT
        settings = llama.Settings(
            sequences=slots,
            context_tokens=room,
            ubatch_tokens=max(LONE_PIECE_TOKENS, slots),
            threads=setup.threads,
        )
        numerics = weights.numerics(self._library, self._weights, settings, self._advice)
        return llama.Context(self._model, settings), numerics, PIECE_TOKENS

    @property
    def busy(self) -> bool:
        return self._batcher.busy

    def announce(self) -> None:
        model = self._model
        info = ModelInfo(
            name=self._name,
            weights_digest=self._weights.digest,
            source_digest=self._weights.source_digest,
            numerics=self._numerics,
            context_tokens=self._context_tokens,
            vocabulary_size=model.vocabulary_size,
            eos_token_ids=tuple(sorted(self._end_tokens)),
            chat_template=model.chat_template(),
            bos_text=model.token_text("bos"),
            eos_text=model.token_text("eos"),
            temperature=self._advice.temperature,
            top_p=self._advice.top_p,
        )
        self._channel.send(Ready(model=info, pieces=model.pieces()))
        self._library.mute()

    def handle(self, message: ToEngine) -> None:
        match message:
            case Start() | StartScore():
                self._start(message)
            case TestSelf():
                test = SelfTest(message.id, self._model.vocabulary_size)
                self._tests.append(test)
                self._probe(test)
            case Cancel():
                self._batcher.cancel(message.id)
            case Tokenize():
                self._tokenize(message)
            case EngineSetup():
                pass

    def work(self) -> None:
        """One micro-batch of each kind, with a look for news in between."""
        if self._batcher.busy:
            self._report(self._batcher.advance_answers())
        if self._batcher.busy:
            self._report(self._batcher.advance_prompt())

    def _start(self, message: Start | StartScore) -> None:
        try:
            self._batcher.add(self._job(message))
        except Error as error:
            self._channel.send(failure(message.id, error))

    def _job(self, message: Start | StartScore) -> Job:
        grammar = message.job.sampling.grammar
        constraint = llama.Grammar(self._model, grammar) if grammar else None
        if isinstance(message, StartScore):
            return Scoring(message.id, message.job, ends=self._end_tokens, constraint=constraint)
        return Running(
            message.id,
            message.job,
            end_tokens=self._end_tokens,
            vocabulary_size=self._model.vocabulary_size,
            constraint=constraint,
        )

    def _tokenize(self, message: Tokenize) -> None:
        try:
            tokens = self._model.tokenize(message.text, parse_special=message.parse_special)
            self._channel.send(Tokenized(id=message.id, tokens=tokens))
        except Error as error:
            self._channel.send(failure(message.id, error))

    def _report(self, moves: Moves) -> None:
        events: list[tuple[int, list[Token]]] = []
        scores: list[tuple[int, list[TokenScore]]] = []
        failures: list[Failed] = []
        for job_id, outcome in moves:
            if test := next((test for test in self._tests if test.owns(job_id)), None):
                self._note(test, job_id, outcome)
            elif isinstance(outcome, Error):
                failures.append(failure(job_id, outcome))
            elif tokens := [event for event in outcome if isinstance(event, Token)]:
                events.append((job_id, tokens))
            elif scored := [event for event in outcome if isinstance(event, TokenScore)]:
                scores.append((job_id, scored))
        # Sent even when empty: the parent's watchdog tells a long prompt from a stall by it.
        self._channel.send(Step(events=events, scores=scores))
        for failed in failures:
            self._channel.send(failed)

    def _note(self, test: SelfTest, probe_id: int, outcome: Sequence[Event] | Error) -> None:
        if isinstance(outcome, Error):
            self._end_test(test, outcome)
        elif test.note(probe_id, [event for event in outcome if isinstance(event, bytes)]):
            self._probe(test)

    def _probe(self, test: SelfTest) -> None:
        """Start the next stage of ``test``, or say what it found."""
        probes = test.stage()
        try:
            for probe in probes:
                self._batcher.add(probe)
        except Error as error:
            self._end_test(test, error)
            return
        if not probes:
            self._end_test(test, test.result())

    def _end_test(self, test: SelfTest, result: str | Error) -> None:
        self._tests.remove(test)
        for probe_id in test.probes:
            self._batcher.cancel(probe_id)
        if isinstance(result, Error):
            self._channel.send(failure(test.id, result))
        else:
            self._channel.send(SelfTested(id=test.id, digest=result))


class _Nothing:
    """``batcher.Memory`` of an engine that computes nothing. No job is sent to one."""

    def decode(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        sequences: Sequence[int],
        outputs: Sequence[bool],
    ) -> None:
        raise CorruptStateError("this engine has a vocabulary alone")

    def logits(self, index: int) -> NDArray[np.float32]:
        raise IndexError(index)

    def forget(self, sequence: int, from_position: int) -> None:
        """Nothing is remembered."""

    def copy(self, source: int, target: int) -> None:
        """Nothing is there."""

    def swap(self, one: int, other: int) -> None:
        """Nothing is there."""


def _log_native(line: str) -> None:
    sys.stderr.write(f"engine: {line}\n")


def _run() -> NoReturn:
    # No interpreter shutdown: the native library has nothing to flush, and freeing is slow.
    status = main(sys.argv[1:])
    os._exit(status)


if __name__ == "__main__":
    _run()
