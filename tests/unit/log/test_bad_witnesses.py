"""Witnesses that are away, slow or lying: the log goes on with those that are not."""

import asyncio

import pytest
from tests.support.scripted import Scripted

from trunkline.base.errors import ConfigError, SignatureError
from trunkline.crypto import cosigned, note
from trunkline.crypto.signer import Signer
from trunkline.log import witnessing
from trunkline.log.config import WitnessConfig, policy_quorum
from trunkline.runtime.http import TEXT_TYPE
from trunkline.runtime.server import serving

DEADLINE_S = 90.0
LIAR = Signer.generate("liar.example", b"\x08" * 32)
SIZE_TYPE = "text/x.tlog.size"


def far_future_size(_):
    return 409, b"9000000000000000000\n", SIZE_TYPE


def never_the_same_size(_, sizes=iter(range(1, 10_000))):  # noqa: B008 - it is to be shared
    return 409, b"%d\n" % (next(sizes) % 3), SIZE_TYPE


def conflict_without_a_size(_):
    return 409, b"many\n", SIZE_TYPE


def bad_signature(body):
    text = note.parse(body.partition(b"\n\n")[2]).text
    return 200, LIAR.cosignature(text + b"and more\n", 1_700_000_000).line(), TEXT_TYPE


def another_trees_cosignature(_):
    text = b"gamma.example/log\n9\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"
    return 200, LIAR.cosignature(text, 1_700_000_000).line(), TEXT_TYPE


def garbage(_):
    return 200, "— ".encode() + bytes(range(256)) + b"\n", TEXT_TYPE


def far_too_much(_):
    return 200, "— ".encode() + b"x" * 200_000 + b"\n", TEXT_TYPE


def no_answer_at_all(_):
    return 500, b"", TEXT_TYPE


LIES = (
    far_future_size,
    never_the_same_size,
    conflict_without_a_size,
    bad_signature,
    another_trees_cosignature,
    garbage,
    far_too_much,
    no_answer_at_all,
)


def lying(lie):
    async def answer(call):
        status, body, kind = lie(await call.body(1_000_000))
        await call.reply(status, body, kind)

    return Scripted(answer)


async def prove_some(caller, network, policy, numbers=range(8)):
    """Add and prove entries one by one; the last checkpoint's note."""
    for number in numbers:
        entry = network.entry(number)
        index = await caller.add(entry)
        proof = await caller.fetch_inclusion(entry, index, policy, timeout_s=DEADLINE_S)
    return proof.checkpoint_note


@pytest.mark.parametrize("lie", LIES)
async def test_a_lying_witness_costs_nothing(network, lie):
    honest = [await network.witness(f"w{i}.example") for i in range(2)]
    policy = network.policy()
    async with serving(lying(lie)) as url:
        liar = WitnessConfig(url=url, vkey=str(LIAR.cosigner_vkey))
        witnesses = (liar, *honest)
        async with network.log(witnesses=witnesses, quorum=2, quorum_window_s=60.0) as (
            caller, _, service,
        ):  # fmt: skip
            published = await prove_some(caller, network, policy)
            assert service._publisher.has_quorum
    assert not any(line.is_by(LIAR.cosigner_vkey) for line in note.parse(published).signatures)
    assert not network.fatal


async def test_a_witness_that_hangs_is_not_waited_for(network, monkeypatch):
    monkeypatch.setattr(witnessing, "ASK_TIMEOUT_S", 0.05)
    honest = [await network.witness(f"w{i}.example") for i in range(2)]
    asked = asyncio.Event()
    release = asyncio.Event()

    async def hang(call):
        asked.set()
        await release.wait()
        await call.reply(200, b"late\n", TEXT_TYPE)

    async with serving(Scripted(hang)) as url:
        slow = WitnessConfig(url=url, vkey=str(LIAR.cosigner_vkey))
        async with network.log(witnesses=(slow, *honest), quorum=2) as (caller, _, _):
            await prove_some(caller, network, network.policy())
            await asyncio.wait_for(asked.wait(), DEADLINE_S)
            release.set()


async def test_the_quorum_may_be_a_policys_groups(network):
    one, two, three = [await network.witness(f"w{i}.example") for i in range(3)]
    text = (
        f"witness a {one.vkey}\nwitness b {two.vkey}\nwitness c {three.vkey}\n"
        "group ab any a b\ngroup both all ab c\nquorum both\n"
    )
    service = network.service(witnesses=(one, two, three), policy_file="policy")
    by_policy = policy_quorum(text, service._witness_keys)
    assert by_policy({one.vkey, three.vkey})
    assert not by_policy({one.vkey, two.vkey})
    assert not by_policy({"somebody.else"})
    with pytest.raises(ConfigError, match="can not come from"):
        policy_quorum(text, service._witness_keys[:2])
    with pytest.raises(ConfigError, match="policy line 1"):
        policy_quorum("nonsense\n", ())


def test_a_cosignature_without_a_time_does_not_count():
    """C2SP tlog-witness: the timestamp of an answer MUST NOT be zero."""
    log = Signer.generate("gamma.example/log", b"\x01" * 32)
    text = b"gamma.example/log\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"
    checkpoint = note.format(text, (log.signature(text),))
    key = LIAR.cosigner_vkey
    timeless = note.NoteSignature(
        name=key.name,
        key_id=key.key_id,
        signature=bytes(8) + LIAR.sign(cosigned.ed25519_message(text, 0)),
    )
    key.verify(text, timeless.signature)
    with pytest.raises(SignatureError, match="without a time"):
        witnessing.verified_line(key, checkpoint, timeless.line())
