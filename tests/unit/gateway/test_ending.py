"""What the app is told when nobody could answer."""

from trunkline.gateway.core.actions import Failure
from trunkline.gateway.core.ending import final_failure

BUSY = Failure(code="overloaded", message="", retry_after_s=3.0, status=429)
LATE = Failure(code="upstream_stalled", message="", status=504)
DEAD = Failure(code="upstream_refused", message="")
UNFIT = Failure(
    code="unsupported_parameter", message="mirostat: no", status=400, param="mirostat", unfit=True
)


def test_busy_everywhere_is_429_with_the_shortest_time() -> None:
    sooner = Failure(code="overloaded", message="", retry_after_s=2.0, status=429)
    end = final_failure([BUSY, sooner], relayed=False)
    assert (end.status, end.code, end.retry_after_s) == (429, "overloaded", 2.0)


def test_late_everywhere_is_504() -> None:
    assert final_failure([LATE, LATE], relayed=False).status == 504


def test_anything_else_is_503_and_names_the_codes() -> None:
    end = final_failure([LATE, DEAD], relayed=False)
    assert end.status == 503
    assert "upstream_stalled, upstream_refused" in end.message


def test_refused_by_everybody_is_the_refusal() -> None:
    assert final_failure([UNFIT, UNFIT], relayed=False) == UNFIT


def test_refused_by_some_names_the_parameter_and_may_be_tried_again() -> None:
    end = final_failure([UNFIT, DEAD], relayed=False)
    assert (end.status, end.param) == (503, "mirostat")
    assert "mirostat: no" in end.message


def test_after_text_it_is_an_interruption() -> None:
    assert final_failure([BUSY], relayed=True).code == "answer_interrupted"


def test_no_deployment_at_all() -> None:
    assert final_failure([], relayed=False).code == "no_route"
