"""The browser's verifier in Node: the same results as Python's, case by case, step by step."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.browser import cases

from trunkline.base.errors import MalformedError
from trunkline.tlog.policy import Policy

NODE = shutil.which("node")
NODE_MAJOR_MIN = 20
RUN = Path(__file__).with_name("run.mjs")

# One run of Node for all of these.
pytestmark = pytest.mark.xdist_group("browser-node")


def _missing() -> str | None:
    if NODE is None:
        return "no node on the PATH: the browser's verifier is not tested in Node here"
    version = subprocess.run([NODE, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.strip().removeprefix("v").split(".")[0]) < NODE_MAJOR_MIN:
        return f"node {version.strip()} is older than {NODE_MAJOR_MIN}"
    return None


@pytest.fixture(scope="module")
def work() -> dict[str, Any]:
    return cases.work()


@pytest.fixture(scope="module")
def results(work: dict[str, Any]) -> dict[str, Any]:
    missing = _missing()
    if missing is not None:
        pytest.skip(missing)
    done = subprocess.run(
        [str(NODE), str(RUN)], input=json.dumps(work), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_case_has_the_results_of_the_python_verifier(work, results):
    assert results["ed25519"] is True
    assert len(results["cases"]) == len(work["cases"]) > cases.DAMAGED + 90
    reached = set()
    for case, report in zip(work["cases"], results["cases"], strict=True):
        expected = cases.expected(case)
        assert cases.summary(report) == expected, case["name"]
        reached |= {(title, result) for _, title, result in expected["steps"]}
    # Every step was seen to pass and to fail.
    titles = [step["title"] for step in results["cases"][0]["steps"]]
    assert {title for title, result in reached if result == "pass"} == set(titles)
    assert {title for title, result in reached if result == "fail"} == set(titles)


def test_the_vectors_give_what_they_say(work, results):
    document = json.loads((cases.SPEC / "evidence-vectors.json").read_text())
    stated = {item["name"]: item["outcome"] for item in document["cases"]}
    seen = {
        case["name"].partition(",")[0]: report["outcome"]
        for case, report in zip(work["cases"], results["cases"], strict=True)
        if case["name"].endswith(", policy True, all keys")
    }
    assert seen == stated


def test_receipts_batches_streams_and_canonical_bytes(work, results):
    found, vectors = results["receipts"], work["receipts"]
    assert found["count"] == str(len(vectors["batch"]["receipts"]))
    assert found["counted"] == str(vectors["counted"]["audited"])
    assert found["uncounted"] == [True] * len(vectors["counted"]["refused"])
    assert found["request"] == vectors["request"]["digest"]
    assert found["streams"] == [item["digest"] for item in vectors["stream"]]
    assert found["refused"] == [True] * len(vectors["not_canonical"])


def test_the_signatures_that_count_are_those_of_the_spec(work, results):
    assert results["signatures"] == [case["valid"] for case in work["ed25519"]["cases"]]


def test_policies_are_refused_as_python_refuses_them(results):
    refused = []
    for policy in cases.POLICIES:
        try:
            Policy.parse(policy)
        except MalformedError:
            refused.append(True)
        else:
            refused.append(False)
    assert results["policies"] == refused
    assert refused == [True] * (len(refused) - 1) + [False]


def test_without_ed25519_nothing_is_shown_and_nothing_is_wrong(results):
    report = results["without"]
    unclear = {step["title"] for step in report["steps"] if step["result"] == "inconclusive"}
    assert unclear == {"signatures", "batch paths", "log", "witnesses", "inclusion"}
    assert (report["outcome"], report["state"]) == ("inconclusive", "provisional")
    assert "can not verify Ed25519" in report["steps"][3]["detail"]


def test_ml_dsa_signatures_count_as_in_python_and_none_does_with_a_bit_flipped(work, results):
    for item, found in zip(work["ml_dsa"], results["ml_dsa"], strict=True):
        assert found["valid"] is item["valid"]
        expected = [cases.flipped(item, *flip) for flip in item["flips"]]
        assert found["flips"] == expected == [False] * len(expected)
    assert sum(len(item["flips"]) for item in work["ml_dsa"]) > 90


def test_a_witness_with_ml_dsa_counts_towards_the_quorum(work, results):
    reports = {
        case["name"]: report
        for case, report in zip(work["cases"], results["cases"], strict=True)
        if case["name"].startswith("ml_dsa_witness")
    }
    whole = reports["ml_dsa_witness, policy True, all keys"]["steps"][10]
    alone = reports["ml_dsa_witness_alone, policy True, all keys"]["steps"][10]
    assert (whole["title"], whole["result"]) == ("witnesses", "pass")
    assert whole["detail"] == "quorum both, cosigned by one, pq"
    assert (alone["result"], alone["detail"]) == (
        "inconclusive",
        "1 known witnesses cosigned: not a quorum",
    )
