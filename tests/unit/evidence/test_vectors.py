"""The vectors beside the specification are what the script makes, and verify as they say."""

import json

import msgspec
from tests.unit.evidence import make_vectors as made

from trunkline.evidence import EvidenceKey, answer, decode, encode, verify
from trunkline.sampling import seeds


def test_the_file_is_up_to_date() -> None:
    assert made.VECTORS.read_text() == made.document(), (
        "run: python -m tests.unit.evidence.make_vectors"
    )


def test_every_case_verifies_as_it_says() -> None:
    document = json.loads(made.VECTORS.read_text())
    keys = [EvidenceKey(**key) for key in document["trusted_keys"]]
    assert len(document["cases"]) == 39
    for case in document["cases"]:
        own = [msgspec.convert(key, EvidenceKey) for key in case.get("trusted_keys", ())]
        policy = case.get("policy", document["policy"])
        report = verify(case["evidence"].encode(), policy=policy, trusted_keys=own or keys)
        assert report.outcome == case["outcome"], case["name"]


def test_files_round_trip() -> None:
    for case in json.loads(made.VECTORS.read_text())["cases"]:
        data = case["evidence"].encode()
        assert encode(decode(data)) == data


def test_the_seed_is_derived_as_the_sampling_room_derives_it() -> None:
    assert answer.SEED_DOMAIN == seeds._ANSWER_TAG
    assert answer._seed(made.receipt()) == made.SEED
