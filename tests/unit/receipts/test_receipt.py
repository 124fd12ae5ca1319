"""Receipt v1: bytes, bounds, and what is refused."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import get_type_hints

import msgspec
import pytest
import rfc8785

from trunkline.base.errors import MalformedError
from trunkline.crypto.merkle import leaf_hash
from trunkline.receipts import (
    RECEIPT_BYTES_MAX,
    Receipt,
    ReceiptCached,
    decode,
    encode,
    receipt_leaf,
)

Make = Callable[..., Receipt]


def test_bytes_are_those_of_rfc_8785(make_receipt: Make, resumed_receipt: Receipt) -> None:
    for receipt in (make_receipt(), resumed_receipt, make_receipt(operator="é\u2028\x7f\x01 😀/<")):
        data = encode(receipt)
        assert data == rfc8785.dumps(msgspec.to_builtins(receipt))
        assert decode(data) == receipt


def test_every_record_declares_its_fields_in_key_order() -> None:
    pending: list[type] = [Receipt]
    seen = 0
    while pending:
        record = pending.pop()
        names = [field.encode_name for field in msgspec.structs.fields(record)]
        assert names == sorted(names), record.__name__
        assert all(name.isascii() for name in names)
        seen += 1
        for hint in get_type_hints(record).values():
            candidates = (hint, *getattr(hint, "__args__", ()))
            pending += [
                item
                for item in candidates
                if isinstance(item, type) and issubclass(item, msgspec.Struct)
            ]
    assert seen == 10


def test_a_cached_answer_names_its_original(make_receipt: Make) -> None:
    cached = ReceiptCached(ended_ms=1_780_000_000_000, receipt="0f" * 32)
    data = encode(make_receipt(cached=cached))
    assert decode(data).cached == cached
    assert data == rfc8785.dumps(msgspec.json.decode(data))
    assert b'"cached"' not in encode(make_receipt())
    with pytest.raises(MalformedError):
        encode(make_receipt(cached=ReceiptCached(ended_ms=1, receipt="")))


def test_an_unknown_member_is_ignored_and_hashed(make_receipt: Make) -> None:
    data = encode(make_receipt())
    later = data.replace(b',"usage":', b',"unheard":{"a":1},"usage":')
    assert decode(later) == make_receipt()
    assert receipt_leaf(later) != receipt_leaf(data)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data + b" ",
        lambda data: b" " + data,
        lambda data: b"\xef\xbb\xbf" + data,
        lambda data: data.replace(b'"ans_1"', b'"\\u0061ns_1"'),
        lambda data: data.replace(b'"ans_1"', b'"ans_1","answer":"ans_1"'),
        lambda data: data.replace(b'{"answer":"ans_1",', b"{").replace(
            b'"attempt"', b'"attempt":"att_1","answer"', 1
        ),
        lambda data: data.replace(b'"chunks":2', b'"chunks":2.0'),
        lambda data: data.replace(b'"chunks":2', b'"chunks":-2'),
        lambda data: data.replace(b'"chunks":2', b'"chunks":9007199254740992'),
        lambda data: data.replace(b'"chunks":2', b'"chunks":"2"'),
        lambda data: data.replace(b"receipt/v1", b"receipt/v2"),
        lambda data: data.replace(b"receipt/v1", b"verdict/v1"),
        lambda data: data.replace(b'"salt":"5a', b'"salt":"5A'),
        lambda data: data.replace(b"sha256:", b"sha512:"),
        lambda data: data.replace(b',"usage":', b',"unheard":null,"usage":'),
        lambda data: data.replace(b',"usage":', b',"unheard":1.5,"usage":'),
        lambda data: data.replace(b',"usage":', b',"unheard":"\xff","usage":'),
        lambda data: data.replace(
            b',"usage":', b',"unheard":' + b"[" * 99 + b"]" * 99 + b',"usage":'
        ),
        lambda data: data.replace(b',"usage":', b',"unheard":' + b"[" * 99_999 + b',"usage":'),
        lambda data: data[:-1],
    ],
)
def test_other_spellings_are_refused(make_receipt: Make, spoil: Callable[[bytes], bytes]) -> None:
    data = encode(make_receipt())
    spoilt = spoil(data)
    assert spoilt != data
    with pytest.raises(MalformedError):
        decode(spoilt)


@pytest.mark.parametrize(
    "changes",
    [
        {"salt": "5a" * 32 + "\n"},
        {"salt": "short"},
        {"created_s": -1},
        {"created_s": 2**53},
        {"created_s": 2**70},
        {"operator": "\ud800"},
        {"operator": "a" * RECEIPT_BYTES_MAX},
        {"previous": "5A" * 32},
    ],
)
def test_what_can_not_be_read_is_never_written(
    make_receipt: Make, changes: dict[str, object]
) -> None:
    with pytest.raises(MalformedError):
        encode(make_receipt(**changes))


def test_errors_do_not_quote_what_they_read() -> None:
    with pytest.raises(MalformedError) as caught:
        decode(b'{"answer":"very private"')
    assert "private" not in caught.value.message


def test_a_leaf_is_in_its_own_domain(make_receipt: Make) -> None:
    data = encode(make_receipt())
    assert receipt_leaf(data) == leaf_hash(b"trunkline.receipt/v1\n" + data)
    assert receipt_leaf(data) != leaf_hash(data)
    others = (b"trunkline.verdict/v1\n", b"trunkline.statement/v1\n", b"trunkline.batch/v1\n")
    assert all(receipt_leaf(data) != leaf_hash(domain + data) for domain in others)


HEX = "0a" * 32
PLAIN, SALTED = f"sha256:{HEX}", f"salted:{HEX}"
DIGESTS = ("", PLAIN, SALTED)
NUMBERS = ("", "0", "1.5", "1e-7", "12.5e300")
SPELT: dict[str, tuple[str, ...]] = {
    "request.client": DIGESTS[1:],
    "request.digest": DIGESTS[1:],
    "response.digest": DIGESTS[1:],
    "request.prompt": DIGESTS,
    "response.prefix": DIGESTS,
    "response.resumed_digest": DIGESTS,
    "response.tokens": DIGESTS,
    "model.weights": ("", PLAIN),
    "salt": (HEX,),
    "sampling.caller_nonce": (HEX,),
    "previous": ("", HEX),
    "sampling.node_nonce": ("", HEX),
    "sampling.nonces": ("", HEX),
    "sampling.seed": ("", HEX),
    "sampling.min_p": NUMBERS,
    "sampling.temperature": NUMBERS,
    "sampling.top_p": NUMBERS,
}
"""How each member may be written whose type says no more than that it is text."""

WRONG = (
    *DIGESTS, HEX, "1.5", HEX.upper(), HEX[1:], HEX + "0", HEX + "\n", HEX + ",", PLAIN.upper(),
    "sha256:",
    f"{HEX},{HEX}", f"{PLAIN},{PLAIN}", ",", "\uff10" * 64, "-1", "1.", ".5", "1e", "NaN", "1" * 21,
)  # fmt: skip


@pytest.mark.parametrize("member", SPELT)
def test_hex_digests_and_decimals_are_written_in_one_way(make_receipt: Make, member: str) -> None:
    room, _, name = member.rpartition(".")
    sample = make_receipt()

    def holding(value: str) -> Receipt:
        if not room:
            return make_receipt(**{name: value})
        part = msgspec.structs.replace(getattr(sample, room), **{name: value})
        return make_receipt(**{room: part})

    for value in SPELT[member]:
        assert decode(encode(holding(value))) == holding(value)
    for value in (
        set(WRONG) - set(SPELT[member]) - (set(NUMBERS) if "1.5" in SPELT[member] else set())
    ):
        with pytest.raises(MalformedError):
            encode(holding(value))
        with pytest.raises(MalformedError):
            decode(msgspec.json.encode(holding(value)))


def test_no_text_is_free_that_is_hashed_or_hex() -> None:
    """A member that comes with a pattern's alias has to be among those looked at."""
    source = Path(inspect.getfile(Receipt)).read_text()
    aliased = re.findall(
        r"^    (\w+): (?:Optional|Required)?(?:Plain)?(?:Digest|Hex32|Decimal)\b", source, re.M
    )
    assert sorted(aliased) == sorted([member.rpartition(".")[2] for member in SPELT] + ["receipt"])
