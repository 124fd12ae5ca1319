"""What verdicts do, on loopback: a gateway over two nodes and two verifiers that are scripted."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.fake_node import FakeNode
from tests.support.fake_verifier import FakeVerifier, RoutedApp, refuse
from tests.support.gateway import FakeLog, Stack, gateway_over, settings

from trunkline.crypto.digest import sha256
from trunkline.crypto.signer import Signer, sign_note
from trunkline.gateway import assembly, directory, store, verdict_proofs, verification
from trunkline.gateway.alerts import ALERTS_PATH, AlertList
from trunkline.gateway.config import GatewayConfig, NodeConfig
from trunkline.gateway.core.standing import AHEAD_MS_MAX
from trunkline.gateway.verdict_store import COMMITMENTS_SCHEMA
from trunkline.receipts.key_statement import KeyStatement
from trunkline.runtime.clock import SystemClock
from trunkline.runtime.http import Call, Router
from trunkline.runtime.server import serving
from trunkline.runtime.store import Database
from trunkline.verdicts import Verdict

pytestmark = pytest.mark.usefixtures("looks_often")

BODY = b'{"model":"tiny","messages":[{"role":"user","content":"say it"}]}'
NOW_MS = 1_780_000_000_000


def policy(path: Path, verifiers: list[FakeVerifier], more: str = "") -> Path:
    file = path / "routing.toml"
    tables = "".join(verifier.toml for verifier in verifiers)
    file.write_text(f"[verification]\n{more}\n{tables}")
    return file


async def served_by(stack: Stack) -> str:
    reply = await stack.http.post("/v1/chat/completions", BODY, trunkline_detail="1")
    assert reply.status == 200, reply.body
    return reply.header("trunkline-node") or ""


async def alerts(stack: Stack) -> AlertList:
    reply = await stack.http.get(ALERTS_PATH)
    return msgspec.json.decode(reply.body, type=AlertList)


async def so(true: bool) -> bool:
    """Something that needs no asking, for ``until``."""
    await asyncio.sleep(0)
    return true


async def until(look: Callable[[], Awaitable[bool]]) -> None:
    """Look again and again, and give up after a while."""
    async with asyncio.timeout(30):
        while not await look():
            continue


async def stands(stack: Stack, node: FakeNode, standing: str) -> None:
    """Wait until the gateway says so of the node."""

    async def look() -> bool:
        found = {row.node: row.standing for row in (await alerts(stack)).standings}
        return found.get(node.name, "good") == standing

    await until(look)


async def test_two_verifiers_quarantine_a_node_and_new_evidence_restores_it(
    nodes: list[FakeNode], verifiers: list[FakeVerifier], tmp_path: Path
) -> None:
    alpha, beta = nodes
    one, two = verifiers
    file = policy(tmp_path, verifiers)
    async with gateway_over(nodes, tmp_path, routing=file) as stack:
        assert await served_by(stack) == alpha.name, "equals go by name, until times are known"

        one.reveal(one.verdict(alpha.signer.vkey, NOW_MS, standing="failed", result="fail"))
        await stands(stack, alpha, "demoted")
        assert {await served_by(stack) for _ in range(4)} == {beta.name}
        two.reveal(two.verdict(alpha.signer.vkey, NOW_MS, standing="failed", result="fail"))
        await stands(stack, alpha, "quarantined")
        reply = await stack.http.post("/v1/chat/completions", BODY)
        assert reply.header("trunkline-alert") == "node_quarantined"

        found = await alerts(stack)
        assert [alert.code for alert in found.alerts] == ["node_quarantined", "node_demoted"]
        assert found.alerts[0].by == (one.name, two.name)
        assert {verifier.reachable for verifier in found.verifiers} == {True}
        explained = (await stack.http.get("/trunkline/v1/route?model=tiny")).json()
        rows = {row["node"]: row for row in explained["deployments"]}
        assert rows[alpha.name]["state"] == "quarantined"
        assert one.name in rows[alpha.name]["reason"]
        status = (await stack.http.get("/trunkline/v1/status")).json()
        assert [row["standing"] for row in status["standings"]] == ["quarantined"]
        metrics = (await stack.http.get("/metrics")).body.decode()
        assert "trunkline_gateway_deployment_standing" in metrics

        for verifier in verifiers:
            verifier.reveal(verifier.verdict(alpha.signer.vkey, NOW_MS + 1, standing="good"))
        await stands(stack, alpha, "good")
        await beta.die()
        assert await served_by(stack) == alpha.name
        assert (await alerts(stack)).alerts[0].code == "node_restored"
        reply = await stack.http.post("/v1/chat/completions", BODY)
        assert reply.header("trunkline-alert") is None


async def test_what_is_quarantined_everywhere_is_refused_and_served_as_a_last_resort_if_allowed(
    nodes: list[FakeNode], verifiers: list[FakeVerifier], tmp_path: Path
) -> None:
    file = policy(tmp_path, verifiers)
    async with gateway_over(nodes, tmp_path, routing=file) as stack:
        for node in nodes:
            for verifier in verifiers:
                verifier.reveal(verifier.verdict(node.signer.vkey, NOW_MS, standing="failed"))
        for node in nodes:
            await stands(stack, node, "quarantined")
        refused = await stack.http.post("/v1/chat/completions", BODY)
        assert refused.status == 503
        assert refused.json()["error"]["code"] == "node_quarantined"
        explained = (await stack.http.get("/trunkline/v1/route?model=tiny")).json()
        assert "quarantined" in explained["outcome"]

        policy(tmp_path, verifiers, "last_resort = true")

        async def answered() -> bool:
            return (await stack.http.post("/v1/chat/completions", BODY)).status == 200

        await until(answered)


async def test_standings_outlive_a_restart_and_verifiers_that_are_away_change_nothing(
    nodes: list[FakeNode], verifiers: list[FakeVerifier], tmp_path: Path
) -> None:
    alpha, beta = nodes
    file = policy(tmp_path, verifiers)
    async with gateway_over(nodes, tmp_path, routing=file) as stack:
        for verifier in verifiers:
            verifier.reveal(verifier.verdict(alpha.signer.vkey, NOW_MS, standing="failed"))
        await stands(stack, alpha, "quarantined")
    for verifier in verifiers:
        verifier.url = "http://127.0.0.1:9"
    policy(tmp_path, verifiers)
    async with gateway_over(nodes, tmp_path, routing=file) as stack:
        assert {await served_by(stack) for _ in range(4)} == {beta.name}
        found = await alerts(stack)
        assert [alert.code for alert in found.alerts].count("node_quarantined") == 1
        assert not any(verifier.reachable for verifier in found.verifiers)


async def test_a_verdict_that_the_log_does_not_have_demotes_and_quarantines_once_it_does(
    nodes: list[FakeNode],
    verifiers: list[FakeVerifier],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verdict_proofs, "RETRY_S", 0.01)
    alpha, log = nodes[0], FakeLog()
    log.down = True
    log.bugs = 1
    async with gateway_over(nodes, tmp_path, routing=policy(tmp_path, verifiers), log=log) as stack:
        for verifier in verifiers:
            verifier.reveal(verifier.verdict(alpha.signer.vkey, NOW_MS, standing="failed"))
        await until(lambda: so(log.asked.is_set() and not log.bugs))
        await stands(stack, alpha, "demoted")

        async def waits() -> bool:
            return any("not proved" in row.why for row in (await alerts(stack)).standings)

        await until(waits)
        log.down = False
        await stands(stack, alpha, "quarantined")
        assert {note.encode() for one in verifiers for note in one.notes} <= set(log.entries)
    log.down = True
    async with gateway_over(nodes, tmp_path, routing=policy(tmp_path, verifiers), log=log) as stack:
        await stands(stack, alpha, "quarantined")


async def test_one_that_lies_and_one_that_copies_it_demote_and_two_of_their_own_quarantine(
    nodes: list[FakeNode], verifiers: list[FakeVerifier], tmp_path: Path
) -> None:
    """The copier says what the log had of the other one before it was bound itself; of a second
    answer both are bound before either shows."""
    alpha, log = nodes[0].signer.vkey, FakeLog()
    one, two = verifiers

    def failing(verifier: FakeVerifier, receipt: str) -> Verdict:
        return verifier.verdict(alpha, NOW_MS, standing="failed", receipt=receipt)

    copied, second = "ab" * 32, "cd" * 32
    lie, copy = failing(one, copied), failing(two, copied)
    honest = [(each, failing(each, second)) for each in verifiers]
    log.entries = [
        note.encode()
        for note in (
            *(one.bind(lie), one.sign(lie), two.bind(copy), two.sign(copy)),
            *(each.bind(verdict) for each, verdict in honest),
        )
    ]
    one.commitments[1], two.commitments[1] = one.bind(lie), two.bind(copy)
    one.reveal(lie)
    two.reveal(copy)
    file = policy(tmp_path, verifiers)
    for _ in range(2):  # a restart changes nothing
        async with gateway_over(nodes, tmp_path, routing=file, log=log) as stack:

            async def told(stack: Stack = stack) -> bool:
                rows = (await alerts(stack)).standings
                return any("could not know" in row.why for row in rows)

            await until(told)
            await stands(stack, nodes[0], "demoted")
    for each, verdict in honest:
        each.commitments[2] = each.bind(verdict)
        each.reveal(verdict)
    for _ in range(2):
        async with gateway_over(nodes, tmp_path, routing=file, log=log) as stack:
            await stands(stack, nodes[0], "quarantined")
        log.down = True


async def test_verdicts_that_an_older_gateway_kept_are_bound_where_they_are(
    nodes: list[FakeNode], verifiers: list[FakeVerifier], tmp_path: Path
) -> None:
    """On one answer, the second of them may be a copy; on two, none is."""
    place = nodes[0].signer.vkey
    before = store.MIGRATIONS[: store.MIGRATIONS.index(COMMITMENTS_SCHEMA)]
    database = Database.open(tmp_path / store.FILE, must_exist=False, migrations=before)

    async def keep(number: int, verifier: FakeVerifier, receipt: str) -> None:
        note = verifier.sign(verifier.verdict(place, NOW_MS, standing="failed", receipt=receipt))
        proof = f"c2sp.org/tlog-proof@v1\nindex {number}\n\n"
        row = (sha256(note.encode()).hex(), str(verifier.key), receipt, note, proof)
        await database.execute((
            "INSERT INTO verdicts (digest, verifier, receipt, note, proof) VALUES (?, ?, ?, ?, ?)",
            row,
        ))  # fmt: skip

    one, two = verifiers
    await keep(1, one, "ab" * 32)
    await keep(2, two, "ab" * 32)
    await database.aclose()
    file = policy(tmp_path, verifiers)
    async with gateway_over(nodes, tmp_path, routing=file) as stack:
        (row,) = (await alerts(stack)).standings
        assert row.standing == "demoted"
        assert "could not know" in row.why
        two.reveal(two.verdict(place, NOW_MS + 1, standing="failed", receipt="cd" * 32))
        await stands(stack, nodes[0], "quarantined")


async def test_what_is_no_commitment_to_a_verdict_binds_nobody_to_it(
    nodes: list[FakeNode], verifiers: list[FakeVerifier], tmp_path: Path
) -> None:
    alpha, log = nodes[0].signer.vkey, FakeLog()
    one, two = verifiers
    said = [each.verdict(alpha, NOW_MS, standing="failed", receipt="ab" * 32) for each in verifiers]
    other = two.verdict(alpha, NOW_MS, receipt="ab" * 32)
    # What its key had bound itself to before was another verdict on that receipt.
    log.entries = [two.bind(other).encode(), one.sign(said[0]).encode()]
    two.commitments[1] = two.bind(other)
    one.commitments[1] = "nonsense"
    for each, verdict in zip(verifiers, said, strict=True):
        each.reveal(verdict)
    file = policy(tmp_path, verifiers)
    async with gateway_over(nodes, tmp_path, routing=file, log=log) as stack:

        async def told() -> bool:
            rows = (await alerts(stack)).standings
            return any("could not know" in row.why for row in rows)

        await until(told)
        assert [row.standing for row in (await alerts(stack)).standings] == ["demoted"]


async def test_a_verdict_from_a_time_that_has_not_come_says_nothing(
    nodes: list[FakeNode], verifiers: list[FakeVerifier], tmp_path: Path
) -> None:
    alpha = nodes[0]
    one = verifiers[0]
    later_ms = SystemClock().unix_ms() + AHEAD_MS_MAX + 60_000
    one.reveal(one.verdict(alpha.signer.vkey, later_ms, standing="failed"))
    one.reveal(one.verdict(alpha.signer.vkey, NOW_MS, standing="failed"))
    one.reveal(one.verdict(alpha.signer.vkey, NOW_MS + 1, standing="good"))
    async with gateway_over(nodes, tmp_path, routing=policy(tmp_path, verifiers)) as stack:

        async def heard() -> bool:
            return (await alerts(stack)).verifiers[0].heard == 3

        await until(heard)
        assert (await alerts(stack)).standings == ()


async def test_what_stands_against_a_former_key_demotes_until_the_new_one_is_found_good(
    nodes: list[FakeNode], verifiers: list[FakeVerifier], tmp_path: Path
) -> None:
    alpha = nodes[0]
    file = policy(tmp_path, verifiers)
    async with gateway_over(nodes, tmp_path, routing=file) as stack:
        for verifier in verifiers:
            verifier.reveal(verifier.verdict(alpha.signer.vkey, NOW_MS, standing="failed"))
        await stands(stack, alpha, "quarantined")
    alpha.signer = Signer.generate(alpha.name, b"\x08" * 32)
    alpha.vkey_shown = str(alpha.signer.vkey)
    for _ in range(2):  # a restart changes nothing
        async with gateway_over(nodes, tmp_path, routing=file) as stack:
            await stands(stack, alpha, "demoted")
    async with gateway_over(nodes, tmp_path, routing=file) as stack:
        one, two = verifiers
        one.reveal(one.verdict(alpha.signer.vkey, NOW_MS + 1, standing="good"))
        await until(lambda: so(2 in one.polled))
        await stands(stack, alpha, "demoted")
        two.reveal(two.verdict(alpha.signer.vkey, NOW_MS + 1, standing="good"))
        await stands(stack, alpha, "good")


OPERATOR = Signer.generate("alpha.localhost", b"\x09" * 32)


@pytest.fixture
def by_operator(nodes: list[FakeNode]) -> GatewayConfig:
    """A gateway that knows alpha by its operator's key alone, and so its key once it has asked."""
    alpha = nodes[0]
    said = KeyStatement(
        operator=OPERATOR.name,
        key=alpha.vkey,
        from_s=NOW_MS // 1000,
        to_s=NOW_MS // 1000 + 10 * 365 * 86_400,
    )
    alpha.statements = (sign_note(said.text(), OPERATOR).decode(),)
    stated = NodeConfig(url=alpha.url, operator_vkey=str(OPERATOR.vkey), name=alpha.name)
    usual = settings(nodes)
    return msgspec.structs.replace(usual, nodes=(stated, usual.nodes[1]))


async def test_what_was_quarantined_is_so_before_its_key_is_heard_of(
    nodes: list[FakeNode],
    verifiers: list[FakeVerifier],
    by_operator: GatewayConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alpha = nodes[0]
    file = policy(tmp_path, verifiers)
    async with gateway_over(nodes, tmp_path, routing=file, config=by_operator) as stack:
        for verifier in verifiers:
            verifier.reveal(verifier.verdict(alpha.signer.vkey, NOW_MS, standing="failed"))
        await stands(stack, alpha, "quarantined")
    alpha.hold_info = asyncio.Event()
    monkeypatch.setattr(verification, "LOOK_S", 3600)
    async with gateway_over(nodes, tmp_path, routing=file, config=by_operator) as stack:
        (row,) = (await alerts(stack)).standings
        assert (row.node, row.standing) == (alpha.name, "quarantined")
        alpha.hold_info.set()


async def test_verifiers_are_heard_once_the_nodes_were_asked_for_their_keys(
    nodes: list[FakeNode],
    verifiers: list[FakeVerifier],
    by_operator: GatewayConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(assembly, "SETTLE_S", 3600)
    monkeypatch.setattr(directory, "POLL_TIMEOUT_S", 3600)
    alpha = nodes[0]
    alpha.hold_info = asyncio.Event()
    for verifier in verifiers:
        verifier.reveal(verifier.verdict(alpha.signer.vkey, NOW_MS, standing="failed"))
    file = policy(tmp_path, verifiers)
    async with gateway_over(nodes, tmp_path, routing=file, config=by_operator) as stack:
        while not alpha.polls:
            await alerts(stack)
        assert [verifier.polled for verifier in verifiers] == [[], []]
        alpha.hold_info.set()
        await stands(stack, alpha, "quarantined")


async def test_a_restarted_gateway_goes_on_where_it_had_heard(
    nodes: list[FakeNode], verifiers: list[FakeVerifier], tmp_path: Path
) -> None:
    one = verifiers[0]
    file = policy(tmp_path, [one])
    one.reveal(one.verdict(nodes[0].signer.vkey, NOW_MS, result="pass"))
    async with gateway_over(nodes, tmp_path, routing=file):
        await until(lambda: so(1 in one.polled))
    one.polled.clear()
    async with gateway_over(nodes, tmp_path, routing=file):
        await until(lambda: so(bool(one.polled)))
    assert one.polled == [1]


async def test_only_what_the_pinned_key_signed_about_a_node_of_ours_counts(
    nodes: list[FakeNode], verifiers: list[FakeVerifier], tmp_path: Path
) -> None:
    alpha = nodes[0].signer.vkey
    one, two = verifiers
    file = policy(tmp_path, verifiers, "agree = 1")
    failed = one.verdict(alpha, NOW_MS, standing="failed")
    one.notes += [
        "nonsense",
        two.sign(failed),
        one.sign(failed).replace('"standing":"failed"', '"standing":"good"'),
        one.sign(one.verdict(FakeNode("gamma").signer.vkey, NOW_MS, standing="failed")),
        one.sign(msgspec.structs.replace(
            failed, subject=msgspec.structs.replace(failed.subject, node="someone.else/node")
        )),
    ]  # fmt: skip
    one.reveal(one.verdict(alpha, NOW_MS, result="pass"))
    async with gateway_over(nodes, tmp_path, routing=file) as stack:

        async def heard() -> bool:
            return (await alerts(stack)).verifiers[0].heard == 6

        await until(heard)
        found = await alerts(stack)
        assert found.standings == ()
        assert found.alerts == ()


async def test_verifiers_that_contradict_each_other_are_reported_once(
    nodes: list[FakeNode], verifiers: list[FakeVerifier], tmp_path: Path
) -> None:
    alpha = nodes[0].signer.vkey
    one, two = verifiers
    file = policy(tmp_path, verifiers, 'on_fail = "alert"')
    one.reveal(one.verdict(alpha, NOW_MS, result="pass", receipt="ab" * 32))
    two.reveal(two.verdict(alpha, NOW_MS, result="fail", receipt="ab" * 32))
    for _ in range(2):
        async with gateway_over(nodes, tmp_path, routing=file) as stack:

            async def disputed(stack: Stack = stack) -> bool:
                return bool((await alerts(stack)).alerts)

            await until(disputed)
            (alert,) = (await alerts(stack)).alerts
            assert alert.code == "verdicts_disputed"
            assert alert.receipt == "ab" * 32
            assert alert.by == (one.name, two.name)


async def test_a_webhook_is_told_of_every_alert_until_it_takes_it(
    nodes: list[FakeNode], verifiers: list[FakeVerifier], tmp_path: Path
) -> None:
    told: list[dict[str, Any]] = []
    refusals = [503]

    async def hook(call: Call) -> None:
        body = await call.body(1 << 16)
        if refusals:
            await call.reply(refusals.pop(), b"")
            return
        told.append(json.loads(body))
        await call.reply(204, b"")

    one = verifiers[0]
    router = Router(refuse)
    router.add("POST", "/hook", hook)
    async with serving(RoutedApp(router), shutdown_grace_s=0.05) as url:
        file = policy(tmp_path, [one], f'webhook = "{url}/hook"')
        async with gateway_over(nodes, tmp_path, routing=file) as stack:
            one.reveal(one.verdict(nodes[0].signer.vkey, NOW_MS, standing="failed"))
            await until(lambda: so(len(told) == 2))
            said = (await alerts(stack)).alerts
    told.sort(key=lambda one: int(one["number"]))
    assert [one["code"] for one in told] == ["node_demoted", "node_quarantined"]
    assert [one["number"] for one in reversed(told)] == [alert.number for alert in said]
    assert told[1]["verdicts"] == list(said[0].verdicts)
