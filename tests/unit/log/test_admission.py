"""What may become an entry."""

import pytest
from tests.support import audit_records as records
from tests.support import planting

from trunkline.base.errors import RequestError
from trunkline.crypto.signer import Signer, sign_note
from trunkline.log.config import ENTRY_TYPES, LogConfig
from trunkline.log.core.admission import admit

NODE = Signer.generate("alpha.example/node", b"\x03" * 32)
OTHER = Signer.generate("beta.example/node", b"\x04" * 32)
TYPES = ("trunkline.batch/v1",)
ENTRY = sign_note(b"trunkline.batch/v1\nbody\n", NODE)


def refusal(entry, submitters=()):
    with pytest.raises(RequestError) as caught:
        admit(entry, types=TYPES, submitters=submitters)
    return caught.value.http_status, caught.value.error_code


def test_a_signed_note_of_a_known_type_is_taken():
    admit(ENTRY, types=TYPES, submitters=())
    admit(ENTRY, types=TYPES, submitters=(OTHER.vkey, NODE.vkey))


def test_what_verifiers_and_nodes_say_of_audits_is_taken_as_it_comes():
    types = LogConfig(origin="log.example").entry_types
    verdict = records.signed(records.verdict())
    for entry in (
        verdict,
        records.signed(records.commitment(verdict)),
        records.signed(records.draw()),
        records.signed(records.calibration()),
        records.signed(records.self_test(), records.NODE),
    ):
        admit(entry, types=types, submitters=())
    # A demand is between a verifier and a node.
    with pytest.raises(RequestError):
        admit(records.signed(records.demand()), types=types, submitters=())


@pytest.mark.parametrize("later", [1, 2])
def test_a_log_from_before_a_type_takes_it_and_one_that_takes_less_does_not(later: int):
    added = ("trunkline.plant-opening/v1", "trunkline.terms/v1")[:later]
    said = records.signed(records.terms(), records.NODE)
    before = tuple(kind for kind in ENTRY_TYPES if kind not in added)
    for types in (before, before[::-1], ENTRY_TYPES):
        config = LogConfig(origin="log.example", entry_types=types)
        admit(said, types=config.types_taken, submitters=())
        admit(records.signed(planting.OPENED), types=config.types_taken, submitters=())
    said = records.signed(planting.OPENED)
    fewer = LogConfig(origin="log.example", entry_types=before[1:])
    assert fewer.types_taken == before[1:]
    with pytest.raises(RequestError):
        admit(said, types=fewer.types_taken, submitters=())


def test_what_is_not_taken():
    assert refusal(b"") == (400, "entry_malformed")
    assert refusal(b"trunkline.batch/v1\nbody\n") == (400, "entry_malformed")
    assert refusal(sign_note(b"trunkline.batch/v2\nbody\n", NODE)) == (400, "entry_type_unknown")
    assert refusal(sign_note(b"trunkline.batch/v1x\n", NODE)) == (400, "entry_type_unknown")
    assert refusal(bytes(65_536)) == (413, "entry_too_large")
    assert refusal(ENTRY, (OTHER.vkey,)) == (403, "entry_not_authorized")
    forged = ENTRY.replace(b"body", b"Body")
    admit(forged, types=TYPES, submitters=())
    assert refusal(forged, (NODE.vkey,)) == (403, "entry_not_authorized")
