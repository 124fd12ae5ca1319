"""Receipts: round trips, agreement with another RFC 8785 implementation, and no byte to spare."""

import json
from pathlib import Path
from typing import Any

import msgspec
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from trunkline.base.errors import MalformedError, VerificationError
from trunkline.crypto.canonical import INTEGER_MAX, parse_canonical
from trunkline.crypto.keys import VerifierKey
from trunkline.crypto.signer import Signer, sign_note
from trunkline.receipts import (
    Batch,
    BatchBuilder,
    Receipt,
    ReceiptAttempt,
    ReceiptModel,
    ReceiptPolicy,
    ReceiptRequest,
    ReceiptResponse,
    ReceiptSampling,
    ReceiptTimes,
    ReceiptUsage,
    decode,
    encode,
    verify_signed,
)
from trunkline.receipts.batch import AUDIT_CONTRADICTED
from trunkline.schema.attempt import SignedReceipt

VECTORS = Path(__file__).parents[2] / "docs" / "spec" / "receipt-vectors.json"
BATCH = json.loads(VECTORS.read_text())["batch"]
KEY = VerifierKey.parse(BATCH["vkey"])
SIGNED = SignedReceipt(
    receipt=BATCH["receipts"][1]["receipt"],
    batch=BATCH["note"],
    index=1,
    path=tuple(BATCH["receipts"][1]["path"]),
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
counts = st.integers(0, INTEGER_MAX)
decimals = st.just("") | st.floats(0, 2).map(repr)
hexes = st.binary(min_size=32, max_size=32).map(bytes.hex)
digests = hexes.map("sha256:{}".format)
count_lists = st.lists(counts, max_size=3).map(tuple)

receipts = st.builds(
    Receipt,
    answer=texts,
    attempt=texts,
    created_s=counts,
    key=texts,
    model=st.builds(
        ReceiptModel,
        fingerprint=texts,
        numerics=texts,
        provider=texts,
        requested=texts,
        served=texts,
        weights=st.just("") | digests,
    ),
    node=texts,
    operator=texts,
    policy=st.builds(ReceiptPolicy, mode=st.sampled_from(["private", "batched", "full"])),
    previous=st.just("") | hexes,
    request=st.builds(
        ReceiptRequest,
        client=digests,
        digest=digests,
        format=texts,
        prompt=st.just("") | digests,
    ),
    response=st.builds(
        ReceiptResponse,
        chunks=counts,
        digest=digests,
        finish=st.lists(texts, max_size=3).map(tuple),
        resumed=count_lists,
        resumed_digest=st.just("") | digests,
        status=counts,
        tokens=st.just("") | digests,
    ),
    route=st.lists(
        st.builds(ReceiptAttempt, attempt=texts, error=texts, node=texts, tokens=count_lists),
        max_size=2,
    ).map(tuple),
    salt=hexes,
    sampling=st.builds(
        ReceiptSampling,
        caller_nonce=hexes,
        min_p=decimals,
        node_nonce=st.just("") | hexes,
        seed=st.just("") | hexes,
        source=st.sampled_from(["none", "nonces", "caller", "inherited"]),
        temperature=decimals,
        top_k=counts,
        top_p=decimals,
    ),
    times=st.builds(ReceiptTimes, arrived_ms=counts, ended_ms=counts, first_token_ms=counts),
    type=st.just("trunkline.receipt/v1"),
    usage=st.builds(ReceiptUsage, completion=counts, counted=st.booleans(), prompt=counts),
)

values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-INTEGER_MAX, INTEGER_MAX)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)


def admitted(value: Any) -> bool:
    match value:
        case None | float():
            return False
        case int():
            return abs(value) <= INTEGER_MAX
        case list():
            return all(map(admitted, value))
        case dict():
            return all(key.isascii() for key in value) and all(map(admitted, value.values()))
        case _:
            return True


@given(receipts)
def test_receipts_round_trip_in_rfc_8785_bytes(receipt: Receipt) -> None:
    data = encode(receipt)
    assert decode(data) == receipt
    assert data == rfc8785.dumps(msgspec.to_builtins(receipt))


@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes_are_a_receipt_or_malformed(data: bytes) -> None:
    for read in (decode, Batch.parse, lambda raw: parse_canonical(raw, bytes_max=1000)):
        try:
            read(data)
        except MalformedError:
            continue


@given(values)
def test_the_parser_admits_exactly_the_profile(value: Any) -> None:
    data = rfc8785.dumps(value)
    try:
        assert parse_canonical(data, bytes_max=10_000) == value
    except MalformedError:
        # An integral float is written as an integer, and read back as one.
        assert not admitted(json.loads(data))
    else:
        assert admitted(json.loads(data))


@given(receipts, st.data())
def test_one_value_has_one_spelling(receipt: Receipt, data: st.DataObject) -> None:
    """Whatever one byte of a receipt becomes, it is refused or another receipt."""
    good = encode(receipt)
    at = data.draw(st.integers(0, len(good) - 1))
    bad = good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :]
    try:
        other = decode(bad)
    except MalformedError:
        return
    # A changed key is a missing member: with a default, or unknown and ignored, it may still read.
    assert other != receipt or encode(other) != bad


NODE = Signer.generate("alpha.example/node", bytes([1]) * 32)


def in_one_batch(may: list[bool], audited: int) -> list[SignedReceipt]:
    """Receipts that say whether they may be audited, in a batch that says that ``audited`` may."""
    builder = BatchBuilder(NODE.name)
    made = decode(BATCH["receipts"][0]["receipt"].encode())
    for audit in may:
        policy = ReceiptPolicy(audit=audit, mode="batched")
        builder.add(encode(msgspec.structs.replace(made, policy=policy)))
    sealed = builder.seal(previous=None, unix_ms=0, audited=audited)
    return list(sealed.signed(sign_note(sealed.text, NODE)))


@given(st.integers(0, 64), st.integers(0, 64), st.data())
def test_what_a_batch_says_of_audits_is_what_its_receipts_say(
    first: int, others: int, data: st.DataObject
) -> None:
    """Whatever the mixture: each verifies in its place, and one on the other side of the boundary
    does not, nor does any that the boundary is moved over."""
    count = min(64, first + others) or 1
    audited = min(first, count)
    may = [index < audited for index in range(count)]
    for index, signed in enumerate(in_one_batch(may, audited)):
        found = verify_signed(signed, KEY)
        assert (found.receipt.policy.audit, found.batch.drawable) == (index < audited, audited)
    moved = data.draw(st.integers(0, count - 1))
    otherwise = [*may[:moved], not may[moved], *may[moved + 1 :]]
    assert contradicted(in_one_batch(otherwise, audited)) == [moved]
    bound = data.draw(st.integers(0, count))
    between = range(min(bound, audited), max(bound, audited))
    assert contradicted(in_one_batch(may, bound)) == list(between)


def contradicted(batch: list[SignedReceipt]) -> list[int]:
    """The indices of those that do not verify, for that reason."""
    found = []
    for index, signed in enumerate(batch):
        try:
            verify_signed(signed, KEY)
        except VerificationError as error:
            assert error.error_code == AUDIT_CONTRADICTED
            found.append(index)
    return found


def flip(text: str, at: int, by: int) -> str | None:
    """``text`` with one byte changed, where the result is still text."""
    raw = bytearray(text.encode())
    raw[at % len(raw)] ^= by
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


@given(st.sampled_from(["receipt", "batch", "path0", "path1"]), st.integers(0), st.integers(1, 255))
def test_no_byte_of_a_signed_receipt_can_change(member: str, at: int, by: int) -> None:
    verify_signed(SIGNED, KEY)
    changes: dict[str, object]
    if member.startswith("path"):
        place = int(member[-1])
        path = list(SIGNED.path)
        changed = flip(path[place], at, by)
        path[place] = changed or ""
        changes = {"path": tuple(path)}
    else:
        changed = flip(getattr(SIGNED, member), at, by)
        changes = {member: changed}
    if changed is None:
        return
    spoilt = msgspec.structs.replace(SIGNED, **changes)
    try:
        verify_signed(spoilt, KEY)
    except (MalformedError, VerificationError):
        return
    raise AssertionError("a changed receipt verified")


def test_every_byte_of_every_member_counts() -> None:
    """The same, byte by byte, with the bit that is easiest to overlook: the lowest."""
    for member in ("receipt", "batch"):
        for at in range(len(getattr(SIGNED, member).encode())):
            test_no_byte_of_a_signed_receipt_can_change.hypothesis.inner_test(member, at, 1)  # type: ignore[attr-defined]
