"""The seed of an answer: whose nonce is in it, and that who takes over says the same."""

from pathlib import Path

import msgspec
import pytest
from tests.unit.node.harness import Heard, attempt, chat, node
from tests.unit.node.scripted import MODEL, ScriptedEngine, says

from trunkline.node.core.content import Content, Kept, Made
from trunkline.receipts import Receipt, ReceiptSampling, bound_bytes, decode
from trunkline.remote.node import NodeRefusedError
from trunkline.sampling import answer_seed
from trunkline.schema.attempt import Attempt


def receipt(heard: Heard) -> Receipt:
    assert heard.signed is not None
    return decode(heard.signed.receipt.encode())


def from_nonces(found: Receipt) -> str:
    sampling = found.sampling
    nonces = (bytes.fromhex(sampling.caller_nonce), bytes.fromhex(sampling.node_nonce))
    return answer_seed(*nonces, bound_bytes(found.request.digest)).hex()


def takes_over(first: Heard, *, number: int = 2, **more: object) -> Attempt:
    """As the gateway asks, from what it heard of the first."""
    accepted = first.accepted
    assert accepted is not None
    asked = attempt(
        chat(), number=number, resume=[[80, 97]], seed=accepted.seed, numerics=MODEL.numerics
    )
    changes = {
        "node_nonce": accepted.node_nonce,
        "nonces": accepted.nonces,
        "nonce_index": accepted.nonce_index,
    }
    return msgspec.structs.replace(asked, **(changes | more))


async def test_who_takes_over_states_the_nonce_of_who_began(tmp_path: Path) -> None:
    async with node(tmp_path / "alpha", ScriptedEngine(says("Paris"))) as alpha:
        await alpha.hear(attempt(chat(), number=7))
        first = await alpha.hear(attempt(chat()))
    async with node(tmp_path / "beta", ScriptedEngine(says("Paris"))) as beta:
        second = await beta.hear(takes_over(first), first_id=3)
    began, took_over = receipt(first), receipt(second)
    assert began.sampling.source == "nonces"
    assert began.sampling.nonce_index == 1
    assert first.accepted is not None
    assert first.accepted.nonces == began.sampling.nonces != ""
    assert from_nonces(began) == began.sampling.seed
    assert took_over.sampling == msgspec.structs.replace(began.sampling, source="inherited")
    assert second.accepted is not None
    assert second.accepted.node_nonce == first.accepted.node_nonce
    assert second.accepted.nonces == first.accepted.nonces


async def test_a_seed_without_a_nonce_is_inherited_without(tmp_path: Path) -> None:
    async with node(tmp_path, ScriptedEngine(says("Paris"))) as running:
        first = await running.hear(attempt(chat(seed=7)))
        without = takes_over(first, node_nonce=None, nonces=None, nonce_index=0)
        second = await running.hear(without, first_id=3)
    for found, source in ((first, "caller"), (second, "inherited")):
        sampling: ReceiptSampling = receipt(found).sampling
        assert (sampling.source, sampling.node_nonce, sampling.nonces) == (source, "", "")


@pytest.mark.parametrize(
    ("param", "more"),
    [
        ("node_nonce", {"node_nonce": "11" * 32}),
        ("node_nonce", {"node_nonce": "xy" * 32}),
        ("node_nonce", {"node_nonce": None}),
        ("node_nonce", {"nonces": "12"}),
        ("node_nonce", {"nonces": None, "nonce_index": 1}),
        ("node_nonce", {"nonce_index": -1}),
        ("node_nonce", {"nonce_index": 65_536}),
        ("node_nonce", {"seed": None, "resume": None}),
        ("audit", {"audit": True, "mode": "private"}),
        ("seed", {"audit": True, "resume": None}),
        ("seed", {"audit": True, "previous": ()}),
    ],
)
async def test_what_can_not_be_so_is_refused(
    tmp_path: Path, param: str, more: dict[str, object]
) -> None:
    async with node(tmp_path, ScriptedEngine(says("Paris"))) as running:
        first = await running.hear(attempt(chat()))
        with pytest.raises(NodeRefusedError) as refused:
            await running.hear(takes_over(first, **more), first_id=3)
    assert (refused.value.error_code, refused.value.node_error.param) == ("invalid_attempt", param)


async def test_a_receipt_says_that_it_may_be_audited_only_if_it_may(tmp_path: Path) -> None:
    async with node(tmp_path, ScriptedEngine(says("x"))) as running:
        plain = await running.hear(attempt(chat()))
        asked = msgspec.structs.replace(attempt(chat(), number=2), audit=True)
        audited = await running.hear(asked)
    assert plain.signed is not None
    assert "audit" not in plain.signed.receipt
    assert receipt(audited).policy.audit


def test_no_repr_shows_a_word() -> None:
    made = Made(prompt=(12345,), tokens=((67890,),), vectors=(b"secret",))
    content = Content(request=b"secret", salts={"request.digest": "5a17"}, made=made)
    shown = repr(made) + repr(content) + repr(Kept(b"secret"))
    assert not any(word in shown for word in ("12345", "67890", "secret", "5a17"))
