"""A log that lies is found out: two faces, a disk rolled back, and two gateways that compare."""

import asyncio
import shutil
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from trunkline.base.errors import CorruptStateError, Error, SignatureError, UpstreamError
from trunkline.crypto.signer import Signer, sign_note
from trunkline.evidence import split_view
from trunkline.gateway.gossip import Gossip, logs_of, proofs
from trunkline.gateway.prover import LogProver
from trunkline.gateway.sightings import Shelf, Sightings, SplitViewError
from trunkline.log.app import LogService, create_log
from trunkline.log.config import LogConfig
from trunkline.remote.http1 import HttpTransport
from trunkline.remote.log import LogCaller
from trunkline.remote.peer import PeerCaller
from trunkline.remote.witness import WitnessCaller
from trunkline.runtime.clock import SystemClock
from trunkline.runtime.http import Call, Router
from trunkline.runtime.logger import get_logger
from trunkline.runtime.server import serving
from trunkline.tlog.checkpoint import Checkpoint, open_checkpoint
from trunkline.tlog.policy import Policy
from trunkline.witness.app import WitnessService, create_store
from trunkline.witness.config import WitnessConfig, WitnessedLog

LOG = Signer.generate("gamma.example/log", b"\x01" * 32)
STRANGER = Signer.generate("other.example/log", b"\x02" * 32)
NODE = Signer.generate("alpha.example/node", b"\x03" * 32)
WITNESS = Signer.generate("delta.example/witness", b"\x04" * 32)
POLICY = f"log {LOG.vkey}\nquorum none\n"
DEADLINE_S = 90.0


def entry(history: str, number: int) -> bytes:
    return sign_note(b"trunkline.batch/v1\n%s %d\n" % (history.encode(), number), NODE)


class Place:
    """Starts logs that share one key, and gateways that look at them."""

    def __init__(self, path, stack):
        self.path = path
        self.stack = stack
        self.transport = HttpTransport()

    @asynccontextmanager
    async def log(self, folder):
        """Serve the log in ``folder``, made if there is none; yields a caller and the URL."""
        if not (folder / "log.db").exists():
            create_log(folder, LOG)
        service = LogService(
            config=LogConfig(origin=LOG.name, checkpoint_interval_ms=0),
            data=folder,
            signer=LOG,
            transport=HttpTransport(),
            clock=SystemClock(),
            logger=get_logger("log"),
            on_fatal=lambda: pytest.fail("the log stopped"),
        )
        async with serving(service) as url:
            yield LogCaller(self.transport, url, timeout_s=60.0), url

    async def face(self, history, size):
        """A log with ``size`` entries of its own; returns its URL and its checkpoint."""
        caller, url = await self.stack.enter_async_context(self.log(self.path / history))
        await asyncio.gather(*(caller.add(entry(history, i)) for i in range(size)))
        return url, await caller.checkpoint()

    def sightings(self, name, url, policy=POLICY):
        logs = logs_of(Policy.parse(policy), self.transport, url)
        (self.path / name).mkdir(exist_ok=True)
        seen = Sightings(Shelf(self.path / name), proofs(logs), logger=get_logger("gateway"))
        seen.load()
        return seen

    def gossip(self, seen, url, peers=(), policy=POLICY):
        parsed = Policy.parse(policy)
        logs = logs_of(parsed, self.transport, url)
        return Gossip(
            seen, logs, parsed, peers, self.transport, every_s=0, logger=get_logger("gateway")
        )

    async def serve(self, gossip):
        """The gossip's own routes, as a gateway hosts them."""

        async def refuse(call, error):
            await call.reply_json(getattr(error, "http_status", 502), {})

        router = Router(refuse)
        gossip.add_routes(router)

        class Host:
            async def __call__(self, scope, receive, send):
                await router.dispatch(Call(scope, receive, send))

            async def startup(self):
                await gossip.start()

            async def shutdown(self):
                await gossip.stop()

        return await self.stack.enter_async_context(serving(Host()))


@pytest.fixture
async def place(tmp_path):
    async with AsyncExitStack() as stack:
        found = Place(tmp_path, stack)
        yield found
        await found.transport.aclose()


def is_evidence(data):
    report = split_view.verify(data, Policy.parse(POLICY))
    return report.outcome == "pass"


async def test_an_honest_log_is_followed_across_restarts(place):
    caller, url = await place.stack.enter_async_context(place.log(place.path / "log"))
    notes = []
    for number in range(6):
        await caller.add(entry("a", number))
        notes.append(await caller.checkpoint())
    seen = place.sightings("gateway", url)
    for note in (notes[0], notes[3], notes[1], notes[3], notes[5], notes[2]):
        assert await seen.observe(note) == LOG.name
    assert seen.largest(LOG.name) == notes[5]
    again = place.sightings("gateway", url)
    assert again.largest(LOG.name) == notes[5]
    assert again.condemned == ()
    assert again.status()[0].size == 6


@pytest.mark.parametrize(("first", "second"), [(5, 5), (3, 8), (4, 8), (8, 3)])
async def test_two_faces_are_evidence(place, first, second):
    """The log shows this gateway one tree, and somebody who talks to it another."""
    url, mine = await place.face("one", first)
    other_url, theirs = await place.face("two", second)
    # Whoever has the larger tree's tiles can show it.
    seen = place.sightings("gateway", url if first > second else other_url)
    await seen.observe(mine)
    with pytest.raises(SplitViewError) as caught:
        await seen.observe(theirs, "somebody")
    assert caught.value.error_code == "log_split_view"
    assert is_evidence(seen.evidence(LOG.name))
    # For ever: also for the honest face, and in the next process.
    with pytest.raises(SplitViewError):
        await seen.observe(mine)
    again = place.sightings("gateway", url)
    assert again.condemned == (LOG.name,)
    file = again.status()[0].split_view
    assert is_evidence((place.path / file).read_bytes())


async def test_what_can_not_be_shown_condemns_nobody(place):
    url, mine = await place.face("one", 3)
    _, theirs = await place.face("two", 8)
    seen = place.sightings("gateway", url)
    await seen.observe(mine)
    with pytest.raises(UpstreamError):
        # The first face has no tiles of size 8: nothing is shown, and nothing is kept.
        await seen.observe(theirs)
    assert seen.condemned == ()
    assert seen.largest(LOG.name) == mine
    forged = Checkpoint(origin=LOG.name, size=3, root=bytes(32)).text()
    for note in (sign_note(forged, STRANGER), mine.replace(b"\n3\n", b"\n4\n"), theirs[:-9]):
        with pytest.raises(Error):
            await seen.observe(note)
    with pytest.raises(SignatureError):
        await seen.observe(
            sign_note(Checkpoint(origin="x", size=3, root=bytes(32)).text(), STRANGER)
        )
    assert seen.condemned == ()


async def test_a_log_whose_disk_was_rolled_back(place):
    folder, old = place.path / "log", place.path / "old"
    async with place.log(folder) as (caller, url):
        seen = place.sightings("gateway", url)
        prover = LogProver(place.transport, url, POLICY, clock=SystemClock(), sightings=seen)
        for number in range(3):
            await prover.prove(entry("a", number), DEADLINE_S)
    shutil.copytree(folder, old)
    async with place.log(folder) as (caller, url):
        seen = place.sightings("gateway", url)
        prover = LogProver(place.transport, url, POLICY, clock=SystemClock(), sightings=seen)
        for number in range(3, 8):
            await prover.prove(entry("a", number), DEADLINE_S)
    async with place.log(old) as (caller, url):
        seen = place.sightings("gateway", url)
        prover = LogProver(place.transport, url, POLICY, clock=SystemClock(), sightings=seen)
        # Smaller than what was seen, and no tiles to tie it to that: not final, not yet a lie.
        with pytest.raises(UpstreamError):
            await prover.prove(entry("b", 3), 0.3)
        assert seen.condemned == ()
        # Once it has grown past that size, it has signed two histories.
        for number in range(4, 10):
            await caller.add(entry("b", number))
        with pytest.raises(SplitViewError):
            await prover.prove(entry("b", 10), DEADLINE_S)
        assert is_evidence(seen.evidence(LOG.name))


@pytest.mark.parametrize(("first", "second"), [(3, 8), (8, 3), (5, 5)])
async def test_two_gateways_that_compare(place, first, second):
    """Each was shown a history of its own; whichever asks, both end up with the evidence."""
    url, mine = await place.face("one", first)
    other_url, theirs = await place.face("two", second)
    seen, other = place.sightings("g1", url), place.sightings("g2", other_url)
    await seen.observe(mine)
    await other.observe(theirs)
    other_gateway = await place.serve(place.gossip(other, other_url))
    gossip = place.gossip(seen, url, (other_gateway,))
    gateway = await place.serve(gossip)
    back = place.gossip(other, other_url, (gateway,))
    for one in (gossip, back, gossip):
        await one.round()
    assert seen.condemned == other.condemned == (LOG.name,)
    assert is_evidence(seen.evidence(LOG.name))
    # A client that hands its checkpoint in gets the same file.
    evidence, condemned = await PeerCaller(place.transport, gateway).swap(mine)
    assert condemned
    assert is_evidence(evidence)


async def test_gateways_that_agree_pass_the_larger_one_on(place):
    caller, url = await place.stack.enter_async_context(place.log(place.path / "log"))
    await caller.add(entry("a", 0))
    small = await caller.checkpoint()
    await caller.add(entry("a", 1))
    large = await caller.checkpoint()
    seen, other = place.sightings("g1", url), place.sightings("g2", url)
    await seen.observe(small)
    await other.observe(large)
    gossip = place.gossip(seen, url, (await place.serve(place.gossip(other, url)),))
    await gossip.round()
    assert seen.largest(LOG.name) == other.largest(LOG.name) == large
    # Nobody there, nonsense there: the round goes on.
    broken = place.gossip(seen, url, ("http://127.0.0.1:1", f"{url}/nowhere"))
    await broken.round()
    assert seen.condemned == ()


async def test_a_witness_that_saw_another_tree_gives_the_log_away(place):
    url, mine = await place.face("one", 8)
    other_url, theirs = await place.face("two", 5)
    create_store(place.path / "witness")
    service = WitnessService(
        config=WitnessConfig(name=WITNESS.name, logs=(WitnessedLog(vkey=str(LOG.vkey)),)),
        data=place.path / "witness",
        signer=WITNESS,
        clock=SystemClock(),
        logger=get_logger("witness"),
    )
    witness_url = await place.stack.enter_async_context(serving(service))
    policy = f"log {LOG.vkey}\nwitness w {WITNESS.cosigner_vkey} {witness_url}\nquorum none\n"
    witness = WitnessCaller(place.transport, witness_url)

    # An honest start: what the gateway saw is submitted, and the witness cosigns it.
    honest = place.sightings("honest", other_url, policy)
    await honest.observe(theirs)
    await place.gossip(honest, other_url, policy=policy).round()
    cosigned = await witness.latest(LOG.name)
    assert open_checkpoint(cosigned, LOG.vkey).size == 5
    await place.gossip(honest, other_url, policy=policy).round()
    assert honest.condemned == ()

    seen = place.sightings("gateway", url, policy)
    await seen.observe(mine)
    await place.gossip(seen, url, policy=policy).round()
    assert seen.condemned == (LOG.name,)
    assert is_evidence(seen.evidence(LOG.name))


async def test_what_somebody_else_wrote_there_is_not_believed(place):
    url, mine = await place.face("one", 3)
    seen = place.sightings("gateway", url)
    await seen.observe(mine)
    (file,) = (place.path / "gateway" / "sightings").iterdir()
    assert file.stat().st_size == len(mine)
    file.write_bytes(mine.replace(b"\n3\n", b"\n2\n"))
    with pytest.raises(CorruptStateError):
        place.sightings("gateway", url)
    with pytest.raises(Error):
        await seen.adopt(b"{}", "a liar")
    assert seen.condemned == ()
