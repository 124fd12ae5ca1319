"""One side of an answer, opened to somebody who learns nothing of the other."""

import msgspec
import pytest
from tests.unit.evidence import make_vectors as made

from trunkline.base.errors import VerificationError
from trunkline.evidence import Side, encode, opening, verify
from trunkline.receipts import ITEMS

WHOLE = made.evidence(made.opened(made.bodies(), *ITEMS))
STEPS: dict[Side, tuple[str, str]] = {
    "request": ("pass", "not_applicable"),
    "response": ("not_applicable", "pass"),
}


@pytest.mark.parametrize("only", ["request", "response"])
def test_a_third_party_checks_what_it_was_shown(only: Side) -> None:
    report = verify(encode(opening(WHOLE, only)), policy=made.POLICY, trusted_keys=made.KEYS)
    assert report.outcome == "pass"
    assert (report.steps[5].result, report.steps[6].result) == STEPS[only]


def test_what_is_not_shown_is_not_in_the_file() -> None:
    (request,) = opening(WHOLE, "request").parts
    assert request.bodies is not None
    assert request.bodies.chunks is None
    assert not any(item.startswith("response") for item in request.salts)
    (response,) = opening(WHOLE, "response").parts
    assert response.bodies is not None
    assert (response.bodies.request, response.bodies.client_request) == (None, None)
    assert not any(item.startswith("request") for item in response.salts)


def test_where_bodies_were_not_kept_the_salts_open_them() -> None:
    bare = made.evidence(made.opened(made.bodies(), *ITEMS))
    (part,) = opening(bare, "request").parts
    closed = encode(made.evidence(msgspec.structs.replace(part, bodies=None)))
    for request, expected in ((made.CLIENT_REQUEST, "pass"), (b"{}", "fail")):
        report = verify(closed, policy=made.POLICY, trusted_keys=made.KEYS, request=request)
        assert report.outcome == expected


def test_nothing_chosen_shows_both() -> None:
    assert opening(WHOLE) == WHOLE


def test_a_receipt_that_hides_nothing_is_not_handed_on() -> None:
    plain = made.evidence(made.part(made.receipt(), kept=made.bodies()))
    with pytest.raises(VerificationError, match="not salted"):
        opening(plain, "request")
