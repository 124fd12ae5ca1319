"""Plants: answers that nobody asked for but a verifier, and whose rightness is known beforehand.

Specified in ``docs/spec/verdict.md``, "Plants". A verifier (the *planter*) asks a node a question
of its own. To a known-bad one the node, which agreed to it by a signed note, answers wrongly on
purpose. The receipt itself is the commitment: in place of a digest of an app's body it binds, with
a salt, that of the planter's signed statement. So nobody else can tell it from any other receipt,
and it can be committed to neither late nor for an answer that a user was given. Once verdicts on it
are in the log, it is opened there, with all that it takes to audit it again.

What a plant shows of verifiers is decided elsewhere (``planted``). It is refused here unless each
of its parts was signed by whom it says, and they are all about one receipt.
"""

from collections.abc import Iterable
from typing import Annotated, ClassVar, Final, Literal, TypeAlias, TypeVar

import msgspec

from trunkline.base.errors import MalformedError, VerificationError
from trunkline.crypto.digest import digest
from trunkline.crypto.keys import VerifierKey
from trunkline.receipts import (
    Receipt,
    VerifiedReceipt,
    binds,
    request_digest,
    tokens_digest,
    verify_signed,
)
from trunkline.receipts import decode as decode_receipt
from trunkline.receipts.hiding import Item
from trunkline.schema.attempt import SignedReceipt
from trunkline.schema.audit import OpenedContent
from trunkline.verdicts.record import Count, Digest, Key, Name, Record, check_signer_key

PLANT_TYPE = "trunkline.plant/v1"
PLANT_ACCEPTED_TYPE = "trunkline.plant-accepted/v1"
PLANT_OPENING_TYPE = "trunkline.plant-opening/v1"
PLANT_BYTES_MAX: Final = 4 * 1024
"""Of a plant's note, and of a node's acceptance."""
JSON_CHARS_MAX: Final = 24 * 1024
_DOMAIN: Final = b"trunkline.planted/v1\n"

T = TypeVar("T")

Expected: TypeAlias = Literal["pass", "fail"]
"""What a verifier that audits it should find."""
Part: TypeAlias = Annotated[str, msgspec.Meta(max_length=PLANT_BYTES_MAX)]
Json: TypeAlias = Annotated[str, msgspec.Meta(max_length=JSON_CHARS_MAX)]


class Plant(Record, frozen=True, kw_only=True):
    """The planter's statement, bound by the receipt and shown afterwards."""

    TYPE: ClassVar[str] = PLANT_TYPE
    NOTE_BYTES_MAX: ClassVar[int] = PLANT_BYTES_MAX

    attempt: Name
    """Id of the one attempt that it is about."""
    expect: Expected
    key: Key
    """The planter's, a verifier."""
    node: Key
    """The node's that is asked."""
    operator: Name
    type: Literal["trunkline.plant/v1"] = "trunkline.plant/v1"
    unix_ms: Count

    def check(self) -> None:
        super().check()
        check_signer_key(self.node)


class PlantAccepted(Record, frozen=True, kw_only=True):
    """A node will answer the attempt of a known-bad plant wrongly, because it was asked to."""

    TYPE: ClassVar[str] = PLANT_ACCEPTED_TYPE
    NOTE_BYTES_MAX: ClassVar[int] = PLANT_BYTES_MAX

    key: Key
    """The node's."""
    plant: Digest
    """Of the plant's signed note."""
    type: Literal["trunkline.plant-accepted/v1"] = "trunkline.plant-accepted/v1"
    unix_ms: Count


class PlantOpening(Record, frozen=True, kw_only=True):
    """A plant, shown to everybody: what was asked and answered was nobody's but the planter's."""

    TYPE: ClassVar[str] = PLANT_OPENING_TYPE
    NOTE_BYTES_MAX: ClassVar[int] = 64 * 1024 - 1

    accepted: Part
    """The node's note; empty for one that is expected to pass."""
    content: Json
    """What opens the receipt (:class:`trunkline.schema.audit.OpenedContent`), as JSON."""
    key: Key
    operator: Name
    plant: Part
    """The plant's note."""
    signed: Json
    """The receipt, its batch and path (:class:`trunkline.schema.attempt.SignedReceipt`), as
    JSON."""
    type: Literal["trunkline.plant-opening/v1"] = "trunkline.plant-opening/v1"
    unix_ms: Count


class Planted(msgspec.Struct, frozen=True, kw_only=True):
    """A plant that was opened, verified."""

    plant: Plant
    verified: VerifiedReceipt
    index: int
    """Of the receipt in its batch."""
    content: OpenedContent

    @property
    def leaf(self) -> str:
        """Of its receipt, hex."""
        return self.verified.leaf.hex()


def plant_digest(note: bytes) -> str:
    """``sha256:<hex>`` of a plant's note: what its receipt binds in the place of an app's body,
    which no app can send."""
    return digest(_DOMAIN + note)


def open_plant(
    note: bytes, planters: Iterable[VerifierKey], nodes: Iterable[VerifierKey]
) -> Planted:
    """The plant that ``note`` opens, by one of ``planters`` at one of ``nodes``.

    Raises :class:`MalformedError`, or a :class:`VerificationError`: no such planter or node signed
    a part of it, or its parts are not about one receipt.
    """
    opening, planter = _opening(note, planters)
    try:
        return _open(opening, planter, nodes)
    except ValueError as error:
        # A salt that is no hex, a token that is none, text that is not Unicode.
        raise MalformedError("a plant's part that can not be read") from error


def _open(opening: PlantOpening, planter: VerifierKey, nodes: Iterable[VerifierKey]) -> Planted:
    plant_note = opening.plant.encode()
    plant = Plant.open_note(plant_note, planter)
    signed = _decode(opening.signed, SignedReceipt)
    node = _node(signed, plant, nodes)
    if plant.expect == "fail":
        accepted = PlantAccepted.open_note(opening.accepted.encode(), node)
        if accepted.plant != digest(plant_note):
            raise VerificationError("the node agreed to another plant", code="wrong_plant")
    content = _decode(opening.content, OpenedContent)
    verified = verify_signed(signed, node)
    _check_bound(verified.receipt, plant, plant_note, content)
    return Planted(plant=plant, verified=verified, index=signed.index, content=content)


def _opening(note: bytes, planters: Iterable[VerifierKey]) -> tuple[PlantOpening, VerifierKey]:
    for planter in planters:
        try:
            return PlantOpening.open_note(note, planter), planter
        except MalformedError:
            raise
        except VerificationError:
            continue
    raise VerificationError("nobody who may plant opened this plant", code="wrong_key")


def _node(signed: SignedReceipt, plant: Plant, nodes: Iterable[VerifierKey]) -> VerifierKey:
    """The key of the node that the plant names, if that is a known one, and its receipt's."""
    named = decode_receipt(signed.receipt.encode())
    for node in nodes:
        if str(node) == plant.node == named.key:
            return node
    raise VerificationError("the plant is at no node that is known", code="wrong_node")


def _check_bound(receipt: Receipt, plant: Plant, note: bytes, content: OpenedContent) -> None:
    if receipt.attempt != plant.attempt:
        raise VerificationError("the plant is about another attempt", code="wrong_plant")
    bound: tuple[tuple[Item, str], ...] = (
        ("request.client", plant_digest(note)),
        ("request.digest", request_digest(bytes(content.request))),
        ("response.tokens", tokens_digest(content.tokens)),
    )
    for item, said in bound:
        if not binds(receipt, item, said, content.salts):
            raise VerificationError("the receipt does not bind the plant", code="wrong_plant")


def _decode(text: str, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    except (ValueError, RecursionError) as error:
        # Not the parser's message: it may quote what it read.
        raise MalformedError("a plant's part that can not be read") from error
