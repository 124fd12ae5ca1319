"""Reading evidence and key files: bounds, and members of later versions."""

import json

import msgspec
import pytest
from tests.unit.evidence import make_vectors as made

from trunkline.base.errors import MalformedError
from trunkline.evidence import (
    EVIDENCE_BYTES_MAX,
    EvidencePart,
    decode,
    decode_keys,
    encode,
    text,
    verify,
)
from trunkline.evidence.file import KEYS_MAX, PARTS_MAX
from trunkline.evidence.text import DEPTH_MAX


def test_members_of_later_versions_are_ignored() -> None:
    file = made.evidence(made.part(made.receipt()))
    later = json.loads(encode(file)) | {"zeta": [{"anything": None}, 7]}
    assert decode(json.dumps(later).encode()) == file
    report = verify(json.dumps(later).encode(), policy=made.POLICY, trusted_keys=made.KEYS)
    assert report.outcome == "pass"


NESTED = {depth: "[" * depth + "]" * depth for depth in (DEPTH_MAX - 1, DEPTH_MAX, 600, 9_999)}


@pytest.mark.parametrize(
    ("member", "is_read"),
    [
        ('"zeta":-0', True),
        ('"zeta":' + "7" * 5_000, True),
        ('"zeta":"1.5 {[\\\\\\"]} \\ud83d\\ude00"', True),
        (f'"zeta":{NESTED[DEPTH_MAX - 1]}', True),
        (f'"zeta":{NESTED[DEPTH_MAX]}', False),
        (f'"zeta":{NESTED[600]}', False),
        (f'"zeta":{NESTED[9_999]}', False),
        ('"zeta":' + '{"a":' * DEPTH_MAX + "1" + "}" * DEPTH_MAX, False),
        ('"zeta":[[],{},[[],{}]]', True),
        ('"zeta":1.5', False),
        ('"zeta":2.0', False),
        ('"zeta":2e0', False),
        ('"zeta":1E400', False),
        ('"zeta":"\\ud83d"', False),
        ('"\\ude00":1', False),
        ('"zeta":1,"zeta":1', False),
        ('"zeta":[{"a":1,"b":{},"\\u0061":2}]', False),
        ('"zeta":[{"a":1},{"a":1}]', True),
        ('"answer":"ans_1"', False),
        ('"t\\u0079pe":"trunkline.evidence/v1"', False),
    ],
)
def test_what_readers_of_json_differ_about_is_refused(member: str, is_read: bool) -> None:
    data = encode(made.evidence(made.part(made.receipt())))
    said = data[:-1] + f",{member}}}".encode()
    if is_read:
        assert decode(said) == decode(data)
    else:
        with pytest.raises(MalformedError):
            decode(said)


def test_strings_and_values_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(made.evidence(made.part(made.receipt())))
    monkeypatch.setattr(text, "VALUES_MAX", 200)
    for one in ('"\\\\","\\""', "0"):
        assert decode(data[:-1] + f',"zeta":[{one}{f",{one}" * 10}]}}'.encode()) == decode(data)
        with pytest.raises(MalformedError):
            decode(data[:-1] + f',"zeta":[{one}{f",{one}" * 200}]}}'.encode())


@pytest.mark.parametrize("parts", [0, PARTS_MAX + 1])
def test_the_number_of_parts_is_bounded(parts: int) -> None:
    part: EvidencePart = made.part(made.receipt(), final=False)
    with pytest.raises(MalformedError):
        encode(made.evidence(*[part] * parts))


def test_size_and_keys_are_bounded() -> None:
    with pytest.raises(MalformedError, match="exceed"):
        decode(b" " * (EVIDENCE_BYTES_MAX + 1))
    file = made.evidence(made.part(made.receipt(), final=False))
    with pytest.raises(MalformedError):
        encode(msgspec.structs.replace(file, keys=made.KEYS * KEYS_MAX))


def test_text_that_is_not_unicode_is_not_written() -> None:
    file = made.evidence(made.part(made.receipt(), final=False))
    with pytest.raises(MalformedError):
        encode(msgspec.structs.replace(file, answer="\ud800"))


def test_errors_do_not_quote_what_they_read() -> None:
    for data in (b'{"type":"private"}', b'{"private":'):
        with pytest.raises(MalformedError) as caught:
            decode(data)
        assert "private" not in caught.value.message


def test_key_files() -> None:
    data = json.dumps([msgspec.to_builtins(key) for key in made.KEYS]).encode()
    assert decode_keys(data) == made.KEYS
    for bad in (b"", b"{}", b'[{"name":"x"}]', data.replace(b"node", b"boss"), b"[" * 99_999):
        with pytest.raises(MalformedError):
            decode_keys(bad)


def test_a_file_without_a_type_is_refused() -> None:
    file = json.loads(encode(made.evidence(made.part(made.receipt()))))
    del file["type"]
    with pytest.raises(MalformedError):
        decode(json.dumps(file).encode())


def test_a_file_from_before_there_were_salts_still_verifies() -> None:
    file = json.loads(encode(made.evidence(made.part(made.receipt(), kept=made.bodies()))))
    for part in file["parts"]:
        del part["salts"]
    data = json.dumps(file).encode()
    assert verify(data, policy=made.POLICY, trusted_keys=made.KEYS).outcome == "pass"


def test_salts_are_bounded_and_hex() -> None:
    part = made.opened(made.bodies())
    for wrong in ({"x": "00"}, {"x": "G" * 64}, {f"item{n}": "00" * 32 for n in range(33)}):
        with pytest.raises(MalformedError):
            encode(made.evidence(msgspec.structs.replace(part, salts=wrong)))
