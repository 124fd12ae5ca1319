"""What both verifiers are given: the spec's vectors, every kind of damage, and options.

A case is JSON: the evidence and the bodies in base64, the policy and the keys as the module takes
them. ``expected`` is what the Python verifier says of it.
"""

import hashlib
import json
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from tests.browser.shapes import members, replaced
from tests.unit.evidence import make_vectors as made

from trunkline.crypto import ml_dsa, note
from trunkline.crypto.signer import MlDsaCosigner, sign_note
from trunkline.evidence import EvidenceKey, EvidenceVerdict, verify
from trunkline.receipts.receipt import Receipt
from trunkline.verdicts import Drawn, Verdict

REPOSITORY = Path(__file__).resolve().parents[2]
SPEC = REPOSITORY / "docs" / "spec"
ML_DSA = REPOSITORY / "tests" / "conformance" / "vectors" / "ml-dsa-44.json"
DAMAGED = 300
"""Evidence files with one byte changed: enough to reach every step many times over."""

Case = dict[str, Any]

change = msgspec.structs.replace

KNOWN = (*made.KEYS, made.VERIFIER_KEY)


def _short_key() -> str:
    """A vkey that says ML-DSA-44, of an Ed25519 key's length."""
    material = b"\x06" + made.ALPHA.vkey.public
    key_id = hashlib.sha256(b"short.example\n" + material).hexdigest()[:8]
    return f"short.example+{key_id}+{b64encode(material).decode()}"


# Each is refused by the policy reader, but for the last, which is not.
POLICIES = (
    "",
    "quorum nobody\n",
    "quorum none\nquorum none\n",
    f"log {made.LOG.vkey}\nlog {made.LOG.vkey}\nquorum none\n",
    f"log {made.WITNESSES[0].cosigner_vkey}\nquorum none\n",
    f"log {_short_key()}\nquorum none\n",
    f"witness pq {made.STRONG.cosigner_vkey}\nwitness pq2 {made.STRONG.cosigner_vkey}\nquorum pq\n",
    f"witness none {made.WITNESSES[0].cosigner_vkey}\nquorum none\n",
    f"witness one {made.WITNESSES[0].cosigner_vkey}\ngroup two 2 one\nquorum two\n",
    f"witness one {made.WITNESSES[0].cosigner_vkey}\ngroup two 01 one\nquorum two\n",
    f"witness one {made.WITNESSES[0].cosigner_vkey}\ngroup two all one one\nquorum two\n",
    f"log {str(made.LOG.vkey).replace('+', '+0', 1)}\nquorum none\n",
    "quorum none\r\n",
    f"# comment\n\tlog  {made.LOG.vkey} https://log.example/\n\nquorum\tnone",
)


# What later versions may say; and JSON that parsers differ about, wherever it stands.
MEMBERS = (
    '"zeta":[null,-0,true,[[],{}],"1.5 {[\\\\\\"]} \\ud83d\\ude00"]',
    f'"zeta":{"[" * 15}{"]" * 15}',
    f'"zeta":{"[" * 16}{"]" * 16}',
    f'"zeta":{"[" * 3000}{"]" * 3000}',
    '"zeta":1.5',
    '"zeta":[1e3]',
    '"zeta":1E-400',
    '"zeta":"\\ud83d"',
    '"zeta":"\\ude00\\ud83d"',
    '"\\ud83d":1',
    '"zeta":{"a":1,"b":2,"\\u0061":3}',
    '"zeta" :1, "zeta"\t:1',
    '"type":"trunkline.evidence/v1"',
    '"__proto__":{},"constructor":7',
    '"__proto__":{},"__proto__":{}',
)


def all_cases() -> list[Case]:
    return [
        *_vectors(), *_edited(), *_answers(), *_verdicts(), *_ml_dsa(), *_statements(),
        *_unfit_members(), *_mangled(), *_damaged(),
    ]  # fmt: skip


def expected(case: Case) -> dict[str, Any]:
    """Outcome, state, answer and the result of each step, from the Python verifier."""
    report = verify(
        b64decode(case["evidence"]),
        policy=case["policy"],
        trusted_keys=msgspec.convert(case["trusted_keys"], list[EvidenceKey]),
        request=None if case["request"] is None else b64decode(case["request"]),
        response=None if case["response"] is None else b64decode(case["response"]),
    )
    results = [(step.number, step.title, step.result) for step in report.steps]
    return {
        "outcome": report.outcome,
        "state": report.state,
        "answer": report.answer,
        "steps": results,
    }


def summary(report: dict[str, Any]) -> dict[str, Any]:
    """The same of a report from the module. Details are prose, and may differ."""
    steps = [(step["number"], step["title"], step["result"]) for step in report["steps"]]
    return {**report, "steps": steps}


def work() -> dict[str, Any]:
    """What ``run.mjs`` is given."""
    receipts = json.loads((SPEC / "receipt-vectors.json").read_text())
    ed25519 = json.loads((SPEC / "ed25519-vectors.json").read_text())
    return {
        "cases": all_cases(),
        "policies": POLICIES,
        "receipts": receipts,
        "ed25519": ed25519,
        "ml_dsa": ml_dsa_signatures(),
    }


def ml_dsa_signatures() -> list[dict[str, Any]]:
    """ML-DSA-44 signatures, whether Python takes each, and bits by whose flip each is refused."""
    vectors = json.loads(ML_DSA.read_text())
    random = Random(2)  # noqa: S311 -- the same places every time
    items = []
    for item in (*vectors["verify"], *vectors["sign"]):
        values = {name: item[name] for name in ("public", "message", "signature")}
        taken = ml_dsa.is_valid(*(b64decode(value) for value in values.values()))
        items.append({**values, "valid": taken, "flips": []})
    for item in items[-len(vectors["sign"]) :]:
        sizes = {
            name: 8 * len(b64decode(item[name])) for name in ("public", "message", "signature")
        }
        for name, count in (("public", 8), ("message", 4), ("signature", 16)):
            places = (0, sizes[name] - 1, *random.sample(range(sizes[name]), count))
            item["flips"] += [(name, place) for place in places]
        # The last of the challenge, the first and last of z, of the hints and of their counts.
        edges = (32 * 8 - 1, 32 * 8, 2336 * 8 - 1, 2336 * 8, 2416 * 8 - 1, 2416 * 8)
        item["flips"] += [("signature", place) for place in edges]
    return items


def flipped(item: dict[str, Any], name: str, place: int) -> bool:
    """Whether Python takes the signature once bit ``place`` of one of the three is flipped."""
    values = {one: bytearray(b64decode(item[one])) for one in ("public", "message", "signature")}
    values[name][place // 8] ^= 1 << place % 8
    return ml_dsa.is_valid(*(bytes(value) for value in values.values()))


def case(
    name: str,
    evidence: made.Evidence | bytes,
    *,
    policy: str | None = made.POLICY,
    keys: tuple[EvidenceKey, ...] = made.KEYS,
    request: bytes | None = None,
    response: bytes | None = None,
) -> Case:
    data = evidence if isinstance(evidence, bytes) else made.encode(evidence)
    return {
        "name": name,
        "evidence": b64encode(data).decode(),
        "policy": policy,
        "trusted_keys": [msgspec.to_builtins(key) for key in keys],
        "request": None if request is None else b64encode(request).decode(),
        "response": None if response is None else b64encode(response).decode(),
    }


def _vectors() -> Iterator[Case]:
    document = json.loads((SPEC / "evidence-vectors.json").read_text())
    shared = tuple(EvidenceKey(**key) for key in document["trusted_keys"])
    for item in document["cases"]:
        data = item["evidence"].encode()
        own = item.get("trusted_keys")
        keys = shared if own is None else msgspec.convert(own, tuple[EvidenceKey, ...])
        known_policy = item.get("policy", document["policy"])
        for policy in (known_policy, None):
            for pinned in (keys, (), keys[1:]):
                known = "all" if pinned == keys else len(pinned)
                name = f"{item['name']}, policy {policy is not None}, {known} keys"
                yield case(name, data, policy=policy, keys=pinned)
        request = document["request"].encode()
        for name, body in (("request", request), ("other request", request + b" ")):
            yield case(f"{item['name']}, {name}", data, policy=known_policy, request=body)


def _edited() -> Iterator[Case]:
    whole, (first, last) = made.receipt(), made.two_parts()
    part = made.part(whole)
    unproven = made.part(whole, final=False)

    def proven(**how: Any) -> made.Evidence:
        return made.evidence(change(unproven, proof=made.prove(unproven.signed.batch, **how)))

    def pair(one: made.Receipt, two: made.Receipt) -> made.Evidence:
        return made.evidence(made.part(one), made.part(two, made.BETA))

    yield case("two parts", pair(first, last))
    yield case("parts in the wrong order", pair(last, first))
    yield case("another answer", pair(first, change(last, answer="ans_2")))
    yield case("another time", pair(first, change(last, created_s=1)))
    yield case("no route", pair(first, change(last, route=())))
    other = change(last.model, numerics="numerics-2")
    yield case("another model", pair(first, change(last, model=other)))
    none = change(whole.sampling, source="none")
    yield case("a seed from nowhere", made.evidence(made.part(change(whole, sampling=none))))
    bare = change(whole.sampling, node_nonce="00" * 32)
    yield case("a seed of other nonces", made.evidence(made.part(change(whole, sampling=bare))))
    foreign = change(whole, operator="é\u2028 \x7f\x01😀/<")
    yield case("text of any kind", made.evidence(made.part(foreign)))
    yield case("another log", proven(log=made.OTHER_LOG))
    yield case("one witness", proven(witnesses=made.WITNESSES[:1]))
    any_one = made.POLICY.replace("both all", "both any")
    yield case("any witness", proven(witnesses=made.WITNESSES[:1]), policy=any_one)
    no_quorum = f"log {made.LOG.vkey}\nquorum none\n"
    yield case("no witnesses asked for", proven(witnesses=()), policy=no_quorum)
    yield case("a big tree", proven(before=[b"%d" % n for n in range(300)], after=[b"z"] * 21))
    stranger = f"— {'u' * 300} YWJjZGVm\n"
    witnessed = change(part, proof=f"{part.proof}{stranger}")
    yield case("an unknown key of a long name", made.evidence(witnessed))
    fork = made.part(last, made.BETA)
    fork = change(fork, proof=made.prove(fork.signed.batch, before=(b"x", b"y")))
    yield case("a fork", made.evidence(made.part(first), fork))
    for index in (0, 3, -1):
        moved = change(part, signed=change(part.signed, index=index))
        yield case(f"index {index}", made.evidence(moved))
    for proof in (
        "",
        "c2sp.org/tlog-proof@v1\nindex 1\n\n",
        (part.proof or "").replace(" 2", " 7"),
    ):
        yield case("another proof", made.evidence(change(part, proof=proof)))
    for spelled in (" ", "\n"):
        signed = change(part.signed, receipt=part.signed.receipt + spelled)
        yield case("a receipt spelled otherwise", made.evidence(change(part, signed=signed)))
    untyped = part.signed.receipt.replace('"type":"trunkline.receipt/v1",', "")
    signed = change(part.signed, receipt=untyped)
    yield case("a receipt without its type", made.evidence(change(part, signed=signed)))
    wrong = (change(made.KEYS[0], operator="mallory.example"),)
    yield case("another operator", made.evidence(part), keys=wrong)
    yield case("another operator in the file", change(made.evidence(part), keys=wrong))
    yield case("no policy at all", change(made.evidence(part), policy=None), policy=None)
    yield case("a bad policy", change(made.evidence(part), policy="quorum x\n"), policy=None)
    whole_file = made.encode(made.evidence(part))
    for member in MEMBERS:
        yield case(f"with {member[:30]}", whole_file[:-1] + f",{member}}}".encode())
    for number in ("2.0", "2e0", "0.2e1", "-0"):
        spelled = whole_file.replace(b'"index":', f'"index":{number},"x":'.encode())
        yield case(f"an index spelled {number}", spelled)
    for data in (b"", b"{}", b"[]", b"\xff", b"null", b'{"type":1}', b"\xef\xbb\xbf{}"):
        yield case("no evidence", data)


def _ml_dsa() -> Iterator[Case]:
    """Evidence cosigned with Ed25519 and with ML-DSA-44, and with the latter changed."""
    part, one, strong = made.part(made.receipt()), made.WITNESSES[0], made.STRONG
    file = made.evidence(part)

    def proven(proof: str) -> made.Evidence:
        return change(file, parts=(change(part, proof=proof),))

    any_one = made.ANY_POLICY
    whole = made.prove(part.signed.batch, witnesses=(one, strong))
    for policy in (made.STRONG_POLICY, any_one):
        for signers in ((one, strong), (strong, one), (strong,), (one,), ()):
            proof = made.prove(part.signed.batch, witnesses=signers)
            names = ", ".join(signer.name for signer in signers)
            yield case(f"cosigned by {names}", proven(proof), policy=policy)
        yield case("untrue", proven(made.flip_last(whole)), policy=policy)
    head, _, spelled = whole.rstrip("\n").rpartition(" ")
    line = b64decode(spelled)
    changed = [line[:-1], line + b"\0", line[: 4 + 72], line[:4] + b"\xff" * 8 + line[12:]]
    changed += [line[:4] + bytes(8) + line[12:], line[:4] + bytes(len(line) - 4), line[:4] + b"\0"]
    random = Random(3)  # noqa: S311 -- the same places every time
    for place in (0, 32, 95, *random.sample(range(96, 8 * len(line)), 24)):
        data = bytearray(line)
        data[place // 8] ^= 1 << place % 8
        changed.append(bytes(data))
    for number, data in enumerate(changed):
        proof = f"{head} {b64encode(data).decode()}\n"
        yield case(f"line {number} by ML-DSA-44", proven(proof), policy=made.STRONG_POLICY)
    said = whole.rstrip("\n").rpartition("\n")[2]
    yield case("the line twice", proven(f"{whole}{said}\n"), policy=made.STRONG_POLICY)
    renamed = whole.replace("pq.example/witness", "qp.example/witness")
    yield case("by another name", proven(renamed), policy=made.STRONG_POLICY)
    yield case("as many as are checked", made.crowded(made.AS_MANY), policy=any_one, keys=KNOWN)
    yield case("more than are checked", made.crowded(made.TOO_MANY), policy=any_one, keys=KNOWN)
    yield from _ml_dsa_keys(part)


def _statements() -> Iterator[Case]:
    """The operator's word, among as much that is none as is looked at, and more."""
    pinned = (made.operator(), made.KEYS[1])
    for count in (4095, 4096):
        yield case(f"after {count} statements", made.wordy(count), keys=pinned)


def _ml_dsa_keys(part: made.EvidencePart) -> Iterator[Case]:
    """ML-DSA-44 keys of a log, and where only Ed25519 keys count."""
    strong = MlDsaCosigner(made.LOG.name, b"\x32" * 32)
    head, _, signed = (part.proof or "").partition("\n\n")
    text, _, _ = signed.partition("\n\n")
    policy = f"log {strong.cosigner_vkey}\nquorum none\n"
    for number, extension in enumerate(("", "extension\n")):
        # An extension line is not among what is signed; the size is.
        line = strong.cosignature(f"{text}\n".encode(), 1).line().decode()
        proof = f"{head}\n\n{text}\n{extension}\n{line}"
        for name, shown in (("", proof), (", another size", proof.replace("\n4\n", "\n5\n"))):
            file = made.evidence(change(part, proof=shown))
            yield case(f"a log with ML-DSA-44 {number}{name}", file, policy=policy)
    operator = MlDsaCosigner(made.OPERATOR.name, b"\x33" * 32).cosigner_vkey
    stated = note.parse(made.key_statement().encode())
    line = note.NoteSignature(name=operator.name, key_id=operator.key_id, signature=bytes(2428))
    statement = note.format(stated.text, (line,)).decode()
    pinned = change(made.operator(statement), vkey=str(operator))
    yield case("an operator with ML-DSA-44", made.evidence(part), keys=(pinned,))
    node = change(made.KEYS[0], vkey=str(operator))
    yield case("a node with ML-DSA-44", made.evidence(part), keys=(node,))


def _answers() -> Iterator[Case]:
    whole, tail = made.evidence(made.part(made.receipt())), made.part(made.resumed(), made.BETA)
    stream = b"".join(b"data: %s\n\n" % chunk for chunk in made.CHUNKS)
    saved = (
        stream + b"data: [DONE]\n\n",
        stream.replace(b"\n", b"\r\n") + b"data: [DONE]\n",
        b"\xef\xbb\xbf: comment\n\n" + stream,
        stream[:-1],
        stream[:-2],
        stream + b": comment\n",
        stream + b"id: 7\n\nevent: named\ndata: x\n\n",
        stream.replace(b"data: ", b"data:").replace(b"\n", b"\r"),
        stream.replace(b'"n":5', b'"n":6'),
        b"\xff" + stream,
        b'{"n":0}\n',
        b"",
        stream + b"data: [DONE]\n\ndata: [DONE]\n\n",
        stream.replace(b"data: ", b"data: [DONE]\n\ndata: ", 1),
        stream + b"event: named\n\n",
        stream + b"event: named\ndata: [DONE]\n",
        *(stream + last for last in (b"event:\n", b"event: x\nevent:\n", b"id: \0\n", b"id:\n")),
    )
    for number, response in enumerate(saved):
        yield case(f"response {number}", whole, response=response)
    yield case("response of a takeover", made.evidence(tail), response=saved[0])
    after = made.evidence(made.part(made.continued(), made.BETA))
    rest = stream[stream.index(made.CHUNKS[4]) - len(b"data: ") :]
    for shown in (made.SHOWN, made.SHOWN[:1], (b"{}", b'{"choices":7}'), (b"\xff", b"{}"), ()):
        before = b"".join(b"data: %s\n\n" % chunk for chunk in shown)
        yield case("response gone on with", after, response=before + rest)
    for response in (
        {"prefix": ""},
        {"prefix_characters": 0},
        {"prefix_characters": 11},
        {"finish": ("stop", "stop")},
        {"resumed": (3,), "resumed_digest": "sha256:" + "ab" * 32},
    ):
        wrong = made.part(made.continued(**response), made.BETA)  # type: ignore[arg-type]
        yield case("a part gone on with", made.evidence(wrong))
    one = made.evidence(made.part(made.receipt(chunks=[b'{"choices":[]}'])))
    yield case("a whole object", one, response=b'{"choices":[]}\r\n')
    kept = made.evidence(made.part(made.receipt(), kept=made.bodies(made.CHUNKS[:2])))
    yield case("kept bodies and a response", kept, response=saved[0])
    for source in ("none", "nonces"):
        item = made.cached(source)
        yield case(f"a cached answer, seed from {source}", made.evidence(made.part(item)))
    for name in ("anthropic.messages", "openai.responses"):
        item = made.receipt()
        item = change(item, request=change(item.request, format=name))
        translated = made.evidence(made.part(item))
        yield case(f"an answer translated to {name}", translated, response=saved[0])


def _verdicts() -> Iterator[Case]:
    yield from _verdict_members()
    yield from _verdict_texts()
    whole = made.attach(made.verdict())
    other_proofs = (
        made.attach(made.verdict(salt="00" * 32)),
        made.attach(made.verdict(), log=made.OTHER_LOG),
        made.attach(made.verdict(), witnesses=made.WITNESSES[:1]),
    )
    for number, proof in enumerate((None, "", "no proof", *(one.proof for one in other_proofs))):
        yield case(f"verdict proof {number}", made.audited(change(whole, proof=proof)), keys=KNOWN)
    failing = made.attach(made.verdict(result="fail"))
    unclear = made.attach(made.verdict(result="inconclusive"))
    several = ((whole, failing), (whole, unclear), (unclear, failing), (whole, whole), ())
    for number, items in enumerate(several):
        yield case(f"verdicts {number}", made.audited(*items), keys=KNOWN)
    other = change(made.VERIFIER_KEY, operator="mallory.example")
    yield case("verdict of another operator", made.audited(whole), keys=(*made.KEYS, other))
    no_policy = change(made.audited(whole), policy=None)
    yield case("verdict without a policy", no_policy, policy=None, keys=KNOWN)
    unread = made.part(made.receipt())
    unread = change(unread, signed=change(unread.signed, receipt="{}"))
    file = change(made.evidence(unread), verdicts=(whole,))
    yield case("verdict without a receipt", file, keys=KNOWN)
    for raw in (b"null", b"{}", b"[1]", b'[{"verdict":1}]', b'[{"proof":null}]'):
        data = made.encode(made.evidence(made.part(made.receipt())))
        yield case(f"verdicts are {raw.decode()}", data[:-1] + b',"verdicts":' + raw + b"}")


def _mangled() -> Iterator[Case]:
    """Each text in a file with one of its lines gone, there twice, moved, or ended otherwise."""
    whole = made.encode(made.audited(made.attach(made.verdict())))
    file = json.loads(whole)
    (part,), (verdict,) = file["parts"], file["verdicts"]
    for holder, name in (
        (part["signed"], "receipt"),
        (part["signed"], "batch"),
        (part, "proof"),
        (file, "policy"),
        (verdict, "verdict"),
        (verdict, "proof"),
    ):
        kept: str = holder[name]
        lines = kept.split("\n")
        for at, line in enumerate(lines):
            before, after = lines[:at], lines[at + 1 :]
            for how, changed in (
                ("gone", [*before, *after]),
                ("twice", [*before, line, *lines[at:]]),
                ("moved", [*before, *after[:1], line, *after[1:]]),
                ("ended by CRLF", [*before, line + "\r", *after]),
                ("with a space", [*before, line + " ", *after]),
            ):
                holder[name] = "\n".join(changed)
                data = json.dumps(file, ensure_ascii=False).encode()
                title = f"line {at} of the {name} {how}"
                # The file's own policy is read where the reader has none.
                yield case(
                    title, data, keys=KNOWN, policy=None if name == "policy" else made.POLICY
                )
        holder[name] = kept


def _unfit_members() -> Iterator[Case]:
    """Each member of each record with a value that is none of its kind."""
    whole = made.part(made.receipt(), kept=made.bodies())
    held = json.loads(whole.signed.receipt)
    for name, item in _unfit(Receipt, held):
        signed = change(whole.signed, receipt=_canonical(item))
        yield case(f"a receipt's {name}", made.evidence(change(whole, signed=signed)))
    head, _, line = made.verdict().text().decode().partition("\n")
    for name, item in _unfit(Verdict, json.loads(line)):
        signed_note = sign_note(f"{head}\n{_canonical(item)}\n".encode(), made.VERIFIER).decode()
        file = made.audited(EvidenceVerdict(verdict=signed_note, proof=None))
        yield case(f"a verdict's {name}", file, keys=KNOWN)
    file = json.loads(made.encode(change(made.evidence(whole), verdicts=())))
    for name, item in _unfit(made.Evidence, file):
        yield case(f"a file's {name}", _canonical(item).encode())


def _unfit(kind: type[msgspec.Struct], record: object) -> Iterator[tuple[str, object]]:
    for path in members(kind):
        for value in (-1, "?", "1e-05", {"zeta": [True]}):
            yield f"{'.'.join(path)} is {value}", replaced(record, path, value)


def _canonical(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _verdict_members() -> Iterator[Case]:
    """Verdicts of any kind, each for a reader who knows the verifier and for one who does not."""
    subject = made.verdict().subject
    drawn = Drawn(by=str(made.VERIFIER.vkey), draw="sha256:" + "d0" * 32, entry=7, index=63)
    changes: tuple[dict[str, Any], ...] = (
        {},
        {"drawn": drawn},
        {"subject": change(subject, configuration="é" * 512, numerics="", weights="")},
        {"subject": change(subject, key=str(made.BETA.vkey))},
        *({"result": result} for result in ("fail", "inconclusive", "not_applicable")),
        *({"standing": standing} for standing in ("open", "failed")),
        {"alpha": "1e-300", "calibration": "sha256:" + "0c" * 32, "previous": "0f" * 32},
        {"receipt": "0e" * 32},
        {"unix_ms": 2**53 - 1},
        {"operator": "\u2028é😀"},
    )
    for number, one in enumerate(changes):
        for pinned in (KNOWN, made.KEYS):
            file = made.audited(made.attach(made.verdict(**one)))
            yield case(f"verdict {number}, {len(pinned)} keys", file, keys=pinned)


def _verdict_texts() -> Iterator[Case]:
    """Notes that are no verdicts, or not spelled as one, or not signed as one; all in the log."""
    text = made.verdict().text()
    head, line, _ = text.split(b"\n")
    later = head + b"\n" + msgspec.json.encode(json.loads(line) | {"zeta": [{}]}) + b"\n"
    alphas = (b'"00.1"', b'""', b'"1e+5"', b"1", b'".5"', b'"1.0e05"', b'"1e99999"', b'"1e999"')
    texts = (
        head + b"\n{}\n",
        later,
        *(text.replace(b'"0.001"', alpha) for alpha in alphas),
        text.replace(b'"pass"', b'"fail"', 1),
        text.replace(b'"unix_ms":1', b'"unix_ms":-1'),
    )
    twice = [signer.signature(text) for signer in (made.VERIFIER, made.ALPHA)]
    notes = (
        *(sign_note(one, made.VERIFIER) for one in texts),
        sign_note(text, made.ALPHA),
        note.format(text, twice),
        made.part(made.receipt()).signed.batch.encode(),
        b"no note",
    )
    for number, data in enumerate(notes):
        item = EvidenceVerdict(verdict=data.decode(), proof=made.prove(data.decode()))
        yield case(f"verdict text {number}", made.audited(item), keys=KNOWN)


def _damaged() -> Iterator[Case]:
    """One character replaced, anywhere in a file that has everything."""
    whole = made.evidence(made.part(made.receipt(), kept=made.bodies()))
    data = made.encode(change(whole, verdicts=(made.attach(made.verdict()),)))
    random = Random(1)  # noqa: S311 -- the same places every time
    for _ in range(DAMAGED):
        at, byte = random.randrange(len(data)), random.choice(b'A0 "+\n/=}x\x80')
        damaged = data[:at] + bytes([byte]) + data[at + 1 :]
        yield case(f"byte {at} is {byte}", damaged, keys=KNOWN)
