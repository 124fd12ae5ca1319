"""Split views: two checkpoints by one log that can not both be true, in a file for anybody.

Specified in ``docs/spec/split-view.md``. A log that shows two readers two trees has signed both, so
whoever holds both checkpoints holds the proof, and needs nobody's word. It refuses to call a log a
liar over anything else: an answer that did not come or did not add up is no evidence.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from trunkline.base.errors import ConsistencyError, Error, MalformedError
from trunkline.crypto import merkle
from trunkline.crypto.encoding import decode_hash, encode_base64
from trunkline.crypto.keys import VerifierKey
from trunkline.evidence.report import (
    Finding,
    Outcome,
    Step,
    failed,
    inconclusive,
    numbered,
    outcome_of,
    passed,
    plain,
)
from trunkline.evidence.text import decode_text
from trunkline.tlog.checkpoint import Checkpoint, open_checkpoint
from trunkline.tlog.policy import Policy

SPLIT_VIEW_TYPE = "trunkline.split-view/v1"
SPLIT_VIEW_BYTES_MAX = 2 * 1024 * 1024
TITLES = ("file", "log", "signatures", "contradiction")


class SplitView(msgspec.Struct, frozen=True, kw_only=True):
    """A split-view file. JSON, members in this order."""

    type: Literal["trunkline.split-view/v1"] = "trunkline.split-view/v1"
    log: str
    """The vkey that signed both."""
    smaller: str
    """A checkpoint's signed note, verbatim; of two equal sizes, either."""
    larger: str
    proof: Annotated[tuple[str, ...], msgspec.Meta(max_length=merkle.PROOF_HASHES_MAX + 1)] = ()
    """Prefix proof in base64, from the smaller size to the larger; none for equal sizes."""


class SplitViewReport(msgspec.Struct, frozen=True, kw_only=True):
    """What checking a split-view file established."""

    type: Literal["trunkline.split-view/v1"] = "trunkline.split-view/v1"
    outcome: Outcome
    """``pass``: the log contradicted itself, and the reader's policy knows it. ``inconclusive``:
    its key did, and no policy says whose that is. ``fail``: nothing is shown."""
    origin: str
    """The log, as the key is named; empty where none could be read."""
    steps: tuple[Step, ...]


_DECODER = msgspec.json.Decoder(SplitView)


def check(small: Checkpoint, large: Checkpoint, proof: Sequence[bytes]) -> bool:
    """Whether the larger tree goes on from the smaller, both signed by one log.

    ``proof``: prefix proof between them; empty for equal sizes, and from size 0. False is proof of
    a split view. ConsistencyError: the proof does not belong to the larger tree, and shows nothing.
    """
    if small.size == large.size:
        return small.root == large.root
    if small.size == 0:
        return True
    found = merkle.prefix_root(small.size, large.size, proof, large.root)
    return found == small.root


def encode(key: VerifierKey, notes: tuple[bytes, bytes], proof: Sequence[bytes]) -> bytes:
    """The file's bytes; ``notes`` are the smaller and the larger checkpoint's.

    ConsistencyError, SignatureError or MalformedError when it would prove nothing.
    """
    file = SplitView(
        log=str(key),
        smaller=notes[0].decode(),
        larger=notes[1].decode(),
        proof=tuple(encode_base64(item) for item in proof),
    )
    _contradiction(file, key)
    return msgspec.json.format(msgspec.json.encode(file), indent=1) + b"\n"


def decode(data: bytes) -> SplitView:
    """Read a split-view file; MalformedError. Nothing in it is verified yet."""
    return decode_text(_DECODER, data, SPLIT_VIEW_BYTES_MAX, f"a {SPLIT_VIEW_TYPE}")


def is_split_view(data: bytes) -> bool:
    """Whether the bytes are a split-view file by their form."""
    try:
        decode(data)
    except MalformedError:
        return False
    return True


def contradicted(data: bytes, key: VerifierKey) -> Checkpoint:
    """The larger checkpoint of a file that proves ``key`` to have contradicted itself.

    MalformedError, SignatureError, or ConsistencyError when it proves no such thing.
    """
    return _contradiction(decode(data), key)


def verify(data: bytes, policy: Policy | None) -> SplitViewReport:
    """Check a split-view file, step by step, under the reader's own policy, if there is one."""
    findings: list[Finding] = []
    origin = ""
    try:
        # 1 file
        file = decode(data)
        key = VerifierKey.parse(file.log)
        origin = key.name
        findings.append(passed(f"both checkpoints name {plain(origin)}"))
        # 2 log
        findings.append(_known(key, policy))
        # 3 signatures
        notes = (file.smaller.encode(), file.larger.encode())
        sizes = [open_checkpoint(one, key).size for one in notes]
        findings.append(passed(f"one key signed a tree of {sizes[0]} and one of {sizes[1]}"))
        # 4 contradiction
        _contradiction(file, key)
        findings.append(passed(_explain(sizes)))
    except UnicodeEncodeError:
        findings.append(failed("a note is not Unicode"))
    except Error as error:
        findings.append(failed(error.message))
    rest = inconclusive("not checked: an earlier step failed")
    findings += [rest] * (len(TITLES) - len(findings))
    return _report(origin, findings)


def _explain(sizes: Sequence[int]) -> str:
    small, large = sizes
    if small == large:
        return f"two different trees of size {small}"
    return f"the tree of {large} does not go on from the tree of {small}"


def _known(key: VerifierKey, policy: Policy | None) -> Finding:
    if policy is None:
        return inconclusive("no policy: nobody here says whose key it is")
    if any(log.key == key for log in policy.logs):
        return passed("a log of your policy")
    return inconclusive("not a log of your policy")


def _contradiction(file: SplitView, key: VerifierKey) -> Checkpoint:
    if file.log != str(key):
        raise ConsistencyError("the file is about another log")
    try:
        small = open_checkpoint(file.smaller.encode(), key)
        large = open_checkpoint(file.larger.encode(), key)
    except UnicodeEncodeError as error:
        raise MalformedError("a note is not Unicode") from error
    if small.size > large.size:
        raise MalformedError("the smaller checkpoint comes first")
    proof = [decode_hash(item) for item in file.proof]
    if check(small, large, proof):
        raise ConsistencyError("the two checkpoints agree with each other")
    return large


def _report(origin: str, findings: Sequence[Finding]) -> SplitViewReport:
    steps = numbered(TITLES, findings)
    return SplitViewReport(outcome=outcome_of(steps), origin=origin, steps=steps)
