"""The commands against a real network: five processes, a real model, real keys."""

import json
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.support.network import RunningNetwork, command

pytestmark = pytest.mark.xdist_group("network")

MODEL = "smollm2-135m-instruct"


def ask(network: RunningNetwork, prompt: str, *, keep: bool = False) -> str:
    """One answer through the official client; its id."""
    with openai.OpenAI(base_url=f"{network.base_url}/v1", api_key="none") as client:
        answer = client.chat.completions.with_raw_response.create(
            model=MODEL,
            messages=[{"role": "user", "content": prompt}],
            max_tokens=24,
            extra_headers={"trunkline-keep": "bodies"} if keep else {},
        )
    return str(answer.headers["trunkline-receipt"])


def test_status_is_complete(network: RunningNetwork) -> None:
    ask(network, "Say yes.")
    status = network.wait_ready()

    assert status["ready"] is True
    assert [role["name"] for role in status["roles"]] == [
        "gateway", "node-alpha", "node-beta", "log", "witness", "verifier", "verifier-mu",
    ]  # fmt: skip
    assert all(role["healthy"] and role["pid"] for role in status["roles"])
    assert status["gateway"]["answers"]["succeeded"] >= 1
    assert status["checkpoint"]["problem"] == ""
    people = network.command("status")
    assert people.code == 0
    assert "checkpoint:" in people.out


def test_a_file_verifies_elsewhere_with_the_policy_alone(
    network: RunningNetwork, tmp_path: Path
) -> None:
    answer = ask(network, "Name a colour.", keep=True)
    file = tmp_path / "answer.json"
    exported = network.command("receipts", "export", answer, "--to", str(file), "--wait", "60")
    assert exported.code == 0, exported.err
    for name in ("policy", "keys.json"):
        (tmp_path / name).write_bytes((network.data / name).read_bytes())

    done = command(
        "verify", str(file), "--policy", str(tmp_path / "policy"),
        "--keys", str(tmp_path / "keys.json"), "--json", "--data", str(tmp_path / "nothing"),
    )  # fmt: skip

    assert done.code == 0, done.out
    report = done.json()
    assert (report["answer"], report["outcome"], report["state"]) == (answer, "pass", "final")
    results = {step["title"]: step["result"] for step in report["steps"]}
    assert results["response"] == results["request"] == results["inclusion"] == "pass"


def _change_receipt(file: dict[str, Any]) -> None:
    signed = file["parts"][0]["signed"]
    signed["receipt"] = signed["receipt"].replace('"status":200', '"status":201')


def _change_answer(file: dict[str, Any]) -> None:
    chunks = file["parts"][0]["bodies"]["chunks"]
    chunks[0] = chunks[0].replace("chat.completion", "chat.completiom")


def _drop_proof(file: dict[str, Any]) -> None:
    file["parts"][0]["proof"] = None


def test_a_file_alone_is_taken_at_its_word_only_when_told_to(
    network: RunningNetwork, tmp_path: Path
) -> None:
    answer = ask(network, "Name a fruit.", keep=True)
    file = tmp_path / "answer.json"
    exported = network.command("receipts", "export", answer, "--to", str(file), "--wait", "60")
    assert exported.code == 0, exported.err
    elsewhere = ("--data", str(tmp_path / "nothing"))

    unknown = command("verify", str(file), *elsewhere)
    assert unknown.code == 2
    assert "--trust-file" in unknown.out
    trusted = command("verify", str(file), "--trust-file", *elsewhere)
    assert trusted.code == 0, trusted.out
    assert "not who made it" in trusted.out
    file.write_bytes(file.read_bytes().replace(b'"chunks":["', b'"chunks":["x', 1))
    assert command("verify", str(file), "--trust-file", *elsewhere).code == 1
    assert command("verify", str(file), "--trust-file", "--keys", str(file)).code == 2


@pytest.mark.parametrize(
    ("change", "code"), [(_change_receipt, 1), (_change_answer, 1), (_drop_proof, 2)]
)
def test_the_exit_code_says_what_verifying_found(
    network: RunningNetwork, tmp_path: Path, change: Any, code: int
) -> None:
    answer = ask(network, "Name a tree.", keep=True)
    exported = network.command("receipts", "export", answer, "--wait", "60")
    file = json.loads(exported.out)
    change(file)
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(file))

    assert network.command("verify", str(path)).code == code


def test_an_id_verifies_over_the_running_network(network: RunningNetwork) -> None:
    answer = ask(network, "Name a river.")
    done = network.command("verify", answer, "--wait", "60")

    assert done.code == 0, done.out
    assert "final, verified" in done.out


def test_an_unknown_id_can_not_be_checked(network: RunningNetwork) -> None:
    done = network.command("verify", "ans_" + "a" * 24)

    assert (done.code, done.out) == (2, "")
    assert done.err == "trunkline: the gateway has no such answer; see `trunkline receipts ls`\n"


def test_receipts_are_listed_and_shown_without_content(network: RunningNetwork) -> None:
    answer = ask(network, "Say the word heliotrope.")
    listed = network.command("receipts", "ls", "--json").json()
    shown = network.command("receipts", "show", answer)

    assert listed[0]["answer"] == answer
    assert '"type": "trunkline.receipt/v1"' in shown.out
    assert "heliotrope" not in json.dumps(listed) + shown.out


def test_many_answers_are_exported_and_each_verifies(
    network: RunningNetwork, tmp_path: Path
) -> None:
    answers = {ask(network, f"Count to {count}.") for count in (1, 2)}
    args = ("--since", "1h", "--model", MODEL)
    listed = network.command("receipts", "ls", *args, "--limit", "2", "--json").json()
    into = tmp_path / "evidence"
    done = network.command("receipts", "export", "--folder", str(into), *args, "--limit", "2")
    again = network.command("receipts", "export", "--folder", str(into), *sorted(answers))

    assert {row["answer"] for row in listed} == answers
    assert (done.code, done.out) == (0, f"{into}: 2 written, 0 there already\n"), done.err
    assert again.out == f"{into}: 0 written, 2 there already\n"
    for answer in answers:
        assert network.command("verify", str(into / f"{answer}.evidence.json")).code == 0
    none = network.command("receipts", "ls", "--until", "2020-01-01", "--json")
    assert none.json() == []


def test_chat_shows_provisional_then_final(network: RunningNetwork) -> None:
    done = network.command(
        "chat", "--temperature", "0", stdin="Name one river.\n/nonsense\n/quit\n"
    )

    assert done.code == 0, done.out + done.err
    assert done.out.index("provisional ans_") < done.out.index("final ans_")
    assert "verified" in done.out
    assert "no such command" in done.out


def test_once_uses_the_network_that_runs(network: RunningNetwork) -> None:
    done = network.command("up", "--once", "Name one flower.")

    assert done.code == 0, done.out + done.err
    assert "using the network that runs" in done.err
    assert "final, verified" in done.out


def test_a_second_up_on_the_folder_is_refused(network: RunningNetwork) -> None:
    done = network.command("up")

    assert done.code == 2
    assert "already" in done.err
    assert done.err.count("\n") == 1


def test_killing_the_node_that_answers_changes_nothing(network: RunningNetwork) -> None:
    done = network.command("drill", "kill-node", "--seed", "3", "--tokens", "60", "--json")
    network.wait_ready()

    assert done.code == 0, done.out + done.err
    result = done.json()
    assert result["identical"] is True
    assert result["undisturbed"] == result["disturbed"]
    assert result["verified"] == "pass"
    restarts = {role["key"]: role["restarts"] for role in network.status()["roles"]}
    assert restarts[result["killed"]] >= 1


def test_the_log_is_sound_while_it_runs(network: RunningNetwork) -> None:
    done = network.command("log", "fsck", "--json")

    assert done.code == 0
    assert done.json()["problems"] == []


def test_a_role_alone_refuses_a_taken_port(network: RunningNetwork) -> None:
    done = network.command("witness")

    assert done.code == 2
    assert str(int(network.base_url.rpartition(":")[2]) + 4) in done.err
    assert "Traceback" not in done.err
