"""Drop-in verification: what it loads, whom it trusts, and what it says of bytes that came."""

import json
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx2
import msgspec
import pytest
from tests.support.forked_log import forked

from trunkline import verified
from trunkline.base.errors import ConfigError, CorruptStateError
from trunkline.client.exchange import Exchange, format_of
from trunkline.client.judge import CLOCK_SKEW_MS, judge
from trunkline.client.receipt import Fetched, Receipt
from trunkline.client.shown import ShownEvents
from trunkline.client.sightings import Sightings
from trunkline.client.sightings_file import SightingsFile
from trunkline.client.wire import library_of
from trunkline.evidence import EvidenceKey, decode, split_view
from trunkline.evidence.response import PassingResponse
from trunkline.receipts import Receipt as Record
from trunkline.receipts import decode as decode_receipt
from trunkline.schema.sse import DONE, EVENT_BYTES_MAX
from trunkline.tlog.policy import Policy

VECTORS = Path(__file__).parents[3] / "docs" / "spec" / "evidence-vectors.json"
DOCUMENT = json.loads(VECTORS.read_text())
FINAL = next(case["evidence"] for case in DOCUMENT["cases"] if case["name"] == "final").encode()
KEYS = tuple(EvidenceKey(**key) for key in DOCUMENT["trusted_keys"])
TRUST = verified.Trust(policy=DOCUMENT["policy"], keys=KEYS)
SIGNED = decode_receipt(decode(FINAL).parts[0].signed.receipt.encode())


def call(**changes: object) -> Exchange:
    """The call that the vector's answer belongs to, its response not seen."""
    made = Exchange(
        format="openai.chat",
        request=DOCUMENT["request"].encode(),
        nonce=SIGNED.sampling.caller_nonce,
        sent_ms=SIGNED.times.arrived_ms,
        kept=False,
        answer=decode(FINAL).answer,
    )
    changed = replace(made, **changes)  # type: ignore[arg-type]
    changed.response.overflowed = True
    return changed


@pytest.fixture
def asked_as_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The vector's gateway gave its node other bytes than its app's: here they are the call's."""
    digest = SIGNED.request.digest

    def of(raw: bytes) -> str:
        return digest if raw == DOCUMENT["request"].encode() else "sha256:" + "00" * 32

    monkeypatch.setattr("trunkline.client.judge.request_digest", of)


def results(made: Exchange, evidence: bytes = FINAL) -> dict[str, str]:
    return {step.title: step.result for step in judge(made, evidence, TRUST).steps}


def test_what_is_loaded_is_light() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys\nfrom trunkline import verified\nprint(*sys.modules)"],
        capture_output=True, text=True, check=True, timeout=240,
    )  # fmt: skip
    loaded = set(done.stdout.split())
    heavy = {"httpx", "httpx2", "openai", "anthropic", "httptools", "uvicorn", "numpy", "asyncio"}
    rooms = {f"trunkline.{room}" for room in ("gateway", "node", "log", "runtime", "remote", "cli")}
    assert "trunkline.client.judge" in loaded
    assert loaded.isdisjoint(heavy | rooms)


@pytest.mark.usefixtures("asked_as_is")
def test_the_vector_is_the_answer_to_its_own_call() -> None:
    found = results(call())
    assert (found["answer"], found["call"], found["asked"]) == ("pass", "pass", "pass")
    # It was too long to be kept, and that is not a proof.
    assert found["shown"] == "inconclusive"


@pytest.mark.usefixtures("asked_as_is")
@pytest.mark.parametrize(
    ("changes", "title", "fault"),
    [
        ({"answer": "ans_2"}, "answer", "other_answer"),
        ({"nonce": "00" * 32}, "call", "answer_replayed"),
        ({"sent_ms": SIGNED.times.arrived_ms + CLOCK_SKEW_MS + 1}, "call", "answer_replayed"),
        ({"nonce": "00" * 32, "request": b"{}"}, "call", "other_answer"),
        ({"request": b"{}"}, "asked", "request_changed"),
        ({"closed": True}, "response", "answer_changed"),
        ({}, "response", "answer_unread"),
    ],
)
def test_each_difference_has_its_step_and_name(
    changes: dict[str, object], title: str, fault: str
) -> None:
    made = call(**changes)
    if title == "response":
        made.response = PassingResponse()
        made.add(b"data: {}\n\n")
    assert results(made)[title] == "fail"
    assert judge(made, FINAL, TRUST).fault == fault


def test_any_bytes_give_a_result() -> None:
    for data in (b"", b"{}", b"\xff", FINAL[:-1]):
        result = judge(call(), data, TRUST)
        assert (result.outcome, result.fault) == ("fail", "evidence_false")


def test_a_request_that_was_changed_on_its_way_shows() -> None:
    assert results(call())["asked"] == "fail"


def test_what_a_later_gateway_translates_otherwise_is_no_lie() -> None:
    made = call(format="anthropic.messages")
    assert results(made)["asked"] == "inconclusive"
    assert results(call(format="openai.responses"))["asked"] == "inconclusive"


def test_a_path_says_the_format() -> None:
    assert format_of("/v1/chat/completions") == ("openai.chat", "")
    assert format_of("/tenant/v1/messages") == ("anthropic.messages", "/tenant")
    assert format_of("/v1/models") is None


def test_a_long_answer_of_which_nothing_is_known_is_let_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trunkline.evidence.response.RESPONSE_BYTES_MAX", 10)
    made = call()
    made.response = response = PassingResponse()
    for _ in range(3):
        made.add(b"12345678")
    assert response.overflowed
    assert results(made)["shown"] == "inconclusive"
    assert results(made)["response"] == "not_applicable"


def test_a_translated_answer_is_what_readers_of_events_take_from_it() -> None:
    body = b"event: a\ndata: 1\n\nevent: b\ndata: 2\n\n"
    shown = ShownEvents()
    for piece in (b": held for a ", b"verdict\n\n", body[:7], body[7:20] + b"", body[20:]):
        shown.add(piece)
    shown.close()
    assert (shown.shows(body), shown.streamed, shown.done) == (True, True, False)
    for other in (body[:-1], body + body, body.replace(b"2", b"3"), body[18:] + body[:18], b"{}"):
        assert not shown.shows(other)
    whole = ShownEvents()
    whole.add(b'{"a":')
    whole.add(b"1}")
    assert (whole.shows(b'{"a":1}'), whole.shows(b'{"a":2}'), whole.streamed) == (
        True, False, False,
    )  # fmt: skip


def test_events_too_long_to_be_read_are_not_what_was_signed() -> None:
    shown = ShownEvents()
    for _ in range(2):
        shown.add(b"data: " + b"a" * EVENT_BYTES_MAX)
    shown.close()
    assert not shown.shows(b"")
    assert shown.overflowed
    made = call(format="anthropic.messages")
    made.response = shown
    assert results(made)["shown"] == "inconclusive"


TOO_LONG = (b"data: %s\n" % (b"a" * EVENT_BYTES_MAX), b"".join(b"%d: 1\n" % n for n in range(40)))


@pytest.mark.parametrize("last", TOO_LONG, ids=("data", "fields"))
def test_what_can_not_be_read_never_stops_the_answer(last: bytes) -> None:
    """Not where it is in one piece with what can, and not where it is what the stream ends in."""
    begun = b"data: 1\n\n"
    shown, short = ShownEvents(), ShownEvents()
    shown.add(begun + last)
    shown.close()
    short.add(begun)
    short.close()
    assert shown.overflowed
    assert not short.shows(begun + last)


def test_waiting_ends_at_the_deadline_and_says_what_was_missing() -> None:
    """A gateway that is away, or says something odd, proves nothing and is no proof of a lie."""
    statuses = iter([503, 0, 0])
    receipt = Receipt(call(), TRUST, Sightings(""), lambda wait_s: Fetched(status=next(statuses)))
    with pytest.raises(verified.NotFinalError, match="HTTP 503"):
        receipt.final(deadline_s=0)
    with pytest.raises(verified.NotFinalError, match="no answer"):
        receipt.check()
    assert receipt.state == "provisional"


def test_trust_is_read_from_files_and_refused_when_it_is_none(tmp_path: Path) -> None:
    (tmp_path / "policy").write_text(DOCUMENT["policy"])
    (tmp_path / "keys.json").write_bytes(msgspec.json.encode(KEYS))
    assert verified.Trust.from_folder(tmp_path) == TRUST
    for name, text in (("policy", "log"), ("keys.json", "{}")):
        broken = tmp_path / name
        kept = broken.read_text()
        broken.write_text(text)
        with pytest.raises(ConfigError):
            verified.Trust.from_folder(tmp_path)
        broken.write_text(kept)
    with pytest.raises(ConfigError, match="cannot be read"):
        verified.Trust.from_folder(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="not a client"):
        verified.wrap(object(), TRUST)
    with pytest.raises(verified.NoReceiptError):
        verified.receipt_of(object())


def test_two_trees_of_one_size_are_an_alarm_with_evidence() -> None:
    policy, ours, theirs = forked(FINAL)
    seen = Sightings(policy)
    seen.see(ours)
    seen.see(ours)
    with pytest.raises(verified.SplitViewError) as caught:
        seen.see(theirs)
    report = split_view.verify(caught.value.evidence, Policy.parse(policy))
    assert (report.outcome, len(seen.notes)) == ("pass", 1)


def test_what_one_process_saw_convicts_the_log_in_another(tmp_path: Path) -> None:
    policy, ours, theirs = forked(FINAL)
    path = tmp_path / "state" / "sightings"
    first, second = (Sightings(policy, SightingsFile(path)) for _ in range(2))
    first.see(ours)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(verified.SplitViewError) as caught:
        second.see(theirs)
    report = split_view.verify(caught.value.evidence, Policy.parse(policy))
    assert report.outcome == "pass"
    # And in the next run, which has seen nothing itself.
    later = Sightings(policy, SightingsFile(path))
    assert later.notes == first.notes
    with pytest.raises(verified.SplitViewError):
        later.see(theirs)
    assert {found.name for found in path.parent.iterdir()} == {"sightings", "sightings.lock"}


def test_notes_of_logs_that_another_policy_knows_stay(tmp_path: Path) -> None:
    policy, ours, _ = forked(FINAL)
    path = tmp_path / "sightings"
    Sightings(policy, SightingsFile(path)).see(ours)
    Sightings(DOCUMENT["policy"], SightingsFile(path)).see(FINAL)
    assert len(SightingsFile(path).read()) == 2
    assert len(Sightings(policy, SightingsFile(path)).notes) == 1


@pytest.mark.parametrize("data", [b"", b"{}", b'{"checkpoints":[1]}', b"[" * 100_000, b"\xff"])
def test_a_file_that_is_no_file_of_sightings_is_not_written_over(
    tmp_path: Path, data: bytes
) -> None:
    policy, *_ = forked(FINAL)
    path = tmp_path / "sightings"
    path.write_bytes(data)
    with pytest.raises(CorruptStateError):
        Sightings(policy, SightingsFile(path))
    with pytest.raises(CorruptStateError):
        verified.wrap(httpx2.Client(), replace_policy(policy), sightings=path)
    assert path.read_bytes() == data


def replace_policy(policy: str) -> verified.Trust:
    return msgspec.structs.replace(TRUST, policy=policy)


def test_a_place_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    policy, *_ = forked(FINAL)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="can not be used"):
        Sightings(policy, SightingsFile(tmp_path / "file" / "sightings"))


def test_a_lock_that_is_held_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trunkline.client.sightings_file.LOCK_S", 0.02)
    policy, *_ = forked(FINAL)
    with (
        SightingsFile(tmp_path / "sightings").held(),
        pytest.raises(ConfigError, match="another process"),
    ):
        Sightings(policy, SightingsFile(tmp_path / "sightings"))


def test_a_failing_disk_is_told_and_the_file_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, ours, _ = forked(FINAL)
    path = tmp_path / "sightings"
    seen = Sightings(policy, SightingsFile(path))

    def fails(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("os.fsync", fails)
        with pytest.raises(ConfigError, match="No space"):
            seen.see(ours)
    assert not path.exists()
    seen.see(ours)
    assert SightingsFile(path).read() == seen.notes


def test_an_apps_own_transport_is_known_whoever_renamed_its_base(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """OpenAI's package, once loaded, says that it defines the HTTP library's base class."""
    for base in (httpx2.BaseTransport, httpx2.AsyncBaseTransport):
        monkeypatch.setattr(base, "__module__", "openai")

    class Blocking(httpx2.BaseTransport):
        pass

    class Awaited(httpx2.AsyncBaseTransport):
        pass

    with httpx2.Client() as client:
        for made in (Blocking(), Awaited(), client):
            assert library_of(made) is httpx2
    assert library_of(object()) is None


LENGTH_BYTES = 200 * 1024 * 1024


class Long(httpx2.SyncByteStream):
    """A streamed answer, a piece at a time."""

    def __init__(self, receipt: Record, message: bytes) -> None:
        self.count = LENGTH_BYTES // len(message) + 1
        self._message = message
        self._head = f"chain: {receipt.attempt} {receipt.request.digest} 0\n".encode()

    def __iter__(self) -> Iterator[bytes]:
        yield self._head
        for _ in range(self.count):
            yield b"data: "
            yield self._message
            yield b"\n\n"
        yield b"data: [DONE]\n\n"


def test_a_wrapped_client_keeps_nothing_of_a_long_answer() -> None:
    """The vector's receipt is of another text; what counts here is what is known of this one."""
    stream = Long(SIGNED, b'{"choices":[{"delta":{"content":"%s"}}]}' % (b"a" * 128 * 1024))

    class Gateway(httpx2.BaseTransport):
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            if request.method == "GET":
                return httpx2.Response(200, content=FINAL)
            assert request.headers["trunkline-chain"] == "1"
            headers = {"trunkline-receipt": decode(FINAL).answer}
            return httpx2.Response(200, headers=headers, stream=stream)

    transport = verified.wrap(Gateway(), TRUST)
    url, body = "http://gateway.example/v1/chat/completions", DOCUMENT["request"].encode()
    with httpx2.Client(transport=transport) as http, http.stream("POST", url, content=body) as got:
        tracemalloc.start()
        try:
            passed = sum(map(len, got.iter_raw()))
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert passed > LENGTH_BYTES
        assert peak_bytes < 4 * 1024 * 1024
        receipt = verified.receipt_of(got)
        assert isinstance(receipt, Receipt)
        with pytest.raises(verified.OtherAnswerError):
            receipt.check()
        assert receipt.result is not None
        (found,) = [step for step in receipt.result.steps if step.title == "response"]
    assert (found.result, found.detail) == (
        "fail", "the response given here has another number of events than was signed",
    )  # fmt: skip


@pytest.mark.usefixtures("asked_as_is")
def test_a_receipt_that_is_proven_stays_so() -> None:
    """What it was checked against is let go of, and is not missed."""
    made = call()
    made.response = response = PassingResponse()
    response.add(b"".join(b'data: {"n":%d}\n\n' % number for number in range(6)))
    made.close()
    fetched = iter([Fetched(status=200, data=FINAL)])
    receipt = Receipt(made, TRUST, Sightings(""), lambda wait_s: next(fetched))
    assert receipt.final().outcome == "pass"
    assert receipt.check() is receipt.final()


@pytest.mark.usefixtures("asked_as_is")
def test_what_passes_after_a_proof_is_not_proven_by_it() -> None:
    """An app may ask before it has read the end; a gateway that knows may go on otherwise."""
    messages = b"".join(b'data: {"n":%d}\n\n' % number for number in range(6))
    for last, proven in ((DONE, True), (b'data: {"n":6}\n\n', False)):
        made = call()
        made.response = PassingResponse()
        made.add(messages)
        receipt = Receipt(made, TRUST, Sightings(""), lambda _: Fetched(status=200, data=FINAL))
        assert receipt.final().outcome == "pass"
        assert receipt.state == "final"
        made.add(last)
        made.close()
        assert receipt.state == "provisional"
        if proven:
            assert receipt.final().outcome == "pass"
        else:
            with pytest.raises(verified.AnswerChangedError):
                receipt.check()
