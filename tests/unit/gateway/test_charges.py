"""What is charged where a provider never says what it took."""

from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from trunkline.base.money import MicroUsd
from trunkline.gateway.charges import Charges
from trunkline.gateway.core.policy import Price, RoutingPolicy
from trunkline.gateway.core.price import Tokens
from trunkline.gateway.core.tenant import ANONYMOUS
from trunkline.gateway.core.transcript import _said_bytes
from trunkline.receipts import ReceiptUsage
from trunkline.schema.openai_answer import Delta

PRICE = Price(input=MicroUsd(1_000_000), output=MicroUsd(2_000_000))
"""A thousand nano-USD for a token of the prompt, two for one of the answer."""


def charges() -> Charges:
    policy = RoutingPolicy(prices={"m": PRICE})
    clock = cast("Any", SimpleNamespace(unix_ms=lambda: 0))
    return Charges(cast("Any", None), lambda: policy, clock=clock)


def part(usage: ReceiptUsage, *, text_bytes: int, cached: object = None) -> Any:
    receipt = SimpleNamespace(usage=usage, cached=cached)
    return SimpleNamespace(
        deployment=SimpleNamespace(model="m"),
        verified=SimpleNamespace(receipt=receipt),
        text_bytes=text_bytes,
    )


SILENT = ReceiptUsage(prompt=0, completion=0, counted=False)
MOST = Tokens(prompt=100, completion=50)
MOST_NUSD = 200_000


@pytest.mark.parametrize(
    ("usage", "text_bytes", "cached", "nusd", "estimated"),
    [
        (SILENT, 40, None, 7_000 + 2 * 10_000, True),
        (SILENT, 41, None, 7_000 + 2 * 11_000, True),
        (SILENT, 10_000, None, MOST_NUSD, True),
        (SILENT, 40, "att_1", 0, False),
        (ReceiptUsage(prompt=3, completion=4, counted=False), 40, None, 11_000, False),
        (ReceiptUsage(prompt=0, completion=0, counted=True), 40, None, 0, False),
    ],
)
def test_what_nobody_said_is_estimated_up_to_what_was_held(
    usage: ReceiptUsage, text_bytes: int, cached: object, nusd: int, estimated: bool
) -> None:
    books = charges()
    with books.held("ans_1", ANONYMOUS, ("m",), MOST):
        sealed = part(usage, text_bytes=text_bytes, cached=cached)
        charge = books.seal("ans_1", sealed, 0, prompt_tokens=7)
        assert charge is not None
        assert (charge.nusd, charge.estimated) == (nusd, estimated)
        books.written(charge, stored=True)
    found = books.spending()
    assert (found.charged_nusd, found.estimated, found.held) == (nusd, int(estimated), 0)


@pytest.mark.parametrize(
    ("said", "size"),
    [
        ({"role": "assistant", "content": None}, 0),
        ({"content": "snø"}, 4),
        ({"content": "a", "refusal": "b", "reasoning_content": "c"}, 3),
        ({"reasoning": "thought"}, 7),
        ({"reasoning": "", "content": ""}, 0),
        ({"tool_calls": [{"id": "call_1", "function": {"name": "look", "arguments": "{}"}}]}, 6),
        ({"tool_calls": [{"id": "call_1"}], "function_call": {"name": "look"}}, 4),
    ],
)
def test_all_that_a_model_generated_is_counted(said: dict[str, object], size: int) -> None:
    assert _said_bytes(msgspec.json.decode(msgspec.json.encode(said), type=Delta)) == size
