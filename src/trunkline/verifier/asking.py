"""A verifier's own question to a node, by the attempt protocol: what it answers, with its receipt.

Nothing in it tells the node who asks, or that anybody checks: it is made as a gateway makes an
attempt for an ordinary app (``questions``). It refuses answers that a gateway would refuse.
"""

import asyncio
from typing import Final

import msgspec

from trunkline.base.errors import TimedOutError, TruncatedError
from trunkline.base.ids import ID_RANDOM_BYTES, answer_id, attempt_id
from trunkline.base.ports import Clock, Randomness
from trunkline.receipts import Hiding, request_digest, salts, verify_signed
from trunkline.receipts.hiding import BLINDING_BYTES
from trunkline.remote.node import ChunkEvent, ErrorEvent, ReceiptEvent
from trunkline.sampling.seeds import NONCE_BYTES
from trunkline.schema import errors
from trunkline.schema.attempt import Attempt, SignedReceipt
from trunkline.schema.audit import AskedAudit, OpenedContent
from trunkline.verifier import questions
from trunkline.verifier.demanding import KnownNode

ANSWER_S_MAX: Final = 60.0
IDLE_S: Final = 20.0
AUDIT_DEADLINE_MS: Final = 60_000
SHARE_BYTES: Final = 32
GATEWAY_DEADLINE_MS: Final = 600_000
"""What a gateway gives an answer that it was told nothing else about, less what it took itself."""


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """What a plant's attempt is, beside a question."""

    attempt: str
    digest: str
    """``sha256:<hex>``: what its receipt binds in the place of an app's body."""
    words: str
    """What is asked."""


class _Delta(msgspec.Struct, frozen=True):
    content: str | None = None


class _Choice(msgspec.Struct, frozen=True):
    delta: _Delta = _Delta()


class _Chunk(msgspec.Struct, frozen=True):
    choices: tuple[_Choice, ...] = ()


def new_attempt(randomness: Randomness) -> str:
    """An id for an attempt."""
    return attempt_id(randomness.token(ID_RANDOM_BYTES))


async def ask(
    node: KnownNode,
    model: str,
    *,
    clock: Clock,
    randomness: Randomness,
    plant: Bound | None = None,
) -> AskedAudit:
    """Ask for an answer of ``model``, and return what opens it, as a caller would bring it.

    Raises UpstreamErrors, and MalformedError or VerificationError for a bad receipt.
    """
    words = "" if plant is None else plant.words
    body = questions.body(model, randomness, sampled=plant is not None, words=words)
    raw = msgspec.json.encode(body)
    blinding = randomness.token(BLINDING_BYTES)
    attempt = _attempt(model, raw, blinding, clock, randomness, plant)
    signed, tokens, _ = await _answered(node, attempt)
    receipt = verify_signed(signed, node.key).receipt
    return AskedAudit(
        signed=signed,
        content=OpenedContent(
            request=msgspec.Raw(raw), salts=dict(salts(receipt, blinding)), tokens=tokens
        ),
        deadline_ms=AUDIT_DEADLINE_MS,
    )


async def words(node: KnownNode, model: str, *, clock: Clock, randomness: Randomness) -> str:
    """What to ask in a plant: some of what ``model`` says at ``node``, so that nobody who reads it
    knows it from a list. Raises UpstreamErrors."""
    raw = msgspec.json.encode(questions.body(model, randomness, sampled=True))
    blinding = randomness.token(BLINDING_BYTES)
    attempt = _attempt(model, raw, blinding, clock, randomness, None)
    _, _, text = await _answered(node, attempt)
    found = questions.passage(text, randomness)
    if not found:
        raise TruncatedError("the node said too little to ask about")
    return found


def tampered(asked: AskedAudit) -> AskedAudit:
    """The same with another last token: no opening of that receipt, and nothing that may pass."""
    content = asked.content
    first, *others = content.tokens
    return msgspec.structs.replace(
        asked,
        content=msgspec.structs.replace(content, tokens=((*first[:-1], first[-1] ^ 1), *others)),
    )


def _attempt(
    model: str,
    raw: bytes,
    blinding: bytes,
    clock: Clock,
    randomness: Randomness,
    plant: Bound | None,
) -> Attempt:
    answer = answer_id(randomness.token(ID_RANDOM_BYTES))
    named = new_attempt(randomness) if plant is None else plant.attempt
    said = request_digest(raw) if plant is None else plant.digest
    hiding = Hiding(blinding.hex(), answer=answer, attempt=named)
    return Attempt(
        kind="chat",
        attempt=named,
        answer=answer,
        created_s=clock.unix_ms() // 1000,
        model=model,
        client_format="openai.chat",
        client_request_digest=hiding.bind("request.client", said),
        caller_nonce=randomness.token(NONCE_BYTES).hex(),
        deadline_ms=GATEWAY_DEADLINE_MS - 1 - randomness.token(1)[0] % 32,
        blinding=blinding.hex(),
        audit=True,
        # As a gateway's attempts have one.
        share=randomness.token(SHARE_BYTES).hex(),
        request=msgspec.Raw(raw),
    )


async def _answered(
    node: KnownNode, attempt: Attempt
) -> tuple[SignedReceipt, tuple[tuple[int, ...], ...], str]:
    try:
        async with asyncio.timeout(ANSWER_S_MAX):
            return await _answer(node, attempt)
    except TimeoutError:
        raise TimedOutError("the answer took too long", code="upstream_timeout") from None


async def _answer(
    node: KnownNode, attempt: Attempt
) -> tuple[SignedReceipt, tuple[tuple[int, ...], ...], str]:
    """The receipt, the tokens per choice, and their text."""
    tokens: list[int] = []
    text: list[str] = []
    async with await node.caller.attempt(attempt, IDLE_S) as events:
        async for event in events:
            match event:
                case ChunkEvent():
                    tokens += [token for _, token in event.tokens]
                    text += _content(event.data)
                case ErrorEvent():
                    raise errors.from_node(event.error)
                case ReceiptEvent() if tokens:
                    return event.signed, (tuple(tokens),), "".join(text)
                case _:
                    pass
    raise TruncatedError("the node answered without a receipt, or without tokens")


def _content(data: bytes | None) -> list[str]:
    """The text in an event for the app, if that is what it is."""
    try:
        chunk = _Chunk() if data is None else msgspec.json.decode(data, type=_Chunk)
    except msgspec.MsgspecError:
        return []
    return [one.delta.content for one in chunk.choices if one.delta.content]
