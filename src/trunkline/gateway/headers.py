"""What a call's own headers ask of the gateway, and what the answer's headers say.

Everything that is not named here is ignored: credentials above all, which on loopback are neither
checked nor kept nor logged.
"""

import re

import msgspec

from trunkline.base.errors import RequestError
from trunkline.gateway.core.attempt import Answer
from trunkline.gateway.core.deadline import Timeouts, total_s
from trunkline.gateway.writer import Headers, request_id_header
from trunkline.runtime.http import Call
from trunkline.schema.attempt import ClientFormat, Mode

_NONCE = re.compile(r"[0-9a-f]{64}")
_MODES: dict[str, Mode] = {"private": "private", "batched": "batched", "full": "full"}


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What a call asks for beside its body."""

    total_s: float
    """Time for the whole answer, seconds."""
    mode: Mode
    keep_bodies: bool
    detail: bool
    """Say in headers which node answered."""
    hold: bool
    """Hold text back too, until the answer is whole."""
    nonce: str
    """The caller's own, for the receipts to bind: 64 hex digits. Empty: the gateway draws one."""


def read_wishes(call: Call, timeouts: Timeouts, *, keep_bodies: bool) -> Wishes:
    """Read the ``trunkline-*`` request headers. Raises :class:`RequestError` naming the header."""
    mode = _MODES.get(_value(call, "trunkline-mode", "batched"))
    if mode is None:
        raise _invalid("trunkline-mode", "private, batched or full")
    keep = call.header("trunkline-keep")
    if keep is not None and keep.strip() not in ("bodies", "none"):
        raise _invalid("trunkline-keep", "bodies or none")
    hold = _value(call, "trunkline-hold", "values")
    if hold not in ("values", "answer"):
        raise _invalid("trunkline-hold", "values or answer")
    nonce = _value(call, "trunkline-nonce", "")
    if nonce and _NONCE.fullmatch(nonce) is None:
        raise _invalid("trunkline-nonce", "64 lower-case hex digits")
    return Wishes(
        total_s=total_s(call.header("trunkline-deadline-ms"), timeouts),
        mode=mode,
        keep_bodies=keep_bodies if keep is None else keep.strip() == "bodies",
        detail=_value(call, "trunkline-detail", "") == "1",
        hold=hold == "answer",
        nonce=nonce,
    )


def answer_headers(
    answer_id: str, answer: Answer, format_: ClientFormat, *, detail: bool
) -> Headers:
    """The answer's own response headers; asked for when an attempt was accepted."""
    accepted = answer.accepted
    headers = [request_id_header(format_, answer_id), ("trunkline-receipt", answer_id)]
    if accepted is not None:
        headers.append(("trunkline-model", accepted.model))
    if detail and accepted is not None:
        headers += [
            ("trunkline-node", accepted.node),
            ("trunkline-operator", accepted.operator),
            ("trunkline-attempts", str(answer.attempts)),
        ]
    return headers


def _value(call: Call, name: str, default: str) -> str:
    value = call.header(name)
    return default if value is None else value.strip()


def _invalid(name: str, expected: str) -> RequestError:
    return RequestError(f"{name}: {expected} is expected", code="invalid_header", param=name)
