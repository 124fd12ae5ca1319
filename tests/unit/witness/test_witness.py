"""The witness over HTTP: each rule of C2SP tlog-witness, and that it never contradicts itself."""

import asyncio

import msgspec
import pytest

from trunkline.base.errors import ConfigError
from trunkline.crypto import merkle, note
from trunkline.crypto.digest import sha256
from trunkline.crypto.signer import MlDsaCosigner, Signer
from trunkline.remote.http1 import HttpTransport
from trunkline.runtime.clock import SystemClock
from trunkline.runtime.logger import get_logger
from trunkline.runtime.server import serving
from trunkline.tlog import cosignature
from trunkline.tlog.add_checkpoint import AddCheckpoint
from trunkline.tlog.checkpoint import Checkpoint, open_checkpoint
from trunkline.witness.app import WitnessService, build, create_store
from trunkline.witness.config import WitnessConfig, WitnessedLog, known_logs, read, render

LOG = Signer.generate("gamma.example/log", b"\x01" * 32)
SECOND_KEY = Signer.generate("gamma.example/log", b"\x05" * 32)
WITNESS = Signer.generate("delta.example/witness", b"\x02" * 32)
LEAVES = [merkle.leaf_hash(b"%d" % i) for i in range(20)]
FORK = [merkle.leaf_hash(b"fork %d" % i) for i in range(20)]


def config(**changes):
    logs = (WitnessedLog(vkey=str(LOG.vkey)), WitnessedLog(vkey=str(SECOND_KEY.vkey)))
    return WitnessConfig(name=WITNESS.name, logs=logs, **changes)


def service(data):
    return WitnessService(
        config=config(),
        data=data,
        signer=WITNESS,
        clock=SystemClock(),
        logger=get_logger("witness"),
    )


def checkpoint(size, leaves=LEAVES, signers=(LOG,), origin=LOG.name):
    text = Checkpoint(origin=origin, size=size, root=merkle.root(leaves[:size])).text()
    return note.format(text, [signer.signature(text) for signer in signers])


def request(old, size, leaves=LEAVES, **changes):
    proof = merkle.consistency_proof(leaves[:size], old) if old else []
    return AddCheckpoint(
        old_size=old, proof=tuple(proof), checkpoint_note=checkpoint(size, leaves, **changes)
    )


class Client:
    def __init__(self, url, transport):
        self.url = url
        self._transport = transport

    async def send(self, body):
        data = body if isinstance(body, bytes) else body.body()
        async with await self._transport.request(
            "POST", self.url + "/add-checkpoint", body=data
        ) as response:
            return (
                response.status, response.header("content-type"), await response.read(100_000)
            )  # fmt: skip

    async def get(self, path):
        async with await self._transport.request("GET", self.url + path) as response:
            return response.status, await response.read(100_000)


@pytest.fixture
def data(tmp_path):
    create_store(tmp_path / "witness")
    return tmp_path / "witness"


@pytest.fixture
async def client(data):
    transport = HttpTransport()
    async with serving(service(data)) as url:
        yield Client(url, transport)
    await transport.aclose()


def verify(request, answer):
    """The timestamp of the witness's cosignature in an answer."""
    text = note.parse(request.checkpoint_note).text
    lines = note.parse_signatures(answer)
    return cosignature.verify(note.Note(text=text, signatures=lines), WITNESS.cosigner_vkey)


async def test_a_log_is_followed(client):
    old = 0
    for size in (0, 1, 1, 5, 8, 20):
        asked = request(old, size)
        status, _, answer = await client.send(asked)
        assert status == 200
        assert verify(asked, answer) > 1_700_000_000
        old = size


async def test_a_conflict_tells_the_size(client):
    assert (await client.send(request(3, 5)))[0] == 409
    assert (await client.send(request(0, 5)))[0] == 200
    for old in (0, 4):
        assert await client.send(request(old, 7)) == (409, "text/x.tlog.size", b"5\n")
    assert (await client.send(request(5, 7)))[0] == 200
    # An older checkpoint is never cosigned again.
    assert await client.send(request(5, 6)) == (409, "text/x.tlog.size", b"7\n")


async def test_the_statuses_of_the_specification(client):
    assert (await client.send(request(0, 5)))[0] == 200
    good = request(5, 8)
    cases = [
        (b"nonsense", 400),
        (request(5, 8).body().replace(b"old 5", b"old 05"), 400),
        (AddCheckpoint(old_size=9, proof=(), checkpoint_note=checkpoint(8)), 400),
        (request(5, 8, origin="other.example/log"), 404),
        (request(5, 8, signers=(Signer.generate("other.example", b"\x09" * 32),)), 403),
        (request(5, 8, signers=(Signer.generate(LOG.name, b"\x09" * 32),)), 403),
        (good.body().replace(b"\n8\n", b"\n9\n"), 403),
        (request(5, 8, leaves=FORK), 422),
        (request(5, 5, leaves=FORK), 422),
        (AddCheckpoint(old_size=5, proof=(), checkpoint_note=checkpoint(8)), 422),
        (
            AddCheckpoint(
                old_size=5, proof=(*good.proof, LEAVES[0]), checkpoint_note=good.checkpoint_note
            ),
            422,
        ),
        (AddCheckpoint(old_size=5, proof=(LEAVES[0],), checkpoint_note=checkpoint(5)), 422),
    ]
    for body, status in cases:
        assert (await client.send(body))[0] == status, body
    # None of those changed anything.
    assert (await client.send(good))[0] == 200


async def test_the_empty_tree(client):
    text = Checkpoint(origin=LOG.name, size=0, root=bytes(32)).text()
    wrong = note.format(text, (LOG.signature(text),))
    asked = AddCheckpoint(old_size=0, proof=(), checkpoint_note=wrong)
    assert (await client.send(asked))[0] == 422
    asked = AddCheckpoint(old_size=0, proof=(LEAVES[0],), checkpoint_note=checkpoint(3))
    assert (await client.send(asked))[0] == 422


async def test_a_bad_line_by_a_trusted_key_condemns(client):
    both = note.parse(checkpoint(5, signers=(LOG, SECOND_KEY)))
    assert (await client.send(request(0, 3, signers=(SECOND_KEY,))))[0] == 200
    bad = note.format(both.text, (*both.signatures[:1], SECOND_KEY.signature(b"other\n")))
    asked = AddCheckpoint(old_size=3, proof=request(3, 5).proof, checkpoint_note=bad)
    assert (await client.send(asked))[0] == 403
    stranger = Signer.generate("other.example", b"\x09" * 32).signature(b"other\n")
    fine = note.format(both.text, (*both.signatures, stranger))
    asked = AddCheckpoint(old_size=3, proof=request(3, 5).proof, checkpoint_note=fine)
    assert (await client.send(asked))[0] == 200


async def test_of_two_at_once_one_is_cosigned(client):
    answers = await asyncio.gather(
        *(client.send(request(0, 6, leaves=leaves)) for leaves in [LEAVES, FORK] * 10)
    )
    cosigned = {answer for status, _, answer in answers if status == 200}
    refused = [status for status, _, _ in answers if status != 200]
    assert set(refused) == {409}
    assert len(cosigned) == 1


async def test_it_remembers_after_a_restart(data):
    transport = HttpTransport()
    async with serving(service(data)) as url:
        assert (await Client(url, transport).send(request(0, 5)))[0] == 200
    async with serving(service(data)) as url:
        client = Client(url, transport)
        assert await client.send(request(0, 6, leaves=FORK)) == (409, "text/x.tlog.size", b"5\n")
        assert (await client.send(request(5, 6, leaves=FORK)))[0] == 422
    await transport.aclose()


async def test_what_monitors_read(client):
    path = f"/{sha256(LOG.name.encode()).hex()}/checkpoint"
    assert (await client.get(path))[0] == 404
    await client.send(request(0, 4))
    status, latest = await client.get(path)
    assert status == 200
    assert open_checkpoint(latest, LOG.vkey).size == 4
    assert cosignature.verify(note.parse(latest), WITNESS.cosigner_vkey) > 0
    assert (await client.get(f"/{'0' * 64}/checkpoint"))[0] == 404
    assert await client.get("/healthz") == (200, b"ok\n")
    _, status_body = await client.get("/status")
    assert msgspec.json.decode(status_body) == {
        "name": WITNESS.name,
        "vkey": str(WITNESS.cosigner_vkey),
        "logs": [{"origin": LOG.name, "size": 4}],
    }


async def test_a_missing_store_is_not_created(tmp_path):
    with pytest.raises(ConfigError, match="init"):
        async with serving(service(tmp_path)):
            pytest.fail("it started")
    create_store(tmp_path)
    with pytest.raises(ConfigError, match="already"):
        create_store(tmp_path)


def test_the_configuration_reads_back(tmp_path):
    (tmp_path / "key").write_text(WITNESS.skey())
    (tmp_path / "key").chmod(0o600)
    path = tmp_path / "witness.toml"
    path.write_text(render(config(data="state")))
    assert read(path) == config(data="state")
    assert build(path)[1] == config(data="state")
    assert known_logs(read(path)) == {LOG.name: (LOG.vkey, SECOND_KEY.vkey)}
    (tmp_path / "key").write_text(LOG.skey())
    with pytest.raises(ConfigError, match="named gamma"):
        build(path)
    (tmp_path / "key").write_text("nonsense")
    with pytest.raises(ConfigError, match="private key"):
        build(path)


@pytest.mark.parametrize(
    "logs",
    [
        (WitnessedLog(vkey="nonsense"),),
        (WitnessedLog(vkey=str(LOG.cosigner_vkey)),),
        (WitnessedLog(vkey=str(LOG.vkey)), WitnessedLog(vkey=str(LOG.vkey))),
    ],
)
def test_wrong_keys_are_named(logs):
    with pytest.raises(ConfigError, match=r"logs\.vkey"):
        known_logs(WitnessConfig(name=WITNESS.name, logs=logs))


async def test_a_witness_that_cosigns_with_ml_dsa(tmp_path):
    signer = MlDsaCosigner(WITNESS.name, b"\x21" * 32)
    create_store(tmp_path)
    (tmp_path / "key").write_text(signer.skey())
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "witness.toml").write_text(render(config(algorithm="ml-dsa-44")))
    found, _ = build(tmp_path / "witness.toml")
    transport = HttpTransport()
    async with serving(found) as url:
        asked = request(0, 5)
        status, _, answer = await Client(url, transport).send(asked)
    await transport.aclose()
    assert status == 200
    lines = note.parse_signatures(answer)
    signed = note.Note(text=note.parse(asked.checkpoint_note).text, signatures=lines)
    assert cosignature.verify(signed, signer.cosigner_vkey) > 1_700_000_000
    (tmp_path / "witness.toml").write_text(render(config()))
    with pytest.raises(ConfigError, match="is not ed25519"):
        build(tmp_path / "witness.toml")
