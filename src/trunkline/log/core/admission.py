"""What may become an entry: a signed note whose first line is a known type.

An entry is for ever, so what nobody could verify is not taken. Without configured submitters the
signature's form is checked but not its truth: anybody may submit, as with any open log.
"""

from collections.abc import Sequence

from trunkline.base.errors import MalformedError, RequestError, SignatureError
from trunkline.crypto import note
from trunkline.crypto.keys import VerifierKey
from trunkline.tlog.tile import ENTRY_BYTES_MAX


def admit(entry: bytes, *, types: Sequence[str], submitters: Sequence[VerifierKey]) -> None:
    """Return for an entry that may be sequenced; RequestError otherwise.

    ``types``: first lines that are taken. ``submitters``: if any, one of them must have signed.
    Codes: ``entry_too_large``, ``entry_malformed``, ``entry_type_unknown``,
    ``entry_not_authorized``.
    """
    if len(entry) > ENTRY_BYTES_MAX:
        raise RequestError(
            f"an entry has at most {ENTRY_BYTES_MAX} bytes", code="entry_too_large", status=413
        )
    try:
        signed = note.parse(entry)
    except MalformedError as error:
        raise RequestError(
            f"an entry is a signed note: {error.message}", code="entry_malformed"
        ) from error
    first_line = signed.text.partition(b"\n")[0]
    if first_line not in {kind.encode() for kind in types}:
        raise RequestError("entries of this type are not taken", code="entry_type_unknown")
    if submitters and not any(_signed_by(signed, key) for key in submitters):
        raise RequestError(
            "no known submitter signed the entry", code="entry_not_authorized", status=403
        )


def _signed_by(signed: note.Note, key: VerifierKey) -> bool:
    try:
        signed.verify(key)
    except SignatureError:
        return False
    return True
