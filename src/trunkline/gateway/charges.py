"""What answers cost, and who pays: a hold before each answer, one charge beside its evidence.

A thin shell over ``core.budget``: it looks prices and budgets up in the routing policy, and hands
the charge to the transaction that stores the evidence. It refuses a call that its key's budget does
not cover, and one for a model whose price nobody knows, before any node hears of it.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import msgspec

from trunkline.base.errors import RequestError
from trunkline.base.ports import Clock
from trunkline.gateway.core.actions import Store
from trunkline.gateway.core.budget import DAY_MS, Books, Budget, Charge, Position
from trunkline.gateway.core.estimate import delivered_tokens
from trunkline.gateway.core.policy import KeyPolicy, Price, RoutingPolicy
from trunkline.gateway.core.price import Tokens, cost_nusd
from trunkline.gateway.core.tenant import Tenant
from trunkline.gateway.store import EvidenceStore

NO_POLICY: Final = KeyPolicy()


class Spending(msgspec.Struct, frozen=True, kw_only=True):
    """Counts since the process started, for whoever watches it."""

    held: int
    """Answers that hold something now."""
    charged: int
    charged_nusd: int
    estimated: int
    """Of ``charged``: answers whose provider did not say what they took."""
    refused: int
    """Calls that a budget did not cover."""


class _Quote(msgspec.Struct, frozen=True, kw_only=True):
    """What was agreed when an answer was asked for: a price that changes later is for later."""

    tenant: str
    prices: Mapping[str, Price]
    held_nusd: int


class Charges:
    """Every tenant's money."""

    def __init__(
        self, store: EvidenceStore, policy: Callable[[], RoutingPolicy], *, clock: Clock
    ) -> None:
        """``policy``: the routing policy of the moment."""
        self._store = store
        self._policy = policy
        self._clock = clock
        self._books = Books()
        self._quotes: dict[str, _Quote] = {}
        self._charged = 0
        self._charged_nusd = 0
        self._estimated = 0
        self._refused = 0

    async def start(self) -> None:
        """Read what earlier processes charged. What they held is void, for it left no evidence."""
        for tenant, day, nusd in await self._store.spending():
            self._books.load(tenant, day, nusd)

    @contextmanager
    def held(
        self, answer: str, tenant: Tenant, models: Collection[str], tokens: Tokens
    ) -> Iterator[None]:
        """Hold the most that the answer may cost while it is carried inside.

        ``models``: all that may serve it; ``tokens``: the most that it may use. Raises
        :class:`BudgetError`, and :class:`RequestError` 403 ``model_unpriced``.
        """
        policy = self._policy()
        own = policy.keys.get(tenant.name, NO_POLICY)
        budget = budget_of(own)
        if budget is not None and own.unpriced == "refuse":
            _require_prices(policy.prices, models)
        prices = [policy.prices[model] for model in models if model in policy.prices]
        nusd = max((cost_nusd(price, tokens) for price in prices), default=0)
        try:
            self._books.hold(answer, tenant.id, nusd, budget, self._clock.unix_ms())
        except BaseException:
            self._refused += 1
            raise
        self._quotes[answer] = _Quote(tenant=tenant.id, prices=policy.prices, held_nusd=nusd)
        try:
            yield
        finally:
            self._books.release(answer)
            self._quotes.pop(answer, None)

    def seal(self, answer: str, part: Store, ended_ms: int, prompt_tokens: int) -> Charge | None:
        """The charge for a verified part, to be stored with it; None: nothing is charged.

        From here only :meth:`written` ends the hold. Where the provider reported no usage at all it
        is estimated, by ``prompt_tokens`` and what was sent, and never above what was held; an
        answer that its node had kept costs nothing.
        """
        quote = self._quotes.get(answer)
        if quote is None:
            return None
        model = part.deployment.model
        price = quote.prices.get(model)
        charge = None
        if price is not None:
            usage = part.verified.receipt.usage
            tokens = Tokens(prompt=usage.prompt, completion=usage.completion, cached=usage.cached)
            silent = not usage.counted and not tokens.prompt and not tokens.completion
            if silent:
                tokens = Tokens(prompt=prompt_tokens, completion=delivered_tokens(part.text_bytes))
            nusd = cost_nusd(price, tokens)
            # Our own guess must not be dearer than the most that the request said.
            nusd = min(nusd, quote.held_nusd) if silent else nusd
            charge = Charge(
                answer=answer,
                tenant=quote.tenant,
                model=model,
                # What was kept was paid for when it was made.
                nusd=0 if part.verified.receipt.cached else nusd,
                tokens=tokens,
                day=ended_ms // DAY_MS,
                estimated=silent and not part.verified.receipt.cached,
            )
        self._books.seal(answer, charge)
        return charge

    def written(self, charge: Charge, *, stored: bool) -> None:
        """The disk has taken the evidence and this charge, or refused both."""
        self._books.settle(charge.answer, stored=stored)
        if stored:
            self._charged += 1
            self._charged_nusd += charge.nusd
            self._estimated += charge.estimated

    def position(self, tenant_id: str, name: str) -> tuple[Budget | None, Position]:
        """A tenant's budget, and where it stands in it now."""
        budget = budget_of(self._policy().keys.get(name, NO_POLICY))
        return budget, self._books.position(tenant_id, budget, self._clock.unix_ms())

    def spending(self) -> Spending:
        """Counts since the process started."""
        return Spending(
            held=self._books.holding,
            charged=self._charged,
            charged_nusd=self._charged_nusd,
            estimated=self._estimated,
            refused=self._refused,
        )


def budget_of(own: KeyPolicy) -> Budget | None:
    """The budget that a key's policy states."""
    if own.budget_usd is None:
        return None
    return Budget(limit=own.budget_usd, period=own.budget_period)


def _require_prices(prices: Mapping[str, Price], models: Collection[str]) -> None:
    for model in models:
        if model not in prices:
            raise RequestError(
                f"this key has a budget, and no price is known of {model}: state one in [prices], "
                'or unpriced = "allow" for the key',
                code="model_unpriced",
                param="model",
                status=403,
            )
