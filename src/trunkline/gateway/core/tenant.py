"""Who is calling: the holder of a virtual key, or whoever reaches the gateway where none is needed.

A tenant is what fairness, limits and budgets are counted by. It holds no secret.
"""

from hashlib import sha256
from typing import Final, Literal

import msgspec

from trunkline.schema.attempt import Mode

INTERACTIVE: Final = 0
"""Somebody is waiting for the answer."""
BATCH: Final = 1
"""Nobody is: it may start after every interactive call that waits."""


CacheUse = Literal["never", "asked", "always"]
"""Whose calls may be given answers that nodes kept: none, those that ask, all but who refuse."""
_SCOPE_DOMAIN: Final = b"trunkline.cache-scope/v1\n"
_SHARE_DOMAIN: Final = b"trunkline.share-scope/v1\n"


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """One caller, as the scheduler and the budgets know it."""

    id: str
    """Stable over restarts and renamings; goes into receipts' payer field and into logs."""
    name: str
    weight: int = 1
    """Share of the capacity relative to the other tenants, while there is not enough for all."""
    priority: int = INTERACTIVE
    cache: CacheUse = "never"
    mode: Mode | None = None
    """What of its answers is published unless a call asks for less; None: as the call says."""


def cache_scope(tenant: Tenant, salt: bytes) -> str:
    """The name under which nodes keep the tenant's answers: 64 hex digits that no other tenant has,
    and that name the tenant to nobody who does not know ``salt``."""
    return sha256(_SCOPE_DOMAIN + salt + tenant.id.encode()).hexdigest()


def share_scope(tenant: Tenant, salt: bytes, request: bytes) -> str:
    """The name under which nodes may take over what they computed for the tenant's prompts: 64 hex
    digits, of all its conversations that begin with the same message, so that nodes learn by it
    only which of those are one tenant's.

    ``request`` is in the OpenAI format. Empty where it has no messages.
    """
    try:
        messages = _BEGINNING.decode(request).messages
    except msgspec.MsgspecError:
        return ""
    if not messages:
        return ""
    first = sha256(messages[0]).digest()
    return sha256(_SHARE_DOMAIN + salt + first + tenant.id.encode()).hexdigest()


class _Beginning(msgspec.Struct, frozen=True, kw_only=True):
    messages: list[msgspec.Raw] = []


_BEGINNING: Final = msgspec.json.Decoder(_Beginning)

ANONYMOUS: Final = Tenant(id="", name="anonymous")
"""Every caller of a gateway that asks for no keys."""
