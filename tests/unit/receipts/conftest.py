"""A receipt of each kind that a node signs, and the test keys of two nodes."""

from collections.abc import Callable

import msgspec
import pytest

from trunkline.crypto.signer import Signer
from trunkline.receipts import (
    Receipt,
    ReceiptAttempt,
    ReceiptModel,
    ReceiptPolicy,
    ReceiptRequest,
    ReceiptResponse,
    ReceiptSampling,
    ReceiptTimes,
    ReceiptUsage,
    request_digest,
    stream_digest,
    tokens_digest,
)

RAW_REQUEST = b'{"messages":[],"model":"tiny"}'


@pytest.fixture(scope="session")
def alpha() -> Signer:
    return Signer.generate("alpha.example/node", bytes(range(32)))


@pytest.fixture(scope="session")
def beta() -> Signer:
    return Signer.generate("beta.example/node", bytes(range(32, 64)))


@pytest.fixture(scope="session")
def make_receipt(alpha: Signer) -> Callable[..., Receipt]:
    """A sample receipt by alpha's node; keyword arguments replace its members."""
    request = request_digest(RAW_REQUEST)
    stream = stream_digest(bytes.fromhex(request[7:]), "att_1", [b"{}", b"{}"])
    sample = Receipt(
        answer="ans_1",
        attempt="att_1",
        created_s=1_780_000_000,
        key=str(alpha.vkey),
        model=ReceiptModel(provider="embedded", requested="tiny", served="tiny-1"),
        node=alpha.name,
        operator="alpha.example",
        policy=ReceiptPolicy(mode="batched"),
        previous="",
        request=ReceiptRequest(client=request, digest=request, format="openai.chat"),
        response=ReceiptResponse(chunks=2, digest=stream, finish=("stop",), status=200),
        route=(),
        salt="5a" * 32,
        sampling=ReceiptSampling(caller_nonce="ca" * 32, source="none"),
        times=ReceiptTimes(arrived_ms=1, ended_ms=3, first_token_ms=2),
        usage=ReceiptUsage(completion=2, counted=True, prompt=1),
    )

    def make(**changes: object) -> Receipt:
        return msgspec.structs.replace(sample, **changes)

    return make


@pytest.fixture(scope="session")
def resumed_receipt(make_receipt: Callable[..., Receipt]) -> Receipt:
    """The receipt of an answer's second part: it took over at token 3."""
    first = make_receipt()
    return make_receipt(
        attempt="att_2",
        route=(
            ReceiptAttempt(
                attempt="att_1", error="upstream_truncated", node="alpha.example/node", tokens=(3,)
            ),
        ),
        response=msgspec.structs.replace(
            first.response, resumed=(3,), resumed_digest=tokens_digest([[5, 6, 7]])
        ),
        sampling=ReceiptSampling(caller_nonce="ca" * 32, seed="5e" * 32, source="inherited"),
    )
