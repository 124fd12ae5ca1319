"""A log of the tests' own that signs two trees of one size, and evidence that leads to each."""

import hashlib

import msgspec

from trunkline.crypto import merkle
from trunkline.crypto.signer import Signer, sign_note
from trunkline.evidence import decode, encode
from trunkline.tlog import proof
from trunkline.tlog.checkpoint import Checkpoint

ORIGIN = "forked.example/log"


def forked(evidence: bytes) -> tuple[str, bytes, bytes]:
    """A policy, and ``evidence`` twice with proofs of a log that forked."""
    signer = Signer.generate(ORIGIN, hashlib.sha256(b"forked").digest())
    policy = f"log {signer.vkey}\nquorum none\n"
    return policy, _evidence(evidence, signer, b"one"), _evidence(evidence, signer, b"two")


def _evidence(evidence: bytes, signer: Signer, sibling: bytes) -> bytes:
    file = decode(evidence)
    leaf = merkle.leaf_hash(file.parts[0].signed.batch.encode())
    other = merkle.leaf_hash(sibling)
    tree = Checkpoint(origin=ORIGIN, size=2, root=merkle.root([leaf, other]))
    shown = proof.Proof(index=0, path=(other,), checkpoint_note=sign_note(tree.text(), signer))
    part = msgspec.structs.replace(file.parts[0], proof=proof.format(shown).decode())
    return encode(msgspec.structs.replace(file, parts=(part,)))
