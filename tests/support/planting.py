"""Plants as tests need them: a toy's answer whose receipt binds one, and what opens it."""

import msgspec
from tests.support import auditing
from tests.support.auditing import Made, ToyNode

from trunkline.crypto.digest import digest
from trunkline.crypto.signer import Signer, sign_note
from trunkline.receipts import BatchBuilder, Hiding, encode, salts
from trunkline.schema.attempt import SignedReceipt
from trunkline.verdicts import Plant, PlantAccepted, PlantOpening, plant_digest

BLINDING = "7e" * 32
"""The toy's."""
NOW_MS = 1_780_000_000_000
WRONG = b"\x77" * 32
"""A seed that no receipt names."""


PLANTER = Signer("gamma.example/verifier", b"\x14" * 32)
PLANT = Plant(
    attempt="att_1",
    expect="fail",
    key=str(PLANTER.vkey),
    node=str(auditing.NODE.vkey),
    operator="gamma.example",
    unix_ms=NOW_MS,
)
ACCEPTED = PlantAccepted(key=str(auditing.NODE.vkey), plant=digest(b"a plant"), unix_ms=NOW_MS)
OPENED = PlantOpening(
    accepted="a note",
    content="{}",
    key=str(PLANTER.vkey),
    operator="gamma.example",
    plant="a note",
    signed="{}",
    unix_ms=NOW_MS,
)


def plant(
    planter: Signer, number: int, *, expect: str = "fail", node: Signer = auditing.NODE
) -> bytes:
    """A plant's note."""
    made = msgspec.structs.replace(
        PLANT,
        attempt=f"att_{number}",
        expect=expect,
        key=str(planter.vkey),
        node=str(node.vkey),
        operator=planter.name.partition("/")[0],
    )
    return sign_note(made.text(), planter)


def accepted(note: bytes, node: Signer = auditing.NODE) -> bytes:
    made = PlantAccepted(key=str(node.vkey), plant=digest(note), unix_ms=NOW_MS)
    return sign_note(made.text(), node)


def answered(note: bytes, number: int, *, wrong: bool = True, node: Signer = auditing.NODE) -> Made:
    """The toy's answer to a plant's attempt."""
    made = ToyNode(seed=WRONG if wrong else None).serve(number, temperature=1.0)
    hiding = Hiding(BLINDING, answer=f"ans_{number}", attempt=f"att_{number}")
    bound = auditing.saying(
        made, "request", client=hiding.bind("request.client", plant_digest(note))
    )
    bound = auditing.saying(bound, "", key=str(node.vkey), node=node.name)
    return auditing.but(bound, salts=salts(bound.receipt, bytes.fromhex(BLINDING)))


def signed(made: Made, node: Signer = auditing.NODE) -> SignedReceipt:
    """A batch of its own."""
    builder = BatchBuilder(node.name)
    builder.add(encode(made.receipt))
    sealed = builder.seal(previous=None, unix_ms=NOW_MS)
    return sealed.signed(sign_note(sealed.text, node))[0]


def opening(
    planter: Signer,
    note: bytes,
    made: Made,
    receipt: SignedReceipt,
    *,
    node: Signer = auditing.NODE,
    **changes: object,
) -> bytes:
    """The note that opens a plant."""
    opened = PlantOpening(
        accepted=accepted(note, node).decode(),
        content=msgspec.json.encode(made.content).decode(),
        key=str(planter.vkey),
        operator=planter.name.partition("/")[0],
        plant=note.decode(),
        signed=msgspec.json.encode(receipt).decode(),
        unix_ms=NOW_MS,
    )
    return sign_note(msgspec.structs.replace(opened, **changes).text(), planter)
