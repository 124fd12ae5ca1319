"""``trunkline status`` says of each deployment that is not used fully that it is not, and why."""

import msgspec
import pytest

from trunkline.cli.status import _doubts, _duty, _key, _limits, _unwell
from trunkline.gateway.core.breaker import Fault, State
from trunkline.gateway.core.load import PlaceLoad, QueueLoad, WindowLoad
from trunkline.gateway.routing import RoutingStatus
from trunkline.gateway.sightings import LogSighting
from trunkline.gateway.status import AnswerCounts, ModelStatus, StandingRow, Status
from trunkline.gateway.store import Counts
from trunkline.gateway.verification import VerifierStatus
from trunkline.node.core.keyring import KeyState
from trunkline.schema.audit import VerifierInfo

WELL = ModelStatus(
    name="m", kind="chat", weights=None, numerics=None, breaker=State.CLOSED, fault=None,
    error="", failures=0, resting_ms=0, share_percent=100, running=0, first_token_ms=None,
    gap_limit_ms=None,
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ""),
        (
            {"breaker": State.OPEN, "resting_ms": 29_900, "fault": Fault.AUTH, "error": "e"},
            "not asked for 30 s: its provider refuses the credentials (e)",
        ),
        (
            {"breaker": State.HALF_OPEN, "fault": Fault.REFUSED, "error": "upstream_refused"},
            "one call will show whether it is well again: refused the connection "
            "(upstream_refused)",
        ),
        ({"share_percent": 40}, "came back, gets 40 % of its share of calls for now"),
    ],
)
def test_what_is_the_matter(change: dict[str, object], said: str) -> None:
    assert _unwell(msgspec.structs.replace(WELL, **change)) == said


@pytest.mark.parametrize(
    ("rate_ppm", "waiting", "said"),
    [
        (50_000, 0, "draws 5 % of the answers by chance, and runs them again; 7 verdicts"),
        (
            2_500,
            3,
            "draws 0.25 % of the answers by chance, and runs them again; 7 verdicts, 3 wait",
        ),
        (0, 0, "draws none; 7 verdicts"),
    ],
)
def test_what_a_verifier_does_is_said(rate_ppm: int, waiting: int, said: str) -> None:
    info = VerifierInfo(
        key="k", operator="o", rate_ppm=rate_ppm, models=(), log="l", followed=9, waiting=waiting,
        verdicts=7,
    )  # fmt: skip
    assert _duty(info) == said


def test_a_key_is_shown_by_its_label() -> None:
    ready = KeyState(label="team-a", state="ready", wait_ms=0, running=2)
    assert _key(ready) == "team-a ready"
    resting = KeyState(label="team-b", state="resting", wait_ms=12_400, running=0)
    assert _key(resting) == "team-b resting for 12 s"


def test_a_places_limits_are_said_as_they_are_known() -> None:
    place = PlaceLoad(
        node="n", model="m", running=2, elsewhere=1, places=16, places_stated=False,
        closed_ms=4_200, rate_found=1.5,
        windows=(WindowLoad(unit="input_tokens", window_ms=60_000, limit=900, left=30),),
    )  # fmt: skip
    assert _limits(place) == (
        "3 of 16 places taken (found by trying), 30 of 900 input tokens in 60 s left, "
        "about 1.5 calls a second (found by trying), asked to be left alone for 4 s"
    )


def test_what_evidence_shows_to_be_wrong_is_said() -> None:
    gateway = Status(
        answers=AnswerCounts(
            taken=0, running=0, succeeded=0, survived=0, failed=0, client_gone=0
        ),
        evidence=Counts(provisional=0, final=0),
        log_reachable=True,
        logs=(
            LogSighting(origin="good/log", size=3, split_view=None),
            LogSighting(origin="bad/log", size=3, split_view="bad.json"),
        ),
        routing=RoutingStatus(file="", since_ms=0, problem=""),
        queue=QueueLoad(waiting=0, waiting_bytes=0, places=()),
        nodes=(),
        keys_problem="not readable",
        verifiers=(
            VerifierStatus(
                name="v", operator="o", url="u", reachable=False, error="upstream_refused",
                heard=0, heard_ms=0,
            ),
            VerifierStatus(
                name="lazy", operator="o", url="u", reachable=True, error="", heard=9,
                heard_ms=9, counts=False,
            ),
        ),
        standings=(
            StandingRow(
                node="n", model="m", standing="quarantined", why="it fails", by=("v", "w"),
                verdicts=(), said_ms=0,
            ),
        ),
    )  # fmt: skip
    assert [doubt.plain for doubt in _doubts(gateway)] == [
        "bad/log contradicted itself and is not trusted: bad.json",
        "n, m: quarantined: it fails, by v, w",
        "verifier v: not reachable (upstream_refused)",
        "verifier lazy: does not count: it missed planted answers",
        "virtual keys: not readable",
    ]
