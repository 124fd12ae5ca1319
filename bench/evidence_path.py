"""What evidence costs on an answer's own path: every step at node and gateway, over its floor.

Part of ``bench/evidence.py``. The steps are the product's own functions, in the order in which an
answer's come, over answers that pass every check: from the digests of a request to the claims of
its receipt. Left out is what an answer without evidence takes too, and the disk.

The floor of a step is what nobody can leave out: the hashes and signatures that the specification
asks for over the same bytes, by the libraries that make ours, in a loop of nothing else. It is
measured in turn with the step, so that the machine's moods fall on both: read ratios.
"""

import hmac
import statistics
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple, TypeVar

import msgspec
from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair

from trunkline.crypto.ed25519 import SIGNATURE_BYTES, is_valid
from trunkline.crypto.signer import Signer, sign_note
from trunkline.gateway.core.actions import Plan, Start
from trunkline.gateway.core.check import Seen, check_claims, check_receipt
from trunkline.gateway.core.deadline import Timeouts
from trunkline.gateway.core.route import Deployment
from trunkline.node.core.statement import Identity, Outcome, Sent, bound_request, statement
from trunkline.node.store import encode_signed
from trunkline.receipts import (
    BATCH_RECEIPTS_MAX,
    BatchBuilder,
    Hiding,
    Receipt,
    ReceiptModel,
    ReceiptSampling,
    ReceiptTimes,
    ReceiptUsage,
    SealedBatch,
    StreamDigest,
    bound_bytes,
    decode,
    encode,
    open_batch,
    request_digest,
)
from trunkline.receipts.batch import check_signer, note_bytes, receipt_bytes, verify_path
from trunkline.receipts.tree import batch_tree
from trunkline.schema.attempt import Accepted, Attempt, SignedReceipt

CHUNKS = 20
CHUNK = (
    b'{"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"delta":{"content":" a"}}]}'
)
REQUEST = b'{"model":"tiny-1","messages":[{"role":"user","content":"What is a receipt?"}]}'
PATH_US_MAX = 50.0
ROUNDS = 15
ROUND_S = 0.004
BLINDING = "5a" * 32
BLINDING_KEY = bytes.fromhex(BLINDING)
CREATED_S = 1_780_000_000
OPERATOR = "bench.example"
TIMES = ReceiptTimes(arrived_ms=1, ended_ms=3, first_token_ms=2)

AT_NODE = (
    "node: the receipt, written and read",
    "node: leaves, root and paths",
    "node: the batch's signature",
    "node: what callers are handed",
)
AT_GATEWAY = (
    "gateway: what it was handed",
    "gateway: the receipt, read",
    "gateway: the batch's signature",
    "gateway: leaf and path to the root",
)

_, SECRET = crypto_sign_seed_keypair(bytes(32))
NOTE = crypto_sign(bytes(180), SECRET)
_SIGNED = msgspec.json.Decoder(SignedReceipt)

Work = Callable[[], object]
Name = TypeVar("Name", bound=Hashable)


class Cost(NamedTuple):
    """Of a step, in microseconds of CPU."""

    ours: float
    floor: float


def row(name: str, value: str, note: str = "") -> None:
    print(f"    {name:<46} {value:>12}   {note}".rstrip(), flush=True)


def medians_us(works: Mapping[Name, Work]) -> dict[Name, float]:
    """Microseconds of CPU that each takes: the median of rounds in which each has its turn."""
    times = {}
    for name, work in works.items():
        begun = time.process_time()
        work()
        times[name] = max(1, round(ROUND_S / max(time.process_time() - begun, 1e-6)))
    taken: dict[Name, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            begun = time.process_time()
            for _ in range(times[name]):
                work()
            taken[name].append((time.process_time() - begun) / times[name] * 1e6)
    return {name: statistics.median(found) for name, found in taken.items()}


class Answers:
    """As many answers as share a batch, on their way from question to checked receipt."""

    def __init__(self, signer: Signer, count: int, chunks: int) -> None:
        self.signer = signer
        self.count = count
        self.chunks = chunks
        self.bound = ("", "")
        self.ask()
        self.attempts = [
            Attempt(
                kind="chat", attempt=f"att_{number:024}", answer="ans_1", created_s=CREATED_S,
                model="tiny-1", client_format="openai.chat", client_request_digest=self.bound[0],
                caller_nonce="ca" * 32, deadline_ms=60_000, blinding=BLINDING,
                request=msgspec.Raw(REQUEST),
            )
            for number in range(count)
        ]  # fmt: skip
        self.bind()
        self.sent = [
            Sent(request=self.bound[1], chunks=chunks, digest=digest, times=TIMES)
            for digest in self.stream()
        ]
        self.stated = self.state()
        self.encoded = self.write()
        self.sealed = self.seal()
        self.note = self.sign()
        self.events = self.hand_out()
        self.signed = self.receive()
        self.receipts = self.read()
        self.seen = [
            self._seen(attempt, sent.digest)
            for attempt, sent in zip(self.attempts, self.sent, strict=True)
        ]
        self.check()

    def _seen(self, attempt: Attempt, digest: str) -> Seen:
        node = self.signer.name
        return Seen(
            plan=Plan(
                answer=attempt.answer, kind="chat", model="tiny-1", stream=True, choices=1,
                client_format="openai.chat", client_digest=self.bound[0], created_s=CREATED_S,
                request_digest=self.bound[1], caller_nonce="ca" * 32, mode="batched",
                blinding=BLINDING, deadline_s=60, timeouts=Timeouts(),
            ),
            start=Start(
                number=1, attempt=attempt.attempt, previous=(), first_event=0,
                deployment=Deployment(
                    node=node, operator=OPERATOR, url="", key=self.signer.vkey, model="tiny-1",
                    kind="chat",
                ),
            ),
            accepted=Accepted(
                attempt=attempt.attempt, node=node, operator=OPERATOR, model="tiny-1"
            ),
            stream=digest, chunks=self.chunks, tokens=((),), finish={0: "stop"},
        )  # fmt: skip

    # The steps, in their order.

    def ask(self) -> None:
        """Gateway, as the front door does for each answer."""
        for _ in range(self.count):
            bind = Hiding(BLINDING, answer="ans_1", attempt="").bind
            digest = request_digest(REQUEST)
            self.bound = bind("request.client", digest), bind("request.digest", digest)

    def bind(self) -> list[str]:
        """Node."""
        return [bound_request(attempt) for attempt in self.attempts]

    def stream(self) -> list[str]:
        """Node and gateway, each."""
        digests = []
        for attempt in self.attempts:
            digest = StreamDigest(bound_bytes(self.bound[1]), attempt.attempt)
            for _ in range(self.chunks):
                digest.update(CHUNK)
            digests.append(digest.close())
        return digests

    def state(self) -> list[Receipt]:
        """Node."""
        identity = Identity(node=self.signer.name, operator=OPERATOR, key=str(self.signer.vkey))
        outcome = Outcome(
            model=ReceiptModel(provider="api.example", requested="tiny-1", served="tiny-1"),
            sampling=ReceiptSampling(caller_nonce="ca" * 32, source="none"),
            usage=ReceiptUsage(completion=self.chunks, counted=False, prompt=9),
            finish=("stop",),
        )
        return [
            statement(identity, attempt, outcome, sent, salt=bytes(32))
            for attempt, sent in zip(self.attempts, self.sent, strict=True)
        ]

    def write(self) -> list[bytes]:
        """Node."""
        return [encode(msgspec.structs.replace(one, previous="0d" * 32)) for one in self.stated]

    def seal(self) -> SealedBatch:
        """Node."""
        builder = BatchBuilder(self.signer.name)
        for data in self.encoded:
            builder.add(data)
        return builder.seal(previous=bytes(32), unix_ms=1_780_000_000_000)

    def sign(self) -> bytes:
        """Node."""
        return sign_note(self.sealed.text, self.signer)

    def hand_out(self) -> list[bytes]:
        """Node."""
        return [encode_signed(one) for one in self.sealed.signed(self.note)]

    def receive(self) -> list[SignedReceipt]:
        """Gateway."""
        return [_SIGNED.decode(data) for data in self.events]

    def read(self) -> list[Receipt]:
        """Gateway."""
        return [decode(receipt_bytes(one)) for one in self.signed]

    def open(self) -> None:
        """Gateway, of a batch that it has not seen."""
        open_batch.cache_clear()
        for one in self.signed:
            open_batch(note_bytes(one), self.signer.vkey)

    def climb(self) -> None:
        """Gateway, of a batch that it has not seen."""
        batch_tree.cache_clear()
        batch = open_batch(self.note, self.signer.vkey)
        for data, one in zip(self.encoded, self.signed, strict=True):
            verify_path(data, one, batch)

    def compare(self) -> None:
        """Gateway."""
        for receipt, seen in zip(self.receipts, self.seen, strict=True):
            check_signer(receipt, self.signer.vkey)
            check_claims(receipt, seen)

    def check(self) -> None:
        """Gateway: the four before as it does them."""
        forget()
        for one, seen in zip(self.signed, self.seen, strict=True):
            check_receipt(one, seen)


class Floor:
    """The same hashes and signatures by the libraries, over bytes that lie ready."""

    def __init__(self, answers: Answers) -> None:
        count, chunk = answers.count, bytes(37) + CHUNK
        self._sealed, self._note = answers.sealed.text, crypto_sign(answers.sealed.text, SECRET)
        self._public = SECRET[32:]
        self.request = [REQUEST] * count
        self.salted = [bytes(100)] * count
        self.stream = [bytes(80), *[chunk] * answers.chunks, bytes(41)] * count
        self.leaves = answers.encoded
        self.nodes = [bytes(65)] * (count - 1)

    def salt(self) -> None:
        for data in self.salted:
            sha256(hmac.digest(BLINDING_KEY, data[:50], "sha256") + data).digest()

    def sign(self) -> None:
        crypto_sign(self._sealed, SECRET)

    def verify(self) -> None:
        crypto_sign_open(self._note, self._public)


def hashed(data: Sequence[bytes]) -> Work:
    def work() -> None:
        for one in data:
            sha256(one).digest()

    return work


def together(*works: Work) -> Work:
    def work() -> None:
        for one in works:
            one()

    return work


def check_signature() -> None:
    """One, of a text as long as a batch's."""
    crypto_sign_open(NOTE, SECRET[32:])


def forget() -> None:
    """Nothing is remembered of batches that were seen before."""
    open_batch.cache_clear()
    batch_tree.cache_clear()


def nothing() -> None:
    """No hash and no signature."""


def steps(answers: Answers) -> dict[str, tuple[Work, Work]]:
    """Ours and its floor, of every step of one batch."""
    floor = Floor(answers)
    tree = together(hashed(floor.leaves), hashed(floor.nodes))
    request, stream = hashed(floor.request), hashed(floor.stream)
    return {
        "gateway: the request's digests, salted": (
            answers.ask, together(request, floor.salt, floor.salt),
        ),
        "node: the request's digest, salted": (answers.bind, together(request, floor.salt)),
        "node: the stream's digest": (answers.stream, stream),
        "node: what the receipt says": (answers.state, floor.salt),
        "node: the receipt, written and read": (answers.write, nothing),
        "node: leaves, root and paths": (answers.seal, tree),
        "node: the batch's signature": (answers.sign, floor.sign),
        "node: what callers are handed": (answers.hand_out, nothing),
        "gateway: the stream's digest": (answers.stream, stream),
        "gateway: what it was handed": (answers.receive, nothing),
        "gateway: the receipt, read": (answers.read, nothing),
        "gateway: the batch's signature": (answers.open, floor.verify),
        "gateway: leaf and path to the root": (answers.climb, tree),
        "gateway: every claim beside what it saw": (answers.compare, floor.salt),
    }  # fmt: skip


def measured(answers: Answers) -> dict[str, Cost]:
    """Microseconds an answer, of every step."""
    found = steps(answers)
    works = {(name, part): pair[part] for name, pair in found.items() for part in (0, 1)}
    taken = medians_us(works)
    return {
        name: Cost(taken[name, 0] / answers.count, taken[name, 1] / answers.count) for name in found
    }


def total(costs: Iterable[Cost]) -> Cost:
    ours, floor = zip(*costs, strict=True)
    return Cost(sum(ours), sum(floor))


def show(name: str, batched: Cost, alone: Cost) -> None:
    print(
        f"    {name:<42} {batched.ours:>13.1f} {batched.floor:>7.1f} "
        f"{alone.ours:>9.1f} {alone.floor:>7.1f}",
        flush=True,
    )


def verdict(name: str, cost: Cost) -> None:
    within = "within" if cost.ours <= PATH_US_MAX else "ABOVE"
    row(name, f"{cost.ours:.0f} µs",
        f"{cost.ours / cost.floor:.2f} times the floor of {cost.floor:.0f}; "
        f"design: at most {PATH_US_MAX:.0f}, {within}")  # fmt: skip


def measure() -> tuple[Cost, Cost]:
    """Print the tables. Returns what an answer costs in all, in batches of 64 and alone."""
    signer = Signer.generate("bench.example/node", SECRET[:32])
    batched = Answers(signer, BATCH_RECEIPTS_MAX, CHUNKS)
    many, lone = measured(batched), measured(Answers(signer, 1, CHUNKS))
    print(
        f"CPU of evidence on an answer's path: {CHUNKS} events of {len(CHUNK)} bytes, a receipt of "
        f"{len(batched.encoded[0]):,}\n"
        f"    {'µs an answer':<42} {'batches of 64':>13} {'floor':>7} {'alone':>9} {'floor':>7}"
    )
    for name in many:
        show(name, many[name], lone[name])
    in_all = total(many.values()), total(lone.values())
    show("in all", *in_all)
    verdict("batches of 64, streamed", in_all[0])
    whole = measured(Answers(signer, BATCH_RECEIPTS_MAX, 1))
    verdict("batches of 64, in one event", total(whole.values()))
    verdict("alone, streamed", in_all[1])
    beside_signing_each(signer, batched, many)
    return in_all


def beside_signing_each(signer: Signer, batched: Answers, many: Mapping[str, Cost]) -> None:
    """From record to what callers are handed, and back: with batches, and without."""
    data, note = batched.encoded[0], crypto_sign(batched.encoded[0], SECRET)
    key = signer.vkey
    signature = note[:SIGNATURE_BYTES]
    node, gateway = (
        total(cost for name, cost in many.items() if name in names).ours
        for names in (AT_NODE, AT_GATEWAY)
    )

    def check() -> None:
        key.verify(data, signature)
        decode(data)

    each = medians_us(
        {
            "sign": lambda: signer.sign(encode(batched.receipts[0])),
            "check": check,
            "strict": lambda: is_valid(SECRET[32:], NOTE[SIGNATURE_BYTES:], NOTE[:SIGNATURE_BYTES]),
            "library": check_signature,
        }
    )
    row("a receipt at the node, batches of 64", f"{node:.1f} µs", "design: about 12")
    row("  signed by itself instead, no path", f"{each['sign']:.1f} µs",
        f"{each['sign'] / node:.1f} times")  # fmt: skip
    row("a receipt at the gateway, batches of 64", f"{gateway:.1f} µs")
    row("  checked by itself instead, no path", f"{each['check']:.1f} µs",
        f"{each['check'] / gateway:.1f} times")  # fmt: skip
    row("a signature's check, by docs/spec/ed25519.md", f"{each['strict']:.1f} µs",
        f"{each['strict'] / each['library']:.3f} times the library's own")  # fmt: skip


if __name__ == "__main__":
    measure()
