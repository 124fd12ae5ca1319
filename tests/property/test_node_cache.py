"""The node's cache: keys separate whatever differs, and no order of use leaves its bounds."""

from typing import Final

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.node.harness import attempt, chat

from trunkline.base.errors import RequestError
from trunkline.node.core.cache import (
    AUDITED_S_MAX,
    ENTRIES_MIN,
    Entries,
    Kept,
    cache_key,
    may_keep,
    may_take,
    renamed,
)
from trunkline.node.core.content import Before
from trunkline.node.core.content import Kept as Opening
from trunkline.node.core.statement import Outcome
from trunkline.receipts import ReceiptCached, ReceiptModel, ReceiptSampling, ReceiptUsage
from trunkline.schema.attempt import Accepted, Attempt, Kind, Prefix, PreviousAttempt, Resume

BASE = msgspec.structs.replace(attempt(chat()), cache="5c" * 32)
KINDS: Final[frozenset[Kind]] = frozenset({"chat", "embeddings"})
BYTES_MAX = 65_536
KEEP_S = 10.0

texts = st.text(max_size=4)
identities = st.tuples(texts, st.sampled_from(["chat", "embeddings"]), texts, texts, texts)


def asking(scope: str, kind: str, model: str, request: str) -> Attempt:
    raw = msgspec.Raw(msgspec.json.encode(request))
    return msgspec.structs.replace(BASE, cache=scope, kind=kind, model=model, request=raw)


def key(identity: tuple[str, str, str, str, str]) -> bytes:
    scope, kind, model, request, weights = identity
    return cache_key(asking(scope, kind, model, request), weights)


@given(identities, identities)
def test_keys_are_equal_where_everything_is(
    one: tuple[str, str, str, str, str], other: tuple[str, str, str, str, str]
) -> None:
    assert (key(one) == key(other)) == (one == other)


@given(st.data())
def test_a_request_that_differs_in_one_byte_has_another_key(data: st.DataObject) -> None:
    raw = bytearray(bytes(BASE.request))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    other = msgspec.structs.replace(BASE, request=msgspec.Raw(bytes(raw)))
    assert cache_key(other, "") != cache_key(BASE, "")


def test_what_may_be_audited_has_another_key() -> None:
    assert cache_key(msgspec.structs.replace(BASE, audit=True), "") != cache_key(BASE, "")


@given(texts, st.integers(0, 2**40), st.sampled_from(["att_1", "att_2"]))
def test_what_is_one_attempts_alone_is_in_no_key(nonce: str, created_s: int, name: str) -> None:
    other = msgspec.structs.replace(
        BASE, attempt=name, answer=nonce, created_s=created_s, caller_nonce=nonce, blinding=nonce
    )
    assert cache_key(other, "w") == cache_key(BASE, "w")


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "cache": st.just(""),
            "mode": st.just("private"),
            "resume": st.just(Resume(tokens=((1,),))),
            "prefix": st.just(Prefix(text="a", events=1, id="i", created=1, model="m")),
            "seed": st.just("00" * 32),
            "previous": st.just((PreviousAttempt(attempt="att_0", node="n", error="x"),)),
        },
    )
)
def test_only_a_first_whole_try_is_given_an_answer_again(changes: dict[str, object]) -> None:
    made = msgspec.structs.replace(BASE, **changes)
    assert may_take(made, KINDS) == (not changes)
    assert may_keep(made, KINDS) == (not set(changes) - {"seed", "previous"})
    assert not may_keep(made, KINDS - {"chat"})


def kept(size_bytes: int) -> Kept:
    return Kept(
        accepted=Accepted(attempt="a", node="n", operator="o", model="m"),
        data=(bytes(size_bytes),),
        outcome=Outcome(
            model=ReceiptModel(provider="p", requested="m", served="m"),
            sampling=ReceiptSampling(caller_nonce="00" * 32, source="none"),
            usage=ReceiptUsage(completion=1, counted=False, prompt=1),
        ),
        original=ReceiptCached(ended_ms=size_bytes, receipt="0f" * 32),
    )


uses = st.lists(
    st.tuples(
        st.sampled_from(["get", "put"]),
        st.integers(0, 9).map(lambda number: bytes((number,))),
        st.integers(0, BYTES_MAX // 2),
        st.floats(0, 4, allow_nan=False),
    ),
    max_size=60,
)


@given(uses)
def test_bounds_and_times_hold_in_any_order_of_use(
    steps: list[tuple[str, bytes, int, float]],
) -> None:
    entries = Entries(bytes_max=BYTES_MAX, keep_s=KEEP_S)
    latest: dict[bytes, tuple[Kept, float]] = {}
    now_s = 0.0
    for use, name, size_bytes, passed_s in steps:
        now_s += passed_s
        if use == "put":
            made = kept(size_bytes)
            entries.put(name, made, now_s)
            latest[name] = (made, now_s)
            fits = made.size_bytes <= BYTES_MAX // ENTRIES_MIN
            assert (entries.get(name, now_s) is made) == fits
        else:
            found = entries.get(name, now_s)
            if found is not None:
                made, since_s = latest[name]
                assert found is made
                assert now_s < since_s + KEEP_S
        assert 0 <= entries.size_bytes <= BYTES_MAX
        assert (entries.size_bytes == 0) == (len(entries) == 0)


def test_what_opens_an_answer_takes_room_and_ends_its_time() -> None:
    before = Before(signed=b"r" * 700, content=Opening(b"c" * 300))
    plain, opens = kept(10), msgspec.structs.replace(kept(10), before=before)
    assert opens.size_bytes == plain.size_bytes + 1000
    entries = Entries(bytes_max=BYTES_MAX, keep_s=10 * AUDITED_S_MAX)
    entries.put(b"plain", plain, 0.0)
    entries.put(b"opens", opens, 0.0)
    assert entries.get(b"opens", AUDITED_S_MAX - 1) is opens
    assert entries.get(b"opens", AUDITED_S_MAX) is None
    assert entries.get(b"plain", AUDITED_S_MAX) is plain


def test_what_was_used_longest_ago_goes_first() -> None:
    entries = Entries(bytes_max=BYTES_MAX, keep_s=KEEP_S)
    size_bytes = BYTES_MAX // 4 - 3000
    for name in (b"a", b"b", b"c", b"d"):
        entries.put(name, kept(size_bytes), 0.0)
    assert entries.get(b"a", 1.0) is not None
    entries.put(b"e", kept(size_bytes), 1.0)
    assert entries.get(b"b", 1.0) is None
    assert entries.get(b"a", 1.0) is not None


@given(
    st.dictionaries(
        st.sampled_from(["id", "created", "model", "choices", "x"]), st.integers() | st.text()
    )
)
def test_only_names_and_times_that_were_there_are_changed(chunk: dict[str, object]) -> None:
    changed = msgspec.json.decode(renamed(msgspec.json.encode(chunk), BASE))
    own = {"id": "chatcmpl-one", "created": BASE.created_s}
    assert changed == {name: own.get(name, value) for name, value in chunk.items()}
    assert list(changed) == list(chunk)


@given(st.binary(max_size=40))
def test_what_is_no_chunk_is_refused_by_name(data: bytes) -> None:
    try:
        renamed(data, BASE)
    except RequestError as error:
        assert error.error_code == "invalid_json"
