"""No signed record can be taken for another, even where one key signs them all.

One table of every kind: how its bytes are made, and what opens them. Every opener refuses the bytes
of every other kind. A new kind of signed record belongs into this table.
"""

from collections.abc import Callable
from typing import NamedTuple

import msgspec
import pytest
from tests.support import audit_records as make
from tests.support import planting
from tests.unit.evidence import make_vectors as evidence

from trunkline.base.errors import Error, MalformedError
from trunkline.crypto import note
from trunkline.crypto.digest import sha256
from trunkline.crypto.signer import Signer, sign_note
from trunkline.receipts import Batch, decode, encode, open_batch
from trunkline.receipts.key_statement import KeyStatement, Revocation, open_statement
from trunkline.receipts.nonces import NonceCommitment, open_nonces
from trunkline.tlog import cosignature
from trunkline.tlog.checkpoint import Checkpoint, open_checkpoint
from trunkline.verdicts import (
    Calibration,
    Commitment,
    Demand,
    Draw,
    Plant,
    PlantAccepted,
    PlantOpening,
    Record,
    SelfTest,
    Verdict,
)


class Kind(NamedTuple):
    make: Callable[[Signer], bytes]
    open: Callable[[bytes, Signer], object]


def _batch(signer: Signer) -> bytes:
    made = Batch(node=signer.name, count=1, root=bytes(32), previous=None, unix_ms=1)
    return sign_note(made.text(), signer)


def _nonces(signer: Signer) -> bytes:
    made = NonceCommitment(node=signer.name, count=1, root=bytes(32), unix_ms=1)
    return sign_note(made.text(), signer)


def _statement(signer: Signer) -> bytes:
    key = str(make.NODE.vkey)
    made = KeyStatement(operator=signer.name, key=key, from_s=1, to_s=2)
    return sign_note(made.text(), signer)


def _revocation(signer: Signer) -> bytes:
    made = Revocation(operator=signer.name, key=str(make.NODE.vkey), from_s=1)
    return sign_note(made.text(), signer)


def _only(kind: type) -> Callable[[bytes, Signer], object]:
    """One opener reads both kinds of statement, and tells which it was."""

    def opened(data: bytes, signer: Signer) -> object:
        statement = open_statement(data, signer.vkey)
        if not isinstance(statement, kind):
            raise MalformedError("the other kind of statement")
        return statement

    return opened


def _checkpoint(signer: Signer) -> bytes:
    return sign_note(Checkpoint(origin=signer.name, size=7, root=bytes(32)).text(), signer)


def _cosigned(signer: Signer) -> bytes:
    text = Checkpoint(origin=signer.name, size=7, root=bytes(32)).text()
    return note.format(text, [signer.cosignature(text, 1)])


def _open_cosigned(data: bytes, signer: Signer) -> object:
    return cosignature.verify(note.parse(data), signer.cosigner_vkey)


def _record(record: Record) -> Kind:
    def made(signer: Signer) -> bytes:
        mine = msgspec.structs.replace(record, key=str(signer.vkey))
        return sign_note(mine.text(), signer)

    return Kind(made, lambda data, signer: type(record).open_note(data, signer.vkey))


KINDS = {
    "receipt": Kind(
        lambda signer: encode(evidence.receipt(signer)), lambda data, signer: decode(data)
    ),
    "batch": Kind(_batch, lambda data, signer: open_batch(data, signer.vkey)),
    "nonces": Kind(_nonces, lambda data, signer: open_nonces(data, signer.vkey)),
    "key statement": Kind(_statement, _only(KeyStatement)),
    "revocation": Kind(_revocation, _only(Revocation)),
    "checkpoint": Kind(_checkpoint, lambda data, signer: open_checkpoint(data, signer.vkey)),
    "cosignature": Kind(_cosigned, _open_cosigned),
    "self-test": _record(make.self_test()),
    "draw": _record(make.draw()),
    "calibration": _record(make.calibration()),
    "commitment": _record(make.commitment(b"a verdict")),
    "verdict": _record(make.verdict()),
    "demand": _record(make.demand()),
    "plant": _record(planting.PLANT),
    "accepted plant": _record(planting.ACCEPTED),
    "opened plant": _record(planting.OPENED),
}
RECORDS = (
    SelfTest, Draw, Calibration, Commitment, Verdict, Demand, Plant, PlantAccepted, PlantOpening,
)  # fmt: skip
# The first is how keys are called. The others are as bad as a name can be: a checkpoint begins with
# its log's.
NAMES = (
    "alpha.example",
    *(one.TYPE for one in RECORDS),
    "trunkline.batch/v1",
    "trunkline.nonces/v1",
    "trunkline.key/v1",
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("opener", KINDS)
def test_only_its_own_bytes_are_opened(opener: str, name: str) -> None:
    signer = Signer(name, sha256(name.encode()))
    for kind, (made, _) in KINDS.items():
        data = made(signer)
        if kind == opener:
            assert KINDS[opener].open(data, signer) is not None
            continue
        with pytest.raises(Error):
            KINDS[opener].open(data, signer)


def test_each_type_is_one_records() -> None:
    types = [record.TYPE for record in RECORDS]
    assert len(set(types)) == len(types)
    # Nor is it the domain of a hash: salted digests are commitments too.
    assert not {f"{one}\n" for one in types} & {"trunkline.commitment/v1\n"}
