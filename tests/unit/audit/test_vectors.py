"""The bundles beside the specification are what the script makes, and lead to what they say."""

import json

import pytest
from tests.unit.audit import make_vectors as made

from trunkline.audit import recompute
from trunkline.base.errors import Error

DOCUMENT = json.loads(made.VECTORS.read_text())
MEASURE = DOCUMENT["calibration"].encode()


def test_the_file_is_what_the_script_makes() -> None:
    assert made.VECTORS.read_text() == made.document(), (
        "run: python -m tests.unit.audit.make_vectors"
    )


@pytest.mark.parametrize("vector", DOCUMENT["bundles"], ids=lambda one: one["name"])
def test_a_bundle_leads_to_its_result(vector: dict[str, str]) -> None:
    found = recompute.numbers(vector["bundle"].encode(), MEASURE)
    assert found.bundle.result == vector["result"]
    assert found.state.standing == vector["standing"]


@pytest.mark.parametrize("vector", DOCUMENT["refused"], ids=lambda one: one["name"])
def test_a_bundle_that_does_not_follow_is_refused(vector: dict[str, str]) -> None:
    with pytest.raises(Error):
        recompute.numbers(vector["bundle"].encode(), MEASURE)
