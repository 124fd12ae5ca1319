"""What a fake node says: the frames of one attempt, honest or spoiled, and the receipt over them.

Its "model" is a function of the answer's seed alone: see ``text_of``.
"""

import json
from collections.abc import Iterator
from hashlib import sha256
from typing import Protocol

import msgspec
from tests.support.fake_script import Cut, Fault, Pause, Script

from trunkline.crypto.digest import digest
from trunkline.crypto.signer import Signer, sign_note
from trunkline.receipts import (
    BatchBuilder,
    Hiding,
    Receipt,
    ReceiptAttempt,
    ReceiptCached,
    ReceiptModel,
    ReceiptPolicy,
    ReceiptRequest,
    ReceiptResponse,
    ReceiptSampling,
    ReceiptTimes,
    ReceiptUsage,
    ShownDigest,
    StreamDigest,
    bound_bytes,
    encode,
    request_digest,
    tokens_digest,
)
from trunkline.schema import sse
from trunkline.schema.attempt import (
    Accepted,
    Attempt,
    NodeError,
    Replayed,
    SignedReceipt,
)

MODEL = "tiny"
EMBEDDER = "tiny-embed"
WEIGHTS = digest(b"weights")
NUMERICS = "numerics-1"
TOKENS = 12
"""Tokens of every answer."""
SILENT_EVERY = 4
"""Every so manieth token completes no character: an event with tokens and no data."""
NOW_MS = 1_780_000_000_000


class Speaker(Protocol):
    """What an answer takes from its node."""

    signer: Signer
    operator: str
    numerics: str | None

    @property
    def name(self) -> str: ...


def own_seed(node: Speaker, caller_nonce: str, attempt: str) -> str:
    """The seed that a node gives an answer that begins with it."""
    return sha256((caller_nonce + node.name + attempt).encode()).hexdigest()


def token_of(seed: str, choice: int, position: int) -> int:
    """The model: which token stands where, for a seed."""
    hashed = sha256(f"{seed}/{choice}/{position}".encode()).digest()
    return int.from_bytes(hashed[:2], "big")


def text_of(seed: str, choice: int = 0, tokens: int = TOKENS) -> str:
    """The whole answer for a seed."""
    return "".join(f" w{token_of(seed, choice, position)}é" for position in range(tokens))


class Answering:
    """One attempt's frames."""

    def __init__(self, node: Speaker, attempt: Attempt, script: Script) -> None:
        self.node = node
        self.signer = node.signer
        self.attempt = attempt
        self.script = script
        self.body = json.loads(bytes(attempt.request))
        self.finish = "odd" if script.fault is Fault.ODD_FINISH else "stop"
        self.stream = bool(self.body.get("stream"))
        self.choices = self.body.get("n") or 1
        resumed = attempt.resume
        self.given = resumed.tokens if resumed else ((),) * self.choices
        self.seed = own_seed(node, attempt.caller_nonce, attempt.attempt)
        if attempt.seed is not None and script.fault is not Fault.WRONG_SEED:
            self.seed = attempt.seed
        self.bind = Hiding(attempt.blinding, answer=attempt.answer, attempt=attempt.attempt).bind
        self.request = self.bind("request.digest", request_digest(bytes(attempt.request)))
        self.digest = StreamDigest(bound_bytes(self.request), attempt.attempt)

    def frames(self) -> Iterator[bytes | Pause | Cut]:
        yield sse.encode(event="accepted", data=msgspec.json.encode(self._accepted()))
        work = self._embeddings() if self.attempt.kind == "embeddings" else self._work()
        yield from self._interrupted(list(work))

    def _interrupted(
        self, frames: list[tuple[bytes, bytes | None]]
    ) -> Iterator[bytes | Pause | Cut]:
        fault, after = self.script.fault, self.script.after
        if fault is Fault.NO_FINISH:
            frames = [frame for frame in frames if frame[1] is None or b'"stop"' not in frame[1]]
        for position in range(len(frames) + 1):
            if position == after:
                if self.script.hold is not None:
                    yield Pause(self.script.hold)
                ended = yield from self._strike(fault, frames, position)
                if ended:
                    return
            if position < len(frames):
                frame, data = frames[position]
                if data is not None:
                    self.digest.update(data)
                yield frame
        if fault is not Fault.NO_RECEIPT:
            yield sse.encode(event="receipt", data=msgspec.json.encode(self._receipt()))

    def _strike(
        self, fault: Fault, frames: list[tuple[bytes, bytes | None]], position: int
    ) -> Iterator[bytes | Pause | Cut]:
        """Do what goes wrong here; the generator's value says whether the attempt ends by it."""
        number = self._number_at(position)
        match fault:
            case Fault.ERROR_RETRYABLE | Fault.ERROR_FINAL:
                error = NodeError(
                    code="engine_died",
                    message="the engine died",
                    retryable=fault is Fault.ERROR_RETRYABLE,
                    status=500,
                )
                yield sse.encode(event="error", data=msgspec.json.encode(error))
            case Fault.CUT:
                rest = frames[position][0] if position < len(frames) else b"event: receipt\n"
                yield Cut(rest, self.script.bytes)
            case Fault.CLEAN_END:
                pass
            case Fault.STALL:
                yield Pause(None)
            case Fault.GARBAGE:
                yield sse.encode(id=number, data=b'{"choices": [}')
            case Fault.ALIEN_ERROR:
                yield sse.encode(id=number, data=b'{"error":{"message":"x","code":"y"}}')
            case Fault.DOUBLE:
                if position:
                    yield frames[position - 1][0]
                return False
            case _:
                return False
        return True

    def _number_at(self, position: int) -> int:
        if not self.stream:
            return 0
        produced = sum(map(len, self.given))
        return position + (1 + produced if produced else 0)

    def _accepted(self) -> Accepted:
        chat = self.attempt.kind == "chat"
        numerics = self.node.numerics if chat else None
        if self.script.fault is Fault.WRONG_NUMERICS:
            numerics = "numerics-9"
        return Accepted(
            attempt=self.attempt.attempt,
            node=self.node.name,
            operator=self.node.operator,
            key=str(self.signer.vkey),
            model=self.attempt.model,
            weights=WEIGHTS if chat else None,
            numerics=numerics,
            seed=self.seed if numerics else None,
            node_nonce="00" * 32 if numerics else None,
            cached=self.script.fault is Fault.UNASKED_CACHE,
        )

    def _embeddings(self) -> Iterator[tuple[bytes, bytes | None]]:
        body = {
            "object": "list",
            "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 0.5]}],
            "model": self.attempt.model,
            "usage": {"prompt_tokens": 3, "total_tokens": 3},
        }
        data = json.dumps(body).encode()
        yield sse.encode(id=0, data=data), data

    def _work(self) -> Iterator[tuple[bytes, bytes | None]]:
        if self.stream:
            yield from self._events()
            return
        for position in range(TOKENS):
            for choice in range(self.choices):
                if position >= len(self.given[choice]):
                    token = token_of(self.seed, choice, position)
                    yield sse.encode(event="progress", tokens=[(choice, token)]), None
        data = json.dumps(self._completion(), ensure_ascii=False).encode()
        yield sse.encode(id=0, data=data), data

    def _events(self) -> Iterator[tuple[bytes, bytes | None]]:
        """Every event of the whole answer, those before the resume point left out.

        What those would have shown is said before the first one that is sent.
        """
        shown = ShownDigest()
        frames = self._all_events(shown)
        first, data = next(frames)
        if any(self.given):
            replayed = msgspec.json.encode(Replayed(digest=shown.digest()))
            first = sse.encode(event="replayed", data=replayed) + first
        yield first, data
        yield from frames

    def _all_events(self, shown: ShownDigest) -> Iterator[tuple[bytes, bytes | None]]:
        given = sum(map(len, self.given))
        number, done = 0, 0
        role = [
            {"index": c, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
            for c in range(self.choices)
        ]
        if given:
            shown.update(self._data(role))
        else:
            yield self._event(0, self._data(role), None)
        number += 1
        waiting = [""] * self.choices
        for position in range(TOKENS):
            for choice in range(self.choices):
                token = token_of(self.seed, choice, position)
                waiting[choice] += f" w{token}é"
                silent = position % SILENT_EVERY == SILENT_EVERY - 2
                data = None if silent else self._data(_delta(choice, waiting[choice]))
                if not silent:
                    waiting[choice] = ""
                if done >= given:
                    # Without numerics this stands for a provider's model: no token ids.
                    spoken = [(choice, token)] if self.node.numerics else None
                    if data is not None or spoken:
                        yield self._event(number, data, spoken)
                        number += 1
                else:
                    shown.update(data)
                    number += 1
                done += 1
        end = [{"index": c, "delta": {}, "finish_reason": self.finish} for c in range(self.choices)]
        for one in end:
            yield self._event(number, self._data([one]), None)
            number += 1
        if (self.body.get("stream_options") or {}).get("include_usage"):
            usage = {"prompt_tokens": 3, "completion_tokens": TOKENS, "total_tokens": TOKENS + 3}
            yield self._event(number, self._data([], usage), None)

    def _event(
        self, number: int, data: bytes | None, tokens: list[tuple[int, int]] | None
    ) -> tuple[bytes, bytes | None]:
        return sse.encode(id=number, tokens=tokens, data=data), data

    def _data(self, choices: list[dict[str, object]], usage: object = None) -> bytes:
        chunk: dict[str, object] = {
            "id": "chatcmpl-" + self.attempt.answer,
            "object": "chat.completion.chunk",
            "created": self.attempt.created_s,
            "model": self.attempt.model,
            "choices": choices,
        }
        if usage is not None:
            chunk["usage"] = usage
        return json.dumps(chunk, ensure_ascii=False).encode()

    def _completion(self) -> dict[str, object]:
        return {
            "id": "chatcmpl-" + self.attempt.answer,
            "object": "chat.completion",
            "created": self.attempt.created_s,
            "model": self.attempt.model,
            "choices": [
                {
                    "index": choice,
                    "message": {"role": "assistant", "content": text_of(self.seed, choice)},
                    "finish_reason": self.finish,
                }
                for choice in range(self.choices)
            ],
            "usage": {
                "prompt_tokens": 3,
                "completion_tokens": TOKENS,
                "total_tokens": TOKENS + 3,
            },
        }

    def _receipt(self) -> SignedReceipt:
        fault = self.script.fault
        receipt = self._honest_receipt()
        match fault:
            case Fault.WRONG_STREAM:
                response = msgspec.structs.replace(receipt.response, digest=digest(b"other"))
                receipt = msgspec.structs.replace(receipt, response=response)
            case Fault.WRONG_REQUEST:
                request = msgspec.structs.replace(receipt.request, digest=digest(b"other"))
                receipt = msgspec.structs.replace(receipt, request=request)
            case Fault.HIDDEN_CACHE | Fault.UNASKED_CACHE:
                cached = ReceiptCached(ended_ms=NOW_MS, receipt="0f" * 32)
                receipt = msgspec.structs.replace(receipt, cached=cached)
            case Fault.WRONG_NODE:
                receipt = msgspec.structs.replace(receipt, node="other.localhost/node")
            case Fault.WRONG_ATTEMPT:
                receipt = msgspec.structs.replace(receipt, attempt="att_other")
            case Fault.WRONG_AUDIT:
                policy = msgspec.structs.replace(receipt.policy, audit=not receipt.policy.audit)
                receipt = msgspec.structs.replace(receipt, policy=policy)
            case _:
                pass
        builder = BatchBuilder(self.node.name)
        builder.add(encode(receipt))
        may = receipt.policy.audit is not (fault is Fault.MISCOUNTED)
        sealed = builder.seal(previous=None, unix_ms=NOW_MS, audited=int(may))
        signer = self.signer
        if fault is Fault.BAD_SIGNATURE:
            signer = Signer.generate(signer.vkey.name, sha256(b"somebody else").digest())
        return sealed.signed(sign_note(sealed.text, signer))[0]

    def _honest_receipt(self) -> Receipt:
        attempt, accepted = self.attempt, self._accepted()
        chat = attempt.kind == "chat"
        tokens = tuple(
            tuple(token_of(self.seed, choice, position) for position in range(TOKENS))
            for choice in range(self.choices)
        )
        resumed = attempt.resume
        return Receipt(
            answer=attempt.answer,
            attempt=attempt.attempt,
            created_s=attempt.created_s,
            key=str(self.signer.vkey),
            model=ReceiptModel(
                numerics=accepted.numerics or "",
                provider="embedded",
                requested=self.body["model"],
                served=attempt.model,
                weights=accepted.weights or "",
            ),
            node=self.node.name,
            operator=self.node.operator,
            policy=ReceiptPolicy(audit=attempt.audit, mode=attempt.mode),
            previous="",
            request=ReceiptRequest(
                client=attempt.client_request_digest,
                digest=self.request,
                format=attempt.client_format,
            ),
            response=ReceiptResponse(
                chunks=self.digest.chunks,
                digest=self.bind("response.digest", self.digest.close()),
                finish=(self.finish,) * self.choices if chat else (),
                resumed=tuple(map(len, resumed.tokens)) if resumed else (),
                resumed_digest=self.bind(
                    "response.resumed_digest", tokens_digest(resumed.tokens) if resumed else ""
                ),
                status=200,
                tokens=self.bind(
                    "response.tokens", tokens_digest(tokens) if accepted.numerics else ""
                ),
            ),
            route=tuple(
                ReceiptAttempt(attempt=p.attempt, error=p.error, node=p.node, tokens=p.tokens)
                for p in attempt.previous
            ),
            salt="11" * 32,
            sampling=ReceiptSampling(
                caller_nonce=attempt.caller_nonce,
                node_nonce=accepted.node_nonce or "",
                seed=accepted.seed or "",
                source="none"
                if accepted.seed is None
                else "inherited"
                if attempt.seed
                else "nonces",
            ),
            times=ReceiptTimes(arrived_ms=NOW_MS, ended_ms=NOW_MS + 2, first_token_ms=NOW_MS + 1),
            usage=ReceiptUsage(completion=TOKENS, counted=True, prompt=3),
        )


def _delta(choice: int, text: str) -> list[dict[str, object]]:
    return [{"index": choice, "delta": {"content": text}, "finish_reason": None}]
