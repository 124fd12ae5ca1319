"""What the gateway tells of keys and budgets: to the holder of a key, and to its administrator.

No secret can leave here, for none is known. Keys are made and revoked in their store by
``trunkline keys``, not through this API.
"""

from typing import Final

import msgspec

from trunkline.gateway.charges import Charges, Spending
from trunkline.gateway.core.budget import Period, usd_text
from trunkline.gateway.keys import Keys
from trunkline.gateway.own_api import local_only
from trunkline.runtime.http import Call, Router

KEYS_PATH: Final = "/trunkline/v1/keys"


class KeyMoney(msgspec.Struct, frozen=True, kw_only=True):
    """Where one key's tenant stands. Amounts are US dollars as decimal text."""

    tenant: str
    name: str
    budget_usd: str | None
    """None: no budget; what is spent is then told over all time."""
    budget_period: Period | None
    spent_usd: str
    held_usd: str
    """Set aside for answers in progress."""
    left_usd: str | None
    period_ends_ms: int | None
    """When the next period begins, Unix milliseconds; None: never."""


class KeyList(msgspec.Struct, frozen=True, kw_only=True):
    """``GET /trunkline/v1/keys``: the keys in force, by name."""

    keys: tuple[KeyMoney, ...]
    spending: Spending


def key_money(charges: Charges, tenant: str, name: str) -> KeyMoney:
    """A tenant's money now."""
    budget, position = charges.position(tenant, name)
    left = position.left_nusd
    return KeyMoney(
        tenant=tenant,
        name=name,
        budget_usd=None if budget is None else budget.limit.text(),
        budget_period=None if budget is None else budget.period,
        spent_usd=usd_text(position.spent_nusd),
        held_usd=usd_text(position.held_nusd),
        left_usd=None if left is None else usd_text(left),
        period_ends_ms=position.ends_ms,
    )


class KeysApi:
    """Handlers."""

    def __init__(self, keys: Keys, charges: Charges) -> None:
        self._keys = keys
        self._charges = charges

    def add_routes(self, router: Router) -> None:
        """Register the paths."""
        router.add("GET", KEYS_PATH, local_only(self._all))
        router.add("GET", KEYS_PATH + "/self", self._own)

    async def _own(self, call: Call) -> None:
        """The caller's own budget."""
        tenant = self._keys.authenticate(call)
        await call.reply_json(200, key_money(self._charges, tenant.id, tenant.name))

    async def _all(self, call: Call) -> None:
        """Every key in force."""
        found = [key_money(self._charges, id_, name) for id_, name in self._keys.in_force()]
        await call.reply_json(200, KeyList(keys=tuple(found), spending=self._charges.spending()))
