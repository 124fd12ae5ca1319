"""Makes evidence as a node, a log and its witnesses would, and writes the vectors of the spec.

    python -m tests.unit.evidence.make_vectors     writes docs/spec/evidence-vectors.json

Everything is a function of counted bytes, so that the same vectors come out every time; a test
holds the file against this script. The keys in it are test keys: never use them for anything else.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from trunkline.base.errors import SignatureError
from trunkline.crypto import cosigned, merkle, note
from trunkline.crypto.digest import parse_digest
from trunkline.crypto.keys import cosignature_timestamp
from trunkline.crypto.signer import Cosigner, MlDsaCosigner, Signer, sign_note
from trunkline.evidence import (
    Evidence,
    EvidenceBodies,
    EvidenceKey,
    EvidencePart,
    EvidenceVerdict,
    encode,
)
from trunkline.receipts import (
    ITEMS,
    REQUEST_ITEMS,
    BatchBuilder,
    Hiding,
    Item,
    Receipt,
    ReceiptAttempt,
    ReceiptCached,
    ReceiptModel,
    ReceiptPolicy,
    ReceiptRequest,
    ReceiptResponse,
    ReceiptSampling,
    ReceiptTimes,
    ReceiptUsage,
    bound_bytes,
    prefix_digest,
    receipt_leaf,
    request_digest,
    salts,
    stream_digest,
    tokens_digest,
)
from trunkline.receipts import encode as encode_receipt
from trunkline.receipts.key_statement import KeyStatement, Revocation
from trunkline.sampling import answer_seed
from trunkline.schema.attempt import SignedReceipt
from trunkline.tlog import proof as tlog_proof
from trunkline.tlog.checkpoint import Checkpoint
from trunkline.verdicts import Check, StandingEvidence, Subject, Verdict

VECTORS = Path(__file__).parents[3] / "docs" / "spec" / "evidence-vectors.json"


def signer(name: str, number: int) -> Signer:
    return Signer.generate(name, bytes([number]) * 32)


ALPHA = signer("alpha.example/node", 1)
BETA = signer("beta.example/node", 2)
LOG = signer("log.example", 3)
WITNESSES = (signer("one.example/witness", 4), signer("two.example/witness", 5))
OTHER_LOG = signer("other.example/log", 6)
STRONG_SEED = bytes([9]) * 32
STRONG = MlDsaCosigner("pq.example/witness", STRONG_SEED)
"""A witness that signs with ML-DSA-44."""

POLICY = (
    f"log {LOG.vkey}\n"
    f"witness one {WITNESSES[0].cosigner_vkey}\n"
    f"witness two {WITNESSES[1].cosigner_vkey}\n"
    "group both all one two\n"
    "quorum both\n"
)
STRONG_POLICY = (
    f"log {LOG.vkey}\n"
    f"witness one {WITNESSES[0].cosigner_vkey}\n"
    f"witness pq {STRONG.cosigner_vkey}\n"
    "group both all one pq\n"
    "quorum both\n"
)
KEYS = tuple(
    EvidenceKey(name=key.name, vkey=str(key.vkey), role="node", operator=key.name.split("/")[0])
    for key in (ALPHA, BETA)
)

CLIENT_REQUEST = b'{"model":"tiny","messages":[],"stream":true}'
NODE_REQUEST = b'{"messages":[],"model":"tiny-1","stream":true}'
CHUNKS = [b'{"n":%d}' % number for number in range(6)]
SEED = answer_seed(b"\xca" * 32, b"\x0d" * 32, parse_digest(request_digest(NODE_REQUEST))).hex()


def receipt(
    by: Signer = ALPHA, attempt: str = "att_1", chunks: Sequence[bytes] = CHUNKS
) -> Receipt:
    """A receipt of an answer of one part."""
    digest = request_digest(NODE_REQUEST)
    return Receipt(
        answer="ans_1",
        attempt=attempt,
        created_s=1_780_000_000,
        key=str(by.vkey),
        model=ReceiptModel(
            numerics="numerics-1",
            provider="embedded",
            requested="tiny-1",
            served="tiny-1",
            weights="sha256:" + "3e" * 32,
        ),
        node=by.name,
        operator=by.name.split("/")[0],
        policy=ReceiptPolicy(mode="batched"),
        previous="",
        request=ReceiptRequest(
            client=request_digest(CLIENT_REQUEST), digest=digest, format="openai.chat"
        ),
        response=ReceiptResponse(
            chunks=len(chunks),
            digest=stream_digest(parse_digest(digest), attempt, chunks),
            finish=("stop",),
            status=200,
            tokens=tokens_digest([[1, 2, 3, 4, 5]]),
        ),
        route=(),
        salt="5a" * 32,
        sampling=ReceiptSampling(
            caller_nonce="ca" * 32, node_nonce="0d" * 32, seed=SEED, source="nonces"
        ),
        times=ReceiptTimes(arrived_ms=1, ended_ms=3, first_token_ms=2),
        usage=ReceiptUsage(completion=5, counted=True, prompt=1),
    )


OPERATOR = signer("alpha.example", 7)
WITNESSED_S = 1_780_000_002
"""When the witnesses cosign."""


def state(statement: KeyStatement | Revocation, by: Signer = OPERATOR) -> str:
    return sign_note(statement.text(), by).decode()


def key_statement(from_s: int = 1_779_000_000, to_s: int = 1_790_000_000) -> str:
    """Alpha's operator says when alpha's key counts."""
    key = str(ALPHA.vkey)
    return state(KeyStatement(operator=OPERATOR.name, key=key, from_s=from_s, to_s=to_s))


def revocation(from_s: int) -> str:
    return state(Revocation(operator=OPERATOR.name, key=str(ALPHA.vkey), from_s=from_s))


def operator(*statements: str) -> EvidenceKey:
    """Alpha's operator, as a reader pins him or a file states him."""
    return EvidenceKey(
        name=OPERATOR.name,
        vkey=str(OPERATOR.vkey),
        role="operator",
        operator=OPERATOR.name,
        statements=statements,
    )


VERIFIER = signer("gamma.example/verifier", 8)
VERIFIER_KEY = EvidenceKey(
    name=VERIFIER.name, vkey=str(VERIFIER.vkey), role="verifier", operator="gamma.example"
)


def verdict(item: Receipt | None = None, **changes: object) -> Verdict:
    """Gamma's on a receipt of alpha's, which it passes."""
    item = receipt() if item is None else item
    made = Verdict(
        alpha="0.001",
        bundle="sha256:" + "b0" * 32,
        calibration="",
        checks=(Check(detail="5 tokens, as counted", name="usage", result="pass"),),
        evidence=StandingEvidence(detector="0", samples=1, tokens=5, wealth="0.5"),
        key=str(VERIFIER.vkey),
        kind="replay",
        operator="gamma.example",
        previous="",
        receipt=receipt_leaf(encode_receipt(item)).hex(),
        regime="exact",
        result="pass",
        salt="5b" * 32,
        standing="good",
        subject=Subject(
            configuration="temperature=1",
            key=item.key,
            model=item.model.served,
            node=item.node,
            numerics=item.model.numerics,
            operator=item.operator,
            weights=item.model.weights,
        ),
        unix_ms=1_780_000_009_000,
    )
    return msgspec.structs.replace(made, **changes)


def attach(said: Verdict, by: Signer = VERIFIER, **how: Any) -> EvidenceVerdict:
    """A verdict in the log, as an evidence file has it. ``how``: for :func:`prove`."""
    signed = sign_note(said.text(), by).decode()
    return EvidenceVerdict(verdict=signed, proof=prove(signed, before=[b"x"] * 5, **how))


def audited(*verdicts: EvidenceVerdict) -> Evidence:
    """A final answer, and what was said of it."""
    return msgspec.structs.replace(evidence(part(receipt())), verdicts=verdicts)


BLINDING = b"\xb1" * 32


def salted(by: Signer = ALPHA, attempt: str = "att_1") -> Receipt:
    """As :func:`receipt`, where the gateway drew a blinding."""
    plain = receipt(by, attempt)
    bind = Hiding(BLINDING.hex(), answer="ans_1", attempt=attempt).bind
    request = bind("request.digest", plain.request.digest)
    stream = stream_digest(bound_bytes(request), attempt, CHUNKS)
    seed = answer_seed(b"\xca" * 32, b"\x0d" * 32, bound_bytes(request)).hex()
    return msgspec.structs.replace(
        plain,
        request=ReceiptRequest(
            client=bind("request.client", plain.request.client),
            digest=request,
            format="openai.chat",
        ),
        response=msgspec.structs.replace(
            plain.response,
            digest=bind("response.digest", stream),
            tokens=bind("response.tokens", plain.response.tokens),
        ),
        sampling=msgspec.structs.replace(plain.sampling, seed=seed),
    )


def opened(kept: EvidenceBodies, *items: Item) -> EvidencePart:
    """The salted receipt, with what opens ``items``."""
    shown = {item: salt for item, salt in salts(salted(), BLINDING).items() if item in items}
    return msgspec.structs.replace(part(salted(), kept=kept), salts=shown)


def resumed(after: Sequence[ReceiptAttempt] | None = None) -> Receipt:
    """Beta's receipt for going on after three tokens of alpha's."""
    base = receipt(BETA, "att_2", CHUNKS[4:])
    if after is None:
        after = (
            ReceiptAttempt(
                attempt="att_1", error="upstream_truncated", node=ALPHA.name, tokens=(3,)
            ),
        )
    return msgspec.structs.replace(
        base,
        response=msgspec.structs.replace(
            base.response, resumed=(3,), resumed_digest=tokens_digest([[1, 2, 3]])
        ),
        route=tuple(after),
        sampling=ReceiptSampling(caller_nonce="ca" * 32, seed=SEED, source="inherited"),
    )


TEXT = "Rivers carry"
"""What the part before :func:`continued` left behind, by :data:`SHOWN`."""
SHOWN = tuple(
    b'{"choices":[{"index":0,"delta":{"content":"%s"}}]}' % part for part in (b"Rivers ", b"carry")
)


def continued(*, attempt: str = "att_2", text: str = TEXT, **changes: object) -> Receipt:
    """Beta's receipt for going on after text of alpha's, both with providers."""
    base = receipt(BETA, attempt, CHUNKS[4:])
    before = ReceiptAttempt(
        attempt="att_1",
        characters=len(text),
        error="upstream_truncated",
        node=ALPHA.name,
        tokens=(),
    )
    response = msgspec.structs.replace(
        base.response, prefix=prefix_digest(text), prefix_characters=len(text), tokens=""
    )
    return msgspec.structs.replace(
        base,
        model=msgspec.structs.replace(base.model, provider="api.example", numerics="", weights=""),
        response=msgspec.structs.replace(response, **changes),
        route=(before,),
        sampling=ReceiptSampling(caller_nonce="ca" * 32, source="none"),
    )


def sign(
    item: Receipt, by: Signer = ALPHA, others: int = 2, audited: int | None = None
) -> SignedReceipt:
    """The receipt in a batch with ``others``, of which ``audited`` may be."""
    builder = BatchBuilder(by.name)
    for number in range(others):
        builder.add(b"another receipt %d" % number)
    builder.add(encode_receipt(item))
    sealed = builder.seal(previous=None, unix_ms=1_780_000_001_000)
    # What no builder writes too: one that says more than there are.
    said = "" if audited is None else f"{audited}\n"
    batch = sign_note(sealed.text + said.encode(), by)
    return SignedReceipt(
        receipt=encode_receipt(item).decode(),
        batch=batch.decode(),
        index=others,
        path=tuple(b64encode(item).decode() for item in sealed.paths[others]),
    )


def prove(
    batch: str,
    *,
    log: Signer = LOG,
    witnesses: Sequence[Cosigner] = WITNESSES,
    before: Sequence[bytes] = (b"a", b"b"),
    after: Sequence[bytes] = (b"c",),
) -> str:
    """A proof that ``batch`` is in the log, between other entries."""
    leaves = [merkle.leaf_hash(entry) for entry in (*before, batch.encode(), *after)]
    text = Checkpoint(origin=log.name, size=len(leaves), root=merkle.root(leaves)).text()
    lines = (log.signature(text), *(item.cosignature(text, WITNESSED_S) for item in witnesses))
    proof = tlog_proof.Proof(
        index=len(before),
        path=tuple(merkle.audit_path(leaves, len(before))),
        checkpoint_note=note.format(text, lines),
    )
    return tlog_proof.format(proof).decode()


def bodies(chunks: Sequence[bytes] = CHUNKS) -> EvidenceBodies:
    return EvidenceBodies(
        request=NODE_REQUEST,
        client_request=CLIENT_REQUEST,
        chunks=tuple(chunk.decode() for chunk in chunks),
    )


def part(
    item: Receipt, by: Signer = ALPHA, *, final: bool = True, kept: EvidenceBodies | None = None
) -> EvidencePart:
    signed = sign(item, by)
    # Each node's batch is proven in its own, later tree of the log.
    before = (b"a", b"b") if by is ALPHA else (b"a", b"b", b"c")
    proof = prove(signed.batch, before=before) if final else None
    return EvidencePart(signed=signed, proof=proof, bodies=kept)


def evidence(*parts: EvidencePart) -> Evidence:
    return Evidence(answer="ans_1", parts=parts, keys=KEYS, policy=POLICY)


def cached(source: Literal["none", "nonces"] = "none") -> Receipt:
    """Of an answer that its node had given before; with a seed, a contradiction."""
    item = receipt()
    sampling = ReceiptSampling(caller_nonce=item.sampling.caller_nonce, source="none")
    return msgspec.structs.replace(
        item,
        cached=ReceiptCached(ended_ms=1_779_999_999_000, receipt="0f" * 32),
        sampling=sampling if source == "none" else item.sampling,
    )


def two_parts() -> tuple[Receipt, Receipt]:
    """Both parts of an answer whose first node signed what it had sent."""
    first = receipt(chunks=CHUNKS[:4])
    return first, resumed()


def vectors() -> list[dict[str, object]]:
    """Name, file, and what verifying it under the policy and the keys gives."""
    whole, tail = receipt(), resumed()
    cases = {
        "final": (evidence(part(whole)), "pass"),
        "final_with_bodies": (evidence(part(whole, kept=bodies())), "pass"),
        "provisional": (evidence(part(whole, final=False)), "inconclusive"),
        "resumed": (evidence(part(tail, BETA)), "pass"),
        "continued": (evidence(part(continued(), BETA)), "pass"),
        "continued_unbound": (evidence(part(continued(prefix=""), BETA)), "fail"),
        "salted": (evidence(part(salted())), "pass"),
        "salted_opened": (evidence(opened(bodies(), *ITEMS)), "pass"),
        "salted_request_opened": (
            evidence(opened(EvidenceBodies(request=NODE_REQUEST), *REQUEST_ITEMS)),
            "pass",
        ),
        "salted_not_opened": (evidence(opened(bodies(), *REQUEST_ITEMS)), "inconclusive"),
        "salted_wrong_bodies": (evidence(opened(bodies(CHUNKS[::-1]), *ITEMS)), "fail"),
        "wrong_bodies": (evidence(part(whole, kept=bodies(CHUNKS[:5]))), "fail"),
        "wrong_signer": (evidence(part(whole, BETA)), "fail"),
    }
    named: list[dict[str, object]] = [
        {"name": name, "outcome": outcome, "evidence": encode(file).decode()}
        for name, (file, outcome) in cases.items()
    ]
    return [
        *named,
        *operator_vectors(),
        *verdict_vectors(),
        *ml_dsa_vectors(),
        *counted_vectors(),
    ]


def counted_vectors() -> list[dict[str, object]]:
    """The last receipt of a batch of three that says how many of them may be audited."""
    cases = {
        "counted_may_be_audited": (True, 3, "pass"),
        "counted_may_not_be": (False, 2, "pass"),
        "counted_none_may_be": (False, 0, "pass"),
        "counted_and_called_private": (False, 3, "fail"),
        "counted_not_and_audited": (True, 2, "fail"),
        "counted_more_than_there_are": (True, 4, "fail"),
    }
    return [
        {
            "name": name,
            "outcome": outcome,
            "evidence": encode(evidence(counted(may, count))).decode(),
        }
        for name, (may, count, outcome) in cases.items()
    ]


def counted(may: bool, count: int) -> EvidencePart:
    """A receipt that says whether it may be audited, in a batch that says that ``count`` may."""
    policy = ReceiptPolicy(audit=may, mode="batched")
    signed = sign(msgspec.structs.replace(receipt(), policy=policy), audited=count)
    return EvidencePart(signed=signed, proof=prove(signed.batch), bodies=None)


def operator_vectors() -> list[dict[str, object]]:
    """One file, and what its operator said: the reader pins the operator's key alone."""
    said = {
        "operator_in_time": ((key_statement(),), "pass"),
        "operator_no_statement": ((), "inconclusive"),
        "operator_before_the_interval": ((key_statement(from_s=1_780_000_002),), "fail"),
        "operator_logged_after_the_interval": ((key_statement(to_s=WITNESSED_S),), "fail"),
        "operator_revoked_later": ((key_statement(), revocation(WITNESSED_S + 1)), "pass"),
        "operator_revoked_before": ((key_statement(), revocation(WITNESSED_S)), "fail"),
    }
    pinned = [msgspec.to_builtins(operator())]
    whole = evidence(part(receipt()))
    return [
        {
            "name": name,
            "outcome": outcome,
            "trusted_keys": pinned,
            "evidence": encode(
                msgspec.structs.replace(whole, keys=(*KEYS, operator(*notes)))
            ).decode(),
        }
        for name, (notes, outcome) in said.items()
    ]


def verdict_vectors() -> list[dict[str, object]]:
    """One answer, and what a verifier said of it, whom the reader knows in all but one."""
    unlogged = msgspec.structs.replace(attach(verdict()), proof=None)
    said = {
        "verdict_pass": (attach(verdict()), "pass"),
        "verdict_fail": (attach(verdict(result="fail", standing="failed")), "fail"),
        "verdict_inconclusive": (attach(verdict(result="inconclusive")), "pass"),
        "verdict_of_a_failed_node": (attach(verdict(standing="failed")), "inconclusive"),
        "verdict_not_logged": (unlogged, "pass"),
        "verdict_of_another_receipt": (attach(verdict(receipt="0e" * 32)), "fail"),
        "verdict_of_another_signer": (attach(verdict(), ALPHA), "fail"),
    }
    cases = [(name, (*KEYS, VERIFIER_KEY), item, outcome) for name, (item, outcome) in said.items()]
    cases.append(("verdict_of_a_stranger", KEYS, attach(verdict(result="fail")), "pass"))
    return [
        {
            "name": name,
            "outcome": outcome,
            "trusted_keys": [msgspec.to_builtins(key) for key in pinned],
            "evidence": encode(audited(item)).decode(),
        }
        for name, pinned, item, outcome in cases
    ]


class Kept:
    """:data:`STRONG`, signing as it did in the vectors file where that still holds.

    ML-DSA-44 signs the same in another way each time. ``at_s``: when, whatever it is told; 0, which
    Trunkline's own witness never writes, is no time.
    """

    def __init__(self, at_s: int = WITNESSED_S) -> None:
        self._at_s = at_s
        self._key = MLDSA44PrivateKey.from_seed_bytes(STRONG_SEED)
        self._lines = list(self._written())
        self.cosigner_vkey = STRONG.cosigner_vkey
        self.name = STRONG.name

    def skey(self) -> str:
        return STRONG.skey()

    def cosignature(self, text: bytes, timestamp_s: int) -> note.NoteSignature:
        del timestamp_s
        for line in self._lines:
            if cosignature_timestamp(self.cosigner_vkey, line.signature) == self._at_s:
                with suppress(SignatureError):
                    self.cosigner_vkey.verify(text, line.signature)
                    return line
        signed = self._key.sign(cosigned.ml_dsa_44_message(self.name, text, self._at_s))
        line = note.NoteSignature(
            name=self.name,
            key_id=self.cosigner_vkey.key_id,
            signature=self._at_s.to_bytes(8, "big") + signed,
        )
        self._lines.append(line)
        return line

    @staticmethod
    def _written() -> Iterator[note.NoteSignature]:
        for case in json.loads(VECTORS.read_text())["cases"]:
            for item in json.loads(case["evidence"])["parts"]:
                if item["proof"] is not None:
                    kept = note.parse(item["proof"].partition("\n\n")[2].encode())
                    yield from (
                        line for line in kept.signatures if line.is_by(STRONG.cosigner_vkey)
                    )


def flip_last(proof: str) -> str:
    """A proof with a bit flipped in the middle of the last cosignature."""
    head, _, spelled = proof.rstrip("\n").rpartition(" ")
    line = bytearray(b64decode(spelled))
    line[len(line) // 2] ^= 1
    return f"{head} {b64encode(line).decode()}\n"


def wordy(count: int) -> Evidence:
    """An operator's statement after ``count`` texts that are none, each of them there twice."""
    others = [f"{number}\n" for number in range(count)]
    halves = [tuple(others[at : at + 128]) * 2 for at in range(0, count, 128)]
    keys = (*(operator(*texts) for texts in halves), operator(key_statement()))
    whole = part(receipt())
    return msgspec.structs.replace(evidence(whole, whole), keys=keys)


ANY_POLICY = STRONG_POLICY.replace("both all", "both any")


def crowded(lines: Sequence[int]) -> Evidence:
    """A part for each number: a checkpoint of its own with so many cosignatures by
    :data:`STRONG`, a verdict with one, and the first part's checkpoint once more."""
    whole = part(receipt())
    proof = prove(whole.signed.batch, witnesses=(STRONG,))
    head, _, line = proof.rstrip("\n").rpartition("\n")
    proofs = [
        "".join((f"{head}\n", f"{line}\n" * count, f"— stranger{number} YWJjZGVm\n"))
        for number, count in enumerate(lines)
    ]
    parts = [msgspec.structs.replace(whole, proof=one) for one in (*proofs, proofs[0])]
    said = attach(verdict(), witnesses=(STRONG,))
    return msgspec.structs.replace(evidence(*parts), verdicts=(said,))


AS_MANY = (98,) * 10 + (43,)
"""Of :func:`crowded`: with the verdict's all that are checked."""
TOO_MANY = (*AS_MANY, 1, 1)


def ml_dsa_vectors() -> list[dict[str, object]]:
    """One answer under a policy that also needs a witness with ML-DSA-44."""
    whole = part(receipt())
    strong = Kept()
    one, untimed = WITNESSES[0], Kept(at_s=0)

    def proof(*signers: Cosigner) -> str:
        return prove(whole.signed.batch, witnesses=signers)

    pinned = [msgspec.to_builtins(operator())]
    stated = (*KEYS, operator(key_statement()))
    said: dict[str, tuple[str, str, dict[str, object]]] = {
        "ml_dsa_witness": (proof(one, strong), "pass", {}),
        "ml_dsa_witness_in_time": (proof(one, strong), "pass", {"trusted_keys": pinned}),
        "ml_dsa_witness_missing": (proof(one), "inconclusive", {}),
        "ml_dsa_witness_alone": (proof(strong), "inconclusive", {}),
        "ml_dsa_false_cosignature": (flip_last(proof(one, strong)), "fail", {}),
        # 0 is no time: the witness does not say that it had seen no larger tree.
        "ml_dsa_without_time": (proof(one, untimed), "inconclusive", {"trusted_keys": pinned}),
    }
    return [
        {
            "name": name,
            "outcome": outcome,
            "policy": STRONG_POLICY,
            **reader,
            "evidence": encode(
                msgspec.structs.replace(
                    evidence(msgspec.structs.replace(whole, proof=shown)),
                    keys=stated if "trusted_keys" in reader else KEYS,
                    policy=STRONG_POLICY,
                )
            ).decode(),
        }
        for name, (shown, outcome, reader) in said.items()
    ]


def document() -> str:
    """The vectors file's text."""
    keys = [msgspec.to_builtins(key) for key in KEYS]
    return (
        json.dumps(
            {
                "spec": "docs/spec/evidence.md",
                "policy": POLICY,
                "trusted_keys": keys,
                "request": CLIENT_REQUEST.decode(),
                "cases": vectors(),
            },
            indent=1,
        )
        + "\n"
    )


if __name__ == "__main__":
    VECTORS.write_text(document())
