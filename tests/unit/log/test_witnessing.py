"""Cosignatures: gathered, waited for, done without for a while, never believed unverified."""

import asyncio

import pytest

from trunkline.base.errors import MalformedError, SignatureError
from trunkline.crypto import note
from trunkline.crypto.signer import Signer
from trunkline.log.config import WitnessConfig
from trunkline.log.witnessing import read_published, verified_line

DEADLINE_S = 90.0


async def test_checkpoints_are_cosigned(network):
    witnesses = (await network.witness("w1.example"), await network.witness("w2.example"))
    async with network.log(witnesses=witnesses) as (caller, _, _):
        policy = network.policy()
        for i in range(5):
            entry = network.entry(i)
            index = await caller.add(entry)
            proof = await caller.fetch_inclusion(entry, index, policy, timeout_s=DEADLINE_S)
            assert len(policy.accepts(proof.checkpoint_note).witnesses) == 2


async def test_two_keys_of_one_name_are_two(network):
    """As while a witness changes its key: a line says by name and id whose it is."""
    witnesses = (await network.witness("w.example"), await network.witness("w.example", b"new "))
    entry = network.entry(0)
    for _ in range(2):
        # The second time it starts with both lines, read from what is published.
        async with network.log(witnesses=witnesses) as (caller, _, service):
            index = await caller.add(entry)
            policy = network.policy(quorum="all")
            proof = await caller.fetch_inclusion(entry, index, policy, timeout_s=DEADLINE_S)
            assert len(policy.accepts(proof.checkpoint_note).witnesses) == 2
            assert service._publisher.has_quorum


async def test_under_load_cosigned_checkpoints_keep_coming(network):
    witnesses = (await network.witness("w1.example"),)
    async with network.log(witnesses=witnesses) as (caller, _, _):
        policy = network.policy()
        entries = [network.entry(i) for i in range(200)]

        async def add_and_prove(entry):
            index = await caller.add(entry)
            return await caller.fetch_inclusion(entry, index, policy, timeout_s=DEADLINE_S)

        proofs = await asyncio.gather(*(add_and_prove(entry) for entry in entries))
        assert sorted(proof.index for proof in proofs) == list(range(200))


async def test_a_witness_that_is_away_is_done_without_and_asked_again(network, tmp_path):
    present = await network.witness("w1.example")
    gone = WitnessConfig(
        url="http://127.0.0.1:1",
        vkey=str(Signer.generate("gone.example", b"\x07" * 32).cosigner_vkey),
    )
    config = {"witnesses": (present, gone), "quorum": 2, "quorum_window_s": 0.05}
    async with network.log(**config) as (caller, _, service):
        entry = network.entry(0)
        index = await caller.add(entry)
        # Published without the quorum, so readers who need none are not kept waiting.
        open_policy = network.policy(quorum=0)
        await caller.fetch_inclusion(entry, index, open_policy, timeout_s=DEADLINE_S)
        assert service._publisher.has_quorum is False
        entry = network.entry(1)
        index = await caller.add(entry)
        await caller.fetch_inclusion(entry, index, open_policy, timeout_s=DEADLINE_S)
    async with network.log(witnesses=(present, gone), quorum=1) as (caller, _, _):
        await caller.fetch_inclusion(entry, index, network.policy(), timeout_s=DEADLINE_S)


async def test_the_log_learns_a_witnesss_size_from_its_conflict(network):
    """A restarted log knows nothing of its witnesses; and its published file may be behind."""
    witness = await network.witness("w1.example")
    async with network.log(witnesses=(witness,)) as (caller, _, _):
        for i in range(3):
            index = await caller.add(network.entry(i))
        await caller.fetch_inclusion(
            network.entry(2), index, network.policy(), timeout_s=DEADLINE_S
        )
    stripped = (network.data / "checkpoint").read_bytes()
    parsed = note.parse(stripped)
    log_only = parsed.signatures_by(network.log_key.vkey)
    (network.data / "checkpoint").write_bytes(note.format(parsed.text, log_only))
    async with network.log(witnesses=(witness,)) as (caller, _, _):
        await caller.fetch_inclusion(network.entry(2), 2, network.policy(), timeout_s=DEADLINE_S)
        index = await caller.add(network.entry(3))
        await caller.fetch_inclusion(
            network.entry(3), index, network.policy(), timeout_s=DEADLINE_S
        )


def test_only_the_witnesss_own_good_line_counts():
    log = Signer.generate("gamma.example/log", b"\x01" * 32)
    witness = Signer.generate("w.example", b"\x02" * 32)
    other = Signer.generate("o.example", b"\x03" * 32)
    text = b"gamma.example/log\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"
    checkpoint = note.format(text, (log.signature(text),))
    key = witness.cosigner_vkey
    good = witness.cosignature(text, 1_700_000_000).line()
    foreign = other.cosignature(text, 1_700_000_000).line()
    assert verified_line(key, checkpoint, foreign + good) == good
    with pytest.raises(SignatureError):
        verified_line(key, checkpoint, foreign)
    with pytest.raises(SignatureError):
        verified_line(key, checkpoint, witness.cosignature(b"other\n", 1_700_000_000).line())
    with pytest.raises(MalformedError):
        verified_line(key, checkpoint, b"nonsense\n")
    published = read_published(checkpoint + foreign + good, log.vkey, (key,))
    assert published.lines == {str(key): good}
    assert published.published() == checkpoint + good
    with pytest.raises(SignatureError):
        read_published(checkpoint + good, other.vkey, (key,))
