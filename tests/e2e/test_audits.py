"""Audits in a real network: real models, two verifiers, one of them killed on the way."""

import asyncio
import os
import re
import signal
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from tests.support.network import RunningNetwork, make, running

from trunkline.base.errors import UpstreamError
from trunkline.cli.folder import Folder, RoleEntry
from trunkline.remote.http1 import HttpTransport
from trunkline.remote.verifier import VerifierCaller

pytestmark = [pytest.mark.xdist_group("network"), pytest.mark.timeout(900)]

MODEL = "smollm2-135m-instruct"
EMBEDDER = "multilingual-e5-small"
TRIES_MAX = 10
DEADLINE_S = 300.0


@pytest.fixture(scope="module")
def network(
    tmp_path_factory: pytest.TempPathFactory, model_cache: Path
) -> Iterator[RunningNetwork]:
    """A network in which every answer is audited, and nodes may give answers again."""
    data = tmp_path_factory.mktemp("audits") / "net"

    def changed(entry: RoleEntry, text: str) -> str:
        if entry.role == "verifier":
            text = text.replace("rate_ppm = 50000", "rate_ppm = 1000000")
        if entry.role == "node":
            text += "\n[cache]\n"
        return text.replace("rate_max = 0.1", "rate_max = 1.0")

    folder = make(data, model_cache, changed)
    routes = folder.config(folder.network().one("gateway")).parent / "routing.toml"
    # As long as it takes: what is looked at here is what becomes of it.
    patient = "[verification]\nbefore_deadline_s = 120"
    text = routes.read_text().replace("[verification]", patient)
    routes.write_text(f'{text}\n[keys.anonymous]\ncache = "asked"\n')
    with running(data, model_cache) as started:
        yield started


def ask(network: RunningNetwork, prompt: str, **asked: object) -> str:
    """Ask a question; the answer's id."""
    body: dict[str, object] = {
        "model": MODEL, "max_tokens": 24, "messages": [{"role": "user", "content": prompt}],
    }  # fmt: skip
    return post(network, "chat/completions", body | asked)


def post(network: RunningNetwork, path: str, body: dict[str, object]) -> str:
    """Call the front door; the answer's id."""
    return told(network, path, body)["trunkline-receipt"]


def told(
    network: RunningNetwork, path: str, body: dict[str, object], **headers: str
) -> Mapping[str, str]:
    """Call the front door; the answer's headers."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(  # noqa: S310 - a network of this test
        f"{network.base_url}/v1/{path}",
        data=msgspec.json.encode(body),
        headers={"content-type": "application/json"} | named,
    )
    with urllib.request.urlopen(request, timeout=DEADLINE_S) as response:  # noqa: S310
        return {name.lower(): value for name, value in response.headers.items()}


def verdicts_on(network: RunningNetwork, answer: str) -> list[dict[str, object]]:
    """The verdicts of both verifiers on an answer, by long polls until there are two."""
    folder = Folder(network.data)
    urls = [entry.url for entry in folder.network().roles if entry.role == "verifier"]

    async def wait() -> list[dict[str, object]]:
        transport = HttpTransport()
        try:
            async with asyncio.timeout(DEADLINE_S):
                while True:
                    done = await asyncio.to_thread(
                        network.command, "audit", "show", answer, "--json"
                    )
                    found = msgspec.json.decode(done.out) if done.out else []
                    if len(found) == len(urls):
                        assert done.code == 0, done.out
                        return found
                    await asyncio.gather(*(news(transport, url) for url in urls))
        finally:
            await transport.aclose()

    return asyncio.run(wait())


async def news(transport: HttpTransport, url: str) -> None:
    """Wait a while for a verifier's next verdict. One that was killed may not be back yet."""
    caller = VerifierCaller(transport, url)
    with suppress(UpstreamError):
        await caller.verdicts((await caller.info()).verdicts, 2)


def test_both_verifiers_pass_an_honest_answer_and_anyone_computes_it_again(
    network: RunningNetwork,
) -> None:
    answer = ask(network, "Name three rivers.")

    found = verdicts_on(network, answer)

    assert {one["verifier"] for one in found} == {
        "lambda.localhost/verifier", "mu.localhost/verifier",
    }  # fmt: skip
    receipts = set()
    for one in found:
        verdict = one["verdict"]
        assert isinstance(verdict, dict)
        assert (verdict["result"], verdict["regime"]) == ("pass", "exact")
        receipts.add(verdict["receipt"])
    (receipt,) = receipts
    again = network.command("audit", "recompute", answer)
    assert again.code == 0, again.out + again.err
    assert again.out.count("to the last digit") == 2
    shown = network.command("audit", "show", answer)
    assert re.search(r"all of \d+ tokens are the model's", shown.out)
    # The newest in the list may be on a question that a verifier has asked by itself.
    listed = network.command("audit", "ls")
    assert listed.code == 0
    (beginning,) = set(re.findall(rf"{receipt[:8]}[0-9a-f]*…?", listed.out))
    by_beginning = network.command("audit", "show", beginning)
    assert re.search(r"all of \d+ tokens are the model's", by_beginning.out), by_beginning.err
    assert network.command("audit", "recompute", receipt[:8]).code == 0
    assert network.command("audit", "show", receipt[:7]).code == 2


def test_log_probabilities_that_an_app_asked_for_are_the_models(network: RunningNetwork) -> None:
    answer = ask(network, "Is a whale a fish?", logprobs=True, top_logprobs=5)

    for one in verdicts_on(network, answer):
        verdict = one["verdict"]
        assert isinstance(verdict, dict)
        assert (verdict["regime"], verdict["result"]) == ("exact", "pass"), verdict["checks"]
        results = {check["name"]: check["result"] for check in verdict["checks"]}
        assert results["logprobs"] == results["response"] == results["replay"] == "pass"
    again = network.command("audit", "recompute", answer)
    assert again.code == 0, again.out + again.err


def test_embeddings_are_made_again_to_the_bit(network: RunningNetwork) -> None:
    body = {
        "model": EMBEDDER,
        "input": ["where is the station?", "駅はどこですか。"],
    }

    found = verdicts_on(network, post(network, "embeddings", body))

    for one in found:
        verdict = one["verdict"]
        assert isinstance(verdict, dict)
        assert (verdict["kind"], verdict["regime"], verdict["result"]) == (
            "embedding", "exact", "pass",
        )  # fmt: skip
        assert verdict["checks"][-1]["detail"] == "all of 2 vectors are the model's"


@pytest.mark.parametrize("path", ["chat/completions", "embeddings"])
def test_an_answer_given_again_passes_with_the_answer_that_it_came_from(
    network: RunningNetwork, path: str
) -> None:
    chat = {"model": MODEL, "max_tokens": 12, "messages": [{"role": "user", "content": "Again?"}]}
    body = chat if path != "embeddings" else {"model": EMBEDDER, "input": ["what is kept?"]}
    for _ in range(TRIES_MAX):
        # Each of the nodes makes it once, and anew whatever a busy machine has it retried with.
        answer = told(network, path, body, trunkline_cache="use")
        if "trunkline-cache" in answer:
            break
        # It is given again once the log has its receipt.
        verdicts_on(network, answer["trunkline-receipt"])
    assert answer["trunkline-cache"] == "hit"

    found = verdicts_on(network, answer["trunkline-receipt"])

    for one in found:
        verdict = one["verdict"]
        assert isinstance(verdict, dict)
        assert (verdict["regime"], verdict["result"]) == ("exact", "pass"), verdict["checks"]
        results = {check["name"]: check["result"] for check in verdict["checks"]}
        assert results["cached"] == results["repeated"] == results["replay"] == "pass"
    again = network.command("audit", "recompute", answer["trunkline-receipt"])
    assert again.code == 0, again.out + again.err


def test_embeddings_are_held_until_a_verifier_has_made_them_again(
    network: RunningNetwork,
) -> None:
    for encoding in ("float", "base64"):
        body = {"model": EMBEDDER, "input": ["held", "and shown"], "encoding_format": encoding}
        answer = told(network, "embeddings", body, trunkline_verify="before")
        assert answer["trunkline-verified"] == "pass"


def test_every_role_writes_its_diagnostics_as_json(network: RunningNetwork) -> None:
    files = sorted((network.data / "logs").glob("*.jsonl"))
    assert len(files) == len(Folder(network.data).network().roles)
    for file in files:
        # What comes after the last end of a line is being written just now.
        for line in file.read_text().split("\n")[:-1]:
            assert "event" in msgspec.json.decode(line), file.name


def test_a_killed_verifier_goes_on_and_nothing_is_audited_twice(network: RunningNetwork) -> None:
    verdicts_on(network, ask(network, "What is the capital of France?"))
    os.kill(network.pid("verifier"), signal.SIGKILL)

    answer = ask(network, "Tell me a story about a fox.")

    assert len(verdicts_on(network, answer)) == 2
    alerts = network.command("audit", "alerts")
    assert (alerts.code, alerts.out.strip()) == (0, "nothing"), alerts.out
