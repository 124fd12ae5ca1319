"""Signs each record about audits once, draws, and writes the vectors of the spec.

    python -m tests.unit.verdicts.make_vectors     writes docs/spec/verdict-vectors.json

Everything is a function of counted bytes, so that the same vectors come out every time; a test
holds the file against this script. The keys in it are test keys: never use them for anything else.
"""

import json
from pathlib import Path

import msgspec
from tests.support import audit_records as make

from trunkline.crypto import note
from trunkline.crypto.digest import digest
from trunkline.crypto.signer import Signer, sign_note
from trunkline.tlog.checkpoint import Checkpoint
from trunkline.tlog.policy import Policy
from trunkline.verdicts import (
    CHAIN_ENTRIES,
    Record,
    bound,
    chain_of,
    opinions,
    plain_checkpoint,
)

VECTORS = Path(__file__).parents[3] / "docs" / "spec" / "verdict-vectors.json"
WITNESSES = (make.WITNESS, Signer("witness.example/three", b"\x16" * 32))
POLICY = (
    f"log {make.LOG.vkey}\n"
    f"witness one {WITNESSES[0].cosigner_vkey}\n"
    f"witness three {WITNESSES[1].cosigner_vkey}\n"
    "group both all one three\n"
    "quorum both\n"
)
SIZE = 40
BATCH_COUNT = 8
VERIFIERS = {
    "gamma.example/verifier": "gamma.example",
    "gamma.example/second": "gamma.example",
    "delta.example/verifier": "delta.example",
    "epsilon.example/verifier": "epsilon.example",
}


def checkpoint() -> bytes:
    """As somebody might be given it: lines in another order, and one of a stranger's."""
    text = Checkpoint(origin=make.LOG.name, size=SIZE, root=make.hash32("root")).text()
    stranger = Signer("stranger.example", b"\x17" * 32)
    seen_s = make.NOW_MS // 1000
    lines = [stranger.signature(text), WITNESSES[1].cosignature(text, seen_s)]
    lines += [WITNESSES[0].cosignature(text, seen_s), make.LOG.signature(text)]
    return note.format(text, lines)


def records() -> dict[str, tuple[Record, Signer]]:
    plain = plain_checkpoint(checkpoint(), Policy.parse(POLICY)).decode()
    draw = msgspec.structs.replace(make.draw(), checkpoint=plain, from_=10, to=SIZE)
    draw_note = sign_note(draw.text(), make.VERIFIER).decode()
    verdict = make.verdict()
    drawn = msgspec.structs.replace(
        verdict.drawn, draw=digest(draw_note.encode()), entry=17, index=7
    )
    verdict = msgspec.structs.replace(verdict, drawn=drawn)
    verdict_note = sign_note(verdict.text(), make.VERIFIER)
    asked = msgspec.structs.replace(
        verdict, drawn=msgspec.UNSET, previous=digest(verdict_note).removeprefix("sha256:")
    )
    chained = msgspec.structs.replace(
        draw,
        bound=(bound(make.hash32("chain"), 20, SIZE),),
        next=chain_of(make.hash32("next chain"), 20 + CHAIN_ENTRIES),
    )
    return {
        "self_test": (make.self_test(), make.NODE),
        "draw": (draw, make.VERIFIER),
        "draw_chained": (chained, make.VERIFIER),
        "demand": (make.demand(draw_note), make.VERIFIER),
        "calibration": (make.calibration(), make.VERIFIER),
        "commitment": (make.commitment(verdict_note), make.VERIFIER),
        "verdict": (verdict, make.VERIFIER),
        "verdict_asked_for": (asked, make.VERIFIER),
    }


def draw_vector() -> dict[str, object]:
    draw, _ = records()["draw"]
    chained, _ = records()["draw_chained"]
    assert isinstance(draw, make.Draw)
    assert isinstance(chained, make.Draw)
    leaf = make.hash32("leaf")
    return {
        "checkpoint": checkpoint().decode(),
        "plain": draw.checkpoint,
        "randomness": draw.randomness().hex(),
        "count": BATCH_COUNT,
        "chosen": {
            str(entry): chosen
            for entry in range(SIZE + 1)
            if (chosen := draw.chosen(entry, BATCH_COUNT))
        },
        "chained": {
            "chance": {str(entry): chained.chance(entry).hex() for entry in (20, SIZE - 1)},
            "chosen": {
                str(entry): chosen
                for entry in range(SIZE + 1)
                if (chosen := chained.chosen(entry, BATCH_COUNT))
            },
        },
        "leaf": leaf.hex(),
        "verifiers": VERIFIERS,
        "opinions": {
            name: opinions(draw.randomness(), leaf, VERIFIERS, name, 3) for name in VERIFIERS
        },
    }


def refused() -> list[dict[str, str]]:
    """Texts by the verifier's key that are no verdicts."""
    text = make.verdict().text()
    changes = {
        "type": (b"trunkline.verdict/v1\n", b"trunkline.verdict/v2\n"),
        "no_type": (b',"type":"trunkline.verdict/v1"', b""),
        "order": (b'"samples":12,"tokens":1080', b'"tokens":1080,"samples":12'),
        "space": (b'"alpha":', b'"alpha": '),
        "float": (b'"alpha":"0.001"', b'"alpha":0.001'),
        "null": (b'"previous":""', b'"previous":null'),
        "twice": (b'"alpha":"0.001"', b'"alpha":"0.001","alpha":"0.001"'),
        "decimal": (b'"alpha":"0.001"', b'"alpha":".001"'),
        "escape": (b'"tiny"', b'"\\u0074iny"'),
        "result": (b'"result":"fail","salt"', b'"result":"PASS","salt"'),
        "contradicts_its_check": (b'"result":"fail","salt"', b'"result":"pass","salt"'),
        "two_lines": (b"}\n", b"}\n\n"),
    }
    made = [(name, text.replace(old, new, 1)) for name, (old, new) in changes.items()]
    assert all(changed != text for _, changed in made)
    return [
        {"name": name, "note": sign_note(changed, make.VERIFIER).decode()} for name, changed in made
    ]


def document() -> str:
    """The vectors file's text."""
    signed = [
        {
            "name": name,
            "vkey": str(signer.vkey),
            "note": sign_note(record.text(), signer).decode(),
            "digest": digest(sign_note(record.text(), signer)),
        }
        for name, (record, signer) in records().items()
    ]
    whole = {
        "spec": "docs/spec/verdict.md",
        "policy": POLICY,
        "records": signed,
        "draw": draw_vector(),
        "demanded": {
            "receipts": [msgspec.to_builtins(wanted) for wanted in make.WANTED],
            "node": make.NODE.name,
        },
        "not_a_verdict": refused(),
    }
    return json.dumps(whole, indent=1) + "\n"


if __name__ == "__main__":
    VECTORS.write_text(document())
