"""Whether to cosign (C2SP tlog-witness, ``add-checkpoint``), check by check in the text's order.

Two halves. :func:`open_request` needs no state: parsing, origin, signature. :func:`decide` is the
comparison with what was cosigned last; the shell runs it and stores its outcome in one transaction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trunkline.base.errors import ConsistencyError, MalformedError, RequestError, SignatureError
from trunkline.crypto import merkle, note
from trunkline.crypto.keys import VerifierKey
from trunkline.tlog.add_checkpoint import AddCheckpoint, parse_add_checkpoint
from trunkline.tlog.checkpoint import Checkpoint

KnownLogs = Mapping[str, Sequence[VerifierKey]]
"""The keys that are trusted for each origin: one or more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The latest checkpoint cosigned for a log: size 0 with the empty root before the first."""

    size: int = 0
    root: bytes = merkle.EMPTY_ROOT


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A request whose checkpoint a known log has signed."""

    old_size: int
    proof: tuple[bytes, ...]
    checkpoint: Checkpoint
    text: bytes
    """The checkpoint's note text, as received: what is cosigned."""
    signatures: tuple[note.NoteSignature, ...]
    """The log's own signatures on it, verified."""


class SizeConflictError(RequestError):
    """The old size is not the one last cosigned: 409 with that size."""

    def __init__(self, size: int) -> None:
        super().__init__(f"the last cosigned size is {size}", code="size_conflict", status=409)
        self.size = size


def open_request(body: bytes, logs: KnownLogs) -> Submission:
    """The submission in a request's body. RequestError with the status that the text demands.

    400 ``malformed`` or ``old_size_too_large``, 404 ``log_unknown``, 403 ``log_signature``.
    """
    try:
        request = parse_add_checkpoint(body)
        parsed = note.parse(request.checkpoint_note)
        checkpoint = Checkpoint.parse(parsed.text)
    except MalformedError as error:
        raise RequestError(error.message, code="malformed") from error
    keys = logs.get(checkpoint.origin)
    if keys is None:
        raise RequestError("this log is not known here", code="log_unknown", status=404)
    signatures = _verified(parsed, keys)
    if request.old_size > checkpoint.size:
        raise RequestError("the old size is beyond the checkpoint's", code="old_size_too_large")
    return _submission(request, checkpoint, parsed.text, signatures)


def _verified(parsed: note.Note, keys: Sequence[VerifierKey]) -> tuple[note.NoteSignature, ...]:
    """The lines by trusted keys: at least one, and each of them good."""
    mine = [key for key in keys if any(line.is_by(key) for line in parsed.signatures)]
    try:
        if not mine:
            raise SignatureError("no key that is trusted for this log signed the checkpoint")
        return tuple(line for key in mine for line in parsed.signatures_by(key))
    except SignatureError as error:
        raise RequestError(error.message, code="log_signature", status=403) from error


def _submission(
    request: AddCheckpoint,
    checkpoint: Checkpoint,
    text: bytes,
    signatures: tuple[note.NoteSignature, ...],
) -> Submission:
    return Submission(
        old_size=request.old_size,
        proof=request.proof,
        checkpoint=checkpoint,
        text=text,
        signatures=signatures,
    )


def decide(submission: Submission, seen: Seen) -> Seen:
    """What will have been seen once the submission is cosigned.

    SizeConflictError (409), or RequestError 422 ``not_consistent``: do not cosign.
    """
    if submission.old_size != seen.size:
        raise SizeConflictError(seen.size)
    checkpoint = submission.checkpoint
    if checkpoint.size == 0 and checkpoint.root != merkle.EMPTY_ROOT:
        raise _inconsistent("the empty tree has another root")
    if seen.size == 0:
        # Anything continues the empty tree, so there is nothing to prove, and no proof may come.
        if submission.proof:
            raise _inconsistent("a proof from size 0 is empty")
    else:
        try:
            merkle.verify_consistency(
                seen.size, checkpoint.size, submission.proof, seen.root, checkpoint.root
            )
        except ConsistencyError as error:
            raise _inconsistent(error.message) from error
    return Seen(size=checkpoint.size, root=checkpoint.root)


def _inconsistent(why: str) -> RequestError:
    return RequestError(why, code="not_consistent", status=422)
