"""The verifier and its page in a real Chromium, against the same cases."""

import functools
import json
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from tests.browser import cases
from tests.browser.chromium import PROGRAM, Page, chromium
from tests.unit.evidence import make_vectors as made

pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason="no chromium on the PATH: the page is not tested"),
    # One browser for all of these.
    pytest.mark.xdist_group("chromium"),
]


class Quiet(SimpleHTTPRequestHandler):
    """The repository's files, over loopback: modules can not be loaded from file URLs."""

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(cases.REPOSITORY))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("chromium")) as started:
        yield started


@pytest.fixture
def files(tmp_path):
    """What a reader has on disk: evidence, and what they know by other means."""
    proven = made.evidence(made.part(made.receipt(), kept=made.bodies()))
    (tmp_path / "evidence.json").write_bytes(made.encode(proven))
    (tmp_path / "broken.json").write_bytes(made.encode(proven).replace(b"att_1", b"att_2"))
    document = json.loads((cases.SPEC / "evidence-vectors.json").read_text())
    (tmp_path / "policy").write_text(document["policy"])
    (tmp_path / "keys.json").write_text(json.dumps(document["trusted_keys"]))
    (tmp_path / "request").write_bytes(made.CLIENT_REQUEST)
    return tmp_path


def outcome(page: Page) -> str:
    """What the page says once a check has ended."""
    page.until("document.getElementById('outcome').textContent !== 'Checking…'")
    return page.evaluate("document.getElementById('outcome').textContent")


def test_the_module_gives_the_results_of_the_python_verifier(page, base_url):
    # Any page of this origin will do: the one under test may not run scripts from elsewhere.
    page.open(f"{base_url}/docs/spec/evidence-vectors.json")
    work = cases.work()
    given = work.pop("cases")

    def call(function: str, argument: object) -> Any:
        script = (
            f"import('/tests/browser/run.mjs').then((it) => it.{function}({json.dumps(argument)}))"
        )
        return page.evaluate(script)

    results = call("run", work)
    assert results["ed25519"] is True
    vectors = json.loads((cases.SPEC / "ed25519-vectors.json").read_text())["cases"]
    assert results["signatures"] == [case["valid"] for case in vectors]
    for item, found in zip(work["ml_dsa"], results["ml_dsa"], strict=True):
        assert found == {"valid": item["valid"], "flips": [False] * len(item["flips"])}
    # In pieces: each has the page's deadline for itself.
    for piece in (given[at : at + 100] for at in range(0, len(given), 100)):
        for case, report in zip(piece, call("verifyCases", piece), strict=True):
            assert cases.summary(report) == cases.expected(case), case["name"]
    receipts = results["receipts"]
    assert receipts["refused"] == [True] * len(receipts["refused"])
    assert results["policies"] == [True] * (len(cases.POLICIES) - 1) + [False]


def test_a_file_that_is_chosen_is_verified_here(page, base_url, files):
    page.open(f"{base_url}/web/verify.html")
    assert outcome(page) == "No evidence file yet."
    page.choose_file("#evidence", files / "evidence.json")
    page.until("document.getElementById('outcome').dataset.outcome === 'inconclusive'")
    for name, file in (("policy", "policy"), ("keys", "keys.json"), ("request", "request")):
        page.choose_file(f"#{name}", files / file)
    page.until("document.getElementById('outcome').dataset.outcome === 'pass'")
    assert outcome(page).startswith("Pass: ")
    rows = page.evaluate(
        "[...document.querySelectorAll('#steps tr')].map((row) => row.dataset.result)"
    )
    assert rows == ["pass"] * 12 + ["not_applicable"] * 2
    loaded = {url.removeprefix(base_url) for url in page.requested if not url.startswith("data:")}
    names = ("verify.html", "verify.css", "verify.mjs", "trunkline-verify.mjs")
    assert loaded == {f"/web/{name}" for name in names}
    page.choose_file("#evidence", files / "broken.json")
    page.until("document.getElementById('outcome').dataset.outcome === 'fail'")
    page.choose_file("#keys", files / "evidence.json")
    page.until("document.getElementById('outcome').textContent.includes('could not run')")
    assert page.evaluate("document.getElementById('report').hidden") is True


def test_a_file_that_is_dropped_anywhere_is_verified(page, base_url, files):
    page.open(f"{base_url}/web/verify.html")
    text = json.dumps((files / "evidence.json").read_text())
    page.evaluate(
        f"""(() => {{
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File([{text}], "<b>dropped</b>.json"));
          const drop = new DragEvent("drop", {{ dataTransfer, bubbles: true, cancelable: true }});
          document.querySelector("h1").dispatchEvent(drop);
        }})()"""
    )
    page.until("document.getElementById('outcome').dataset.outcome === 'inconclusive'")
    assert "<b>dropped</b>.json" in outcome(page)
    assert page.evaluate("document.querySelectorAll('#outcome *').length") == 0


def test_the_page_can_reach_nobody(page, base_url):
    page.open(f"{base_url}/web/verify.html")
    attempts = (
        "fetch('/LICENSE')",
        "new Promise((done, fail) => { const image = new Image(); image.onload = done; "
        "image.onerror = fail; image.src = '/LICENSE'; })",
        "Promise.resolve().then(() => { document.body.innerHTML = '<p>'; })",
    )
    for attempt in attempts:
        assert page.evaluate(f"({attempt}).then(() => 'done', () => 'refused')") == "refused"


def test_every_input_has_a_label_and_results_are_announced(page, base_url):
    page.open(f"{base_url}/web/verify.html")
    labels = page.evaluate(
        "[...document.querySelectorAll('input')].map((input) => input.labels.length)"
    )
    assert labels == [1] * 5
    assert page.evaluate("document.getElementById('outcome').getAttribute('role')") == "status"
    assert page.evaluate("document.documentElement.lang") == "en"
