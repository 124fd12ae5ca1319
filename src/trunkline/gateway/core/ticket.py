"""What a request shows to be given a place at a deployment, and what is known when it leaves."""

import msgspec

from trunkline.gateway.core.actions import Failure
from trunkline.gateway.core.tenant import Tenant
from trunkline.receipts import Receipt


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """One request that looks for a place."""

    answer: str
    tenant: Tenant
    priority: int
    deadline_s: float
    """Monotonic time after which no place is of any use."""
    tokens: int
    """Estimate of what it may cost: its prompt and what it may generate; 0: not estimated."""
    prompt_tokens: int = 0
    """Of ``tokens``: the prompt's."""
    text_bytes: int = 0
    """What ``prompt_tokens`` was estimated from; 0: not from text alone."""
    body_bytes: int = 0
    """What it keeps in memory while it waits."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt left its place."""

    failure: Failure | None = None
    tokens: int | None = None
    """What it did cost, by its receipt; None: not known."""
    prompt_tokens: int | None = None
    """Of ``tokens``: the prompt's."""
    first_token_s: float | None = None
    """From its start to the first token."""

    @classmethod
    def of(cls, receipt: Receipt, first_token_s: float | None) -> "Outcome":
        """How an attempt ended well. An answer that its node had kept used nothing, and says
        nothing of what others will take."""
        if receipt.cached:
            return cls(tokens=0)
        usage = receipt.usage
        return cls(
            tokens=usage.prompt + usage.completion,
            prompt_tokens=usage.prompt,
            first_token_s=first_token_s,
        )
