"""Where an answer's seed came from: is it the one that neither side could choose?

A seed of two nonces is checked from the receipt alone; that the node was bound to its nonce before
it saw the request needs its signed note, and the log's order. An inherited seed stays checkable,
since the nonces of whoever began the answer are handed on, and that node shows where its nonce
stands to anybody who asks.
"""

from dataclasses import dataclass
from typing import Final

from trunkline.audit.findings import either, failed, inconclusive, not_applicable, passed
from trunkline.base.errors import Error
from trunkline.crypto.encoding import decode_hash
from trunkline.crypto.keys import VerifierKey
from trunkline.receipts import NonceCommitment, Receipt, bound_bytes, open_nonces, verify_nonce
from trunkline.receipts.nonces import nonce_leaf, verify_nonce_leaf
from trunkline.sampling import answer_seed, seed_from_caller
from trunkline.schema.audit import NonceProof, ShownNonce
from trunkline.schema.openai_chat import ChatRequest
from trunkline.verdicts import Check

SEED: Final = "seed"
NONCE: Final = "nonce"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The node that began an answer, and what it shows of the nonce in the seed."""

    key: VerifierKey
    shown: ShownNonce


def check_seed(receipt: Receipt, request: ChatRequest) -> Check:
    """Is the receipt's seed what its source makes of it?"""
    said = receipt.sampling
    if not said.seed:
        return failed(SEED, "the receipt names no seed")
    asked = None if request.seed is None else seed_from_caller(request.seed).hex()
    if asked is not None:
        good = said.seed == asked and said.source in ("caller", "inherited")
        return either(SEED, good, yes="the request's own", no="not the request's own seed")
    match said.source:
        case "caller":
            return failed(SEED, "said to be the request's own, and the request has none")
        case "inherited" if not (receipt.route and receipt.response.resumed):
            return failed(SEED, "said to be inherited, and nothing was taken over")
        case "none":
            return failed(SEED, "a seed without a source")
        case "nonces" | "inherited":
            return _from_nonces(receipt)


def _from_nonces(receipt: Receipt) -> Check:
    said = receipt.sampling
    if not said.node_nonce:
        if said.source == "inherited":
            return inconclusive(SEED, "inherited, without the nonce that it was made from")
        return failed(SEED, "the receipt lacks the node's nonce")
    seed = answer_seed(
        bytes.fromhex(said.caller_nonce),
        bytes.fromhex(said.node_nonce),
        bound_bytes(receipt.request.digest),
    )
    return either(
        SEED, seed.hex() == said.seed, yes="made from both nonces", no="not made from the nonces"
    )


def check_nonce(
    receipt: Receipt,
    proof: NonceProof | None,
    key: VerifierKey,
    *,
    used_by: str,
    noted_at: int | None,
    entry: int | None,
    unlogged: bool = False,
    origin: Origin | None = None,
) -> Check:
    """Was the node bound to its nonce before the request, and has it used it once?

    ``used_by``: another answer for which the verifier has seen this nonce, or empty; ``noted_at``
    and ``entry``: the log's entries with the commitment and with the receipt's batch, or None; an
    audit that somebody asks for, who has not seen the commitment, knows neither. ``unlogged``: the
    verifier would have seen a commitment that is in the log, and has not. ``origin``: of an
    inherited seed, what the node that began the answer shows.
    """
    said = receipt.sampling
    if not said.node_nonce or said.source not in ("nonces", "inherited"):
        return not_applicable(NONCE, "the seed has no nonce of a node in it")
    if said.source == "inherited":
        return _inherited(receipt, origin, used_by=used_by, noted_at=noted_at, entry=entry)
    if used_by and used_by != receipt.answer:
        return failed(NONCE, "the nonce was used before, for another answer")
    if entry is None and (proof is None or not said.nonces):
        return not_applicable(NONCE, "asked about before it was in the log: nothing to hold it to")
    # Who could leave these out would draw nonces, once it has seen a request, until one pleases it.
    if not said.nonces:
        return failed(NONCE, "the node was not bound to its nonce beforehand")
    if proof is None:
        return failed(NONCE, "the commitment to the nonce was not opened")
    try:
        commitment = open_nonces(proof.note.encode(), key)
        _check_place(receipt, commitment, proof)
    except (Error, UnicodeEncodeError):
        return failed(NONCE, "what was opened does not commit this node to its nonce")
    if unlogged:
        return failed(NONCE, "the commitment is not in the log")
    if noted_at is None or entry is None:
        return inconclusive(NONCE, "the commitment has not been seen in the log")
    return either(
        NONCE,
        noted_at < entry,
        yes="committed to before, and in the log before the receipt",
        no="the commitment came into the log after the receipt",
    )


def _inherited(
    receipt: Receipt,
    origin: Origin | None,
    *,
    used_by: str,
    noted_at: int | None,
    entry: int | None,
) -> Check:
    """Nothing here is the fault of who took over: it states the nonce as the gateway hands it on,
    and has checked no more than that the seed is made from it."""
    said = receipt.sampling
    if not said.nonces:
        return inconclusive(NONCE, "the nonce was handed on without its commitment")
    if used_by and used_by != receipt.answer:
        return inconclusive(NONCE, "the nonce was handed on for another answer before")
    if origin is None and entry is None:
        return not_applicable(NONCE, "asked about before it was in the log: nothing to hold it to")
    if origin is None:
        return inconclusive(NONCE, "the node that began the answer does not show its commitment")
    try:
        leaf = _committed(receipt, origin)
    except (Error, UnicodeEncodeError):
        return inconclusive(NONCE, "what the node that began the answer shows is no commitment")
    if leaf != nonce_leaf(bytes.fromhex(said.node_nonce)):
        return inconclusive(NONCE, "the nonce handed on is not the one that was committed to")
    if noted_at is None or entry is None:
        return inconclusive(NONCE, "the commitment has not been seen in the log")
    if noted_at >= entry:
        return inconclusive(NONCE, "the commitment came into the log after the receipt")
    return passed(NONCE, "committed to by the node that began the answer, and in the log before")


def _committed(receipt: Receipt, origin: Origin) -> bytes:
    """The leaf that the origin is bound to at the receipt's place. Raises Error for another."""
    said, shown = receipt.sampling, origin.shown
    commitment = open_nonces(shown.note.encode(), origin.key)
    named = origin.key.name in {before.node for before in receipt.route}
    if not named or (commitment.root.hex(), shown.index) != (said.nonces, said.nonce_index):
        raise Error("the receipt names another commitment", code="wrong_nonces")
    leaf = decode_hash(shown.leaf)
    verify_nonce_leaf(commitment, shown.index, leaf, [decode_hash(text) for text in shown.path])
    return leaf


def _check_place(receipt: Receipt, commitment: NonceCommitment, proof: NonceProof) -> None:
    said = receipt.sampling
    path = [decode_hash(text) for text in proof.path]
    verify_nonce(commitment, proof.index, bytes.fromhex(said.node_nonce), path)
    if commitment.root.hex() != said.nonces or proof.index != said.nonce_index:
        raise Error("the receipt names another commitment", code="wrong_nonces")
