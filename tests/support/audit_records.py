"""Signed records about audits, as tests need them: valid, with keys from a fixed seed."""

import hashlib
from collections.abc import Mapping
from functools import cache

import msgspec
from msgspec import UNSET

from trunkline.crypto import note
from trunkline.crypto.digest import digest
from trunkline.crypto.signer import MlDsaCosigner, Signer, sign_note
from trunkline.schema.audit import WantedReceipt
from trunkline.tlog.checkpoint import Checkpoint
from trunkline.tlog.policy import Policy
from trunkline.verdicts import (
    Calibration,
    Chain,
    Check,
    Commitment,
    Demand,
    Draw,
    Drawn,
    Record,
    SelfTest,
    StandingEvidence,
    Subject,
    Terms,
    Verdict,
    bound,
    demanded_digest,
    plain_checkpoint,
    range_end,
)

NOW_MS = 1_780_000_000_000
LOG = Signer("log.example", b"\x10" * 32)
WITNESS = Signer("witness.example/one", b"\x11" * 32)
WITNESS_TWO = MlDsaCosigner("witness.example/two", b"\x12" * 32)
NODE = Signer("alpha.example/node", b"\x13" * 32)
VERIFIER = Signer("gamma.example/verifier", b"\x14" * 32)
OTHER = Signer("delta.example/verifier", b"\x15" * 32)

POLICY = Policy.parse(
    f"log {LOG.vkey}\nwitness one {WITNESS.cosigner_vkey}\n"
    f"witness two {WITNESS_TWO.cosigner_vkey}\ngroup both 2 one two\nquorum both\n"
)


def hash32(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def digest_of(name: str) -> str:
    return digest(name.encode())


@cache  # ML-DSA-44 signs the same in another way each time.
def checkpoint_note(size: int, *, at_s: int = NOW_MS // 1000, log: Signer = LOG) -> bytes:
    """A checkpoint by the log that both witnesses cosigned, the second one first."""
    tree = Checkpoint(origin=log.vkey.name, size=size, root=hash32(f"root {size}"))
    text = tree.text()
    lines = [
        WITNESS_TWO.cosignature(text, at_s),
        log.signature(text),
        WITNESS.cosignature(text, at_s),
    ]
    return note.format(text, lines)


def draw(
    from_: int = 0,
    size: int = 1000,
    *,
    rate_ppm: int = 50_000,
    at_s: int = NOW_MS // 1000,
    seeds: Mapping[int, bytes] | None = None,
    announced: Chain | None = None,
) -> Draw:
    """``seeds``: of the chains that it is drawn by, by their first entries."""
    to = range_end(from_, size)
    return Draw(
        bound=tuple(bound(seed, first, to) for first, seed in seeds.items()) if seeds else UNSET,
        next=announced or UNSET,
        checkpoint=plain_checkpoint(checkpoint_note(size, at_s=at_s), POLICY).decode(),
        from_=from_,
        key=str(VERIFIER.vkey),
        operator="gamma.example",
        rate_ppm=rate_ppm,
        to=to,
        unix_ms=at_s * 1000,
    )


def self_test(signer: Signer = NODE) -> SelfTest:
    return SelfTest(
        bits=digest_of("bits"),
        cpu="a processor",
        engine="an engine 1.2",
        key=str(signer.vkey),
        model="tiny",
        numerics="numerics-1",
        unix_ms=NOW_MS,
        weights=digest_of("weights"),
    )


def terms(*verifiers: Signer, node: Signer = NODE, **changes: object) -> Terms:
    """Terms that let ``verifiers`` (by default, one) draw one receipt of ten."""
    made = Terms(
        chains=True,
        demands_per_min=600,
        keep_s=3600,
        key=str(node.vkey),
        operator=node.vkey.name.partition("/")[0],
        rate_ppm=100_000,
        unix_ms=NOW_MS,
        verifiers=tuple(str(one.vkey) for one in verifiers or (VERIFIER,)),
    )
    return msgspec.structs.replace(made, **changes)


def calibration(artefact: str = '{"alpha":"0.001"}') -> Calibration:
    return Calibration(
        artefact=artefact,
        digest=digest(artefact.encode()),
        key=str(VERIFIER.vkey),
        operator="gamma.example",
        unix_ms=NOW_MS,
    )


def verdict(signer: Signer = VERIFIER, **changes: object) -> Verdict:
    """A failed replay of a drawn receipt."""
    made = Verdict(
        alpha="0.001",
        bundle=digest_of("bundle"),
        calibration=calibration().digest,
        checks=(
            Check(detail="12 of 90 tokens are not the model's", name="tokens", result="fail"),
            Check(detail="90 tokens, as counted", name="usage", result="pass"),
        ),
        drawn=Drawn(by=str(VERIFIER.vkey), draw=digest_of("draw"), entry=7, index=3),
        evidence=StandingEvidence(
            detector="3.5", failed_at=12, samples=12, tokens=1080, wealth="1204.25"
        ),
        key=str(signer.vkey),
        kind="replay",
        operator=signer.vkey.name.partition("/")[0],
        previous="",
        receipt=hash32("receipt").hex(),
        regime="exact",
        result="fail",
        salt=hash32(f"salt of {signer.vkey.name}").hex(),
        standing="failed",
        subject=Subject(
            configuration="temperature=1 top_p=0.9",
            key=str(NODE.vkey),
            model="tiny",
            node=NODE.vkey.name,
            numerics="numerics-1",
            operator="alpha.example",
            weights=digest_of("weights"),
        ),
        unix_ms=NOW_MS,
    )
    return msgspec.structs.replace(made, **changes)


def commitment(verdict_note: bytes, signer: Signer = VERIFIER) -> Commitment:
    return Commitment(
        digest=digest(verdict_note),
        key=str(signer.vkey),
        receipt=hash32("receipt").hex(),
        unix_ms=NOW_MS,
    )


WANTED = (WantedReceipt(batch=hash32("batch").hex(), index=3),)


def demand(draw_note: str = "a draw", node: Signer = NODE) -> Demand:
    return Demand(
        digest=demanded_digest(draw_note, WANTED),
        key=str(VERIFIER.vkey),
        node=node.vkey.name,
        operator="gamma.example",
        unix_ms=NOW_MS,
    )


def signed(record: Record, signer: Signer = VERIFIER) -> bytes:
    return sign_note(record.text(), signer)
