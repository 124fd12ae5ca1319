"""Answers given again from a node's cache: what it signs and opens, honest or not."""

from dataclasses import replace

import msgspec
from tests.support.auditing import COMMITTED_MS, NODE, Made, Toy, events_of

from trunkline.audit import repeated, rerun
from trunkline.audit.calibration import Calibration
from trunkline.audit.judge import Case
from trunkline.crypto.signer import sign_note
from trunkline.inference.answer import AnswerHead
from trunkline.receipts import (
    BatchBuilder,
    Hiding,
    ReceiptCached,
    ReceiptRequest,
    ReceiptSampling,
    ReceiptTimes,
    StreamDigest,
    bound_bytes,
    encode,
    request_digest,
    salts,
)
from trunkline.schema import openai_embeddings
from trunkline.schema.attempt import SignedReceipt
from trunkline.schema.audit import OpenedOrigin

BLINDING = "9d" * 32
AGAIN_MS = COMMITTED_MS + 60_000


def alone(made: Made) -> SignedReceipt:
    """The receipt as its node signed it, in a batch of one."""
    builder = BatchBuilder(NODE.name)
    builder.add(encode(made.receipt))
    sealed = builder.seal(previous=None, unix_ms=COMMITTED_MS + 2000)
    return sealed.signed(sign_note(sealed.text, NODE))[0]


def again(
    origin: Made,
    number: int = 50,
    *,
    signed: SignedReceipt | None = None,
    said: Made | None = None,
) -> Made:
    """``origin``'s answer, given again as answer ``number``. ``signed``: its receipt, if another
    batch than one of its own has it; ``said``: what was really sent, if that is not ``origin``'s
    answer."""
    receipt, content = origin.receipt, origin.content
    hiding = Hiding(BLINDING, answer=f"ans_{number}", attempt=f"att_{number}")
    raw = bytes(content.request)
    bound = hiding.bind("request.digest", request_digest(raw))
    chain = StreamDigest(bound_bytes(bound), f"att_{number}")
    for data in _sent(said or origin, number):
        chain.update(data)
    given = msgspec.structs.replace(
        receipt,
        answer=f"ans_{number}",
        attempt=f"att_{number}",
        created_s=_created_s(number),
        cached=ReceiptCached(ended_ms=receipt.times.ended_ms, receipt=origin.leaf.hex()),
        model=msgspec.structs.replace(receipt.model, numerics=""),
        request=ReceiptRequest(
            client=hiding.bind("request.client", request_digest(raw)),
            digest=bound,
            format=receipt.request.format,
        ),
        response=msgspec.structs.replace(
            receipt.response,
            chunks=chain.chunks,
            digest=hiding.bind("response.digest", chain.close()),
            tokens="",
        ),
        sampling=ReceiptSampling(caller_nonce="0a" * 32, source="none"),
        times=ReceiptTimes(
            arrived_ms=AGAIN_MS, ended_ms=AGAIN_MS + 10, first_token_ms=AGAIN_MS + 5
        ),
    )
    opened = msgspec.structs.replace(
        content,
        salts=salts(given, bytes.fromhex(BLINDING)),
        origin=OpenedOrigin(signed=signed or alone(origin), salts=content.salts),
    )
    return Made(receipt=given, content=opened)


async def case(
    made: Made, calibration: Calibration, origin: Made, *, logged: repeated.Logged = "yes"
) -> Case:
    """As a verifier has it that was shown ``made``, and has asked its model about ``origin``."""
    asked = await origin.case(calibration)
    shown = repeated.shown(made.content, NODE.vkey)
    found = {"yes": 5}.get(logged)
    return replace(
        asked,
        receipt=made.receipt,
        leaf=made.leaf,
        content=made.content,
        origin=None if shown is None else replace(shown, logged=logged, entry=found),
    )


def _created_s(number: int) -> int:
    return 1_780_000_100 + number


def _sent(made: Made, number: int) -> list[bytes]:
    """What the app gets of ``made``'s answer, under another id and time."""
    receipt, content = made.receipt, made.content
    if content.vectors:
        asked = openai_embeddings.parse(bytes(content.request))
        vectors = [msgspec.json.decode(f'"{one}"', type=bytes) for one in content.vectors]
        body = openai_embeddings.encode_response(
            vectors,
            model=receipt.model.served,
            tokens=receipt.usage.prompt,
            base64=asked.base64,
        )
        return [body]
    head = AnswerHead(
        answer=f"ans_{number}",
        created_s=_created_s(number),
        model=receipt.model.served,
        fingerprint=AnswerHead.fingerprint_of(receipt.model.numerics),
    )
    planned = rerun.plan(rerun.read_request(content), content.prompt, Toy().info)
    _, events = events_of(head, planned, content.tokens, None, content.logprobs)
    return [event.data for event in events if event.id is not None and event.data is not None]
