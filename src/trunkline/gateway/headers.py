"""What a call's own headers ask of the gateway, and what the answer's headers say.

Everything that is not named here is ignored: credentials above all, which on loopback are neither
checked nor kept nor logged.
"""

import re
from typing import assert_never

import msgspec

from trunkline.base.errors import RequestError
from trunkline.gateway.core.attempt import Answer
from trunkline.gateway.core.deadline import Timeouts, total_s
from trunkline.gateway.core.demands import When
from trunkline.gateway.core.tenant import ANONYMOUS, CacheUse, Tenant
from trunkline.gateway.writer import Headers, request_id_header
from trunkline.runtime.http import Call
from trunkline.schema.attempt import ClientFormat, Mode

_NONCE = re.compile(r"[0-9a-f]{64}")
_MODES: dict[str, Mode] = {"private": "private", "batched": "batched", "full": "full"}
"""By what they publish: the least first."""


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
    cache: bool
    """The answer may be one that a node kept, and may be kept."""
    chain: bool
    """Say in the stream whose hash chain its events belong to."""
    verify: When | None
    """Whether it is shown before or after a verdict; None: as the routing policy says."""


def read_wishes(
    call: Call, timeouts: Timeouts, *, keep_bodies: bool, tenant: Tenant = ANONYMOUS
) -> Wishes:
    """Read the ``trunkline-*`` request headers. ``tenant``: who calls; its mode is the most that a
    call of it publishes. Raises :class:`RequestError` naming the header."""
    mode = _mode(call, tenant.mode)
    hold = _value(call, "trunkline-hold", "values")
    if hold not in ("values", "answer"):
        raise _invalid("trunkline-hold", "values or answer")
    nonce = _value(call, "trunkline-nonce", "")
    if nonce and _NONCE.fullmatch(nonce) is None:
        raise _invalid("trunkline-nonce", "64 lower-case hex digits")
    return Wishes(
        total_s=total_s(call.header("trunkline-deadline-ms"), timeouts),
        mode=mode,
        keep_bodies=_keep(call, mode, keep_bodies),
        detail=_value(call, "trunkline-detail", "") == "1",
        hold=hold == "answer",
        nonce=nonce,
        cache=_cache(call, tenant.cache) and mode != "private",
        chain=_value(call, "trunkline-chain", "") == "1",
        verify=_verify(call),
    )


def _mode(call: Call, most: Mode | None) -> Mode:
    """What is published of the answer."""
    mode = _MODES.get(_value(call, "trunkline-mode", most or "batched"))
    if mode is None:
        raise _invalid("trunkline-mode", "private, batched or full")
    order = list(_MODES)
    if most is not None and order.index(mode) > order.index(most):
        raise RequestError(
            f"trunkline-mode: the key's answers are {most}, and a call may ask for less alone",
            code="mode_not_allowed",
            param="trunkline-mode",
            status=403,
        )
    return mode


def _verify(call: Call) -> When | None:
    match _value(call, "trunkline-verify", ""):
        case "":
            return None
        case "before" | "after" as wish:
            return wish
        case _:
            raise _invalid("trunkline-verify", "before or after")


def _cache(call: Call, use: CacheUse) -> bool:
    """Whether the call wants an answer again, and may."""
    wish = _value(call, "trunkline-cache", "use" if use == "always" else "off")
    if wish not in ("use", "off"):
        raise _invalid("trunkline-cache", "use or off")
    return wish == "use" and use != "never"


def _keep(call: Call, mode: Mode, default: bool) -> bool:
    """Whether bodies are kept: never of a private answer, always of one that is published."""
    keep = call.header("trunkline-keep")
    if keep is not None and keep.strip() not in ("bodies", "none"):
        raise _invalid("trunkline-keep", "bodies or none")
    asked = default if keep is None else keep.strip() == "bodies"
    match mode:
        case "batched":
            return asked
        case "private":
            if keep is not None and asked:
                raise _invalid("trunkline-keep", "none, as the answer is private,")
            return False
        case "full":
            if keep is not None and not asked:
                raise _invalid("trunkline-keep", "bodies, as the answer is published,")
            return True
        case _:
            assert_never(mode)


def answer_headers(
    answer_id: str,
    answer: Answer,
    format_: ClientFormat,
    *,
    detail: bool,
    alert: str = "",
    verified: bool = False,
) -> Headers:
    """The answer's own response headers; asked for when an attempt was accepted. ``alert``: what
    stands against those who may serve the model; empty: nothing. ``verified``: it is shown after a
    verdict."""
    headers = [request_id_header(format_, answer_id), ("trunkline-receipt", answer_id)]
    accepted = answer.accepted
    if verified:
        # A stream's head may have to be sent before it is known who gives the answer in the end.
        accepted = accepted if answer.judged is not None else None
        headers.append(("trunkline-verify", "before"))
        if answer.judged is not None:
            headers.append(("trunkline-verified", answer.judged))
    if accepted is not None:
        headers.append(("trunkline-model", accepted.model))
        if accepted.cached:
            headers.append(("trunkline-cache", "hit"))
    if alert:
        headers.append(("trunkline-alert", alert))
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
