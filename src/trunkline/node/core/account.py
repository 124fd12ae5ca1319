"""What a receipt says was used: counted by this node, or the upstream's word, never a mixture."""

from trunkline.receipts import ReceiptUsage
from trunkline.schema.openai_answer import PromptTokensDetails, Usage

COUNT_MAX = 2**53 - 1


def counted(usage: Usage) -> ReceiptUsage:
    """Counted by this node from token ids.

    Of the whole answer, tokens taken over from an earlier attempt included: that attempt has no
    receipt, and ``response.resumed`` says how many there were.
    """
    return ReceiptUsage(
        completion=usage.completion_tokens, counted=True, prompt=usage.prompt_tokens
    )


def reported(usage: Usage | None) -> ReceiptUsage:
    """What the upstream said; zeros where it said nothing, or nothing a receipt can hold."""
    if usage is None:
        return ReceiptUsage(completion=0, counted=False, prompt=0)
    details = usage.prompt_tokens_details
    cached = details.cached_tokens if isinstance(details, PromptTokensDetails) else None
    return ReceiptUsage(
        cached=_count(cached or 0),
        completion=_count(usage.completion_tokens),
        counted=False,
        prompt=_count(usage.prompt_tokens),
    )


def _count(value: int) -> int:
    return value if 0 <= value <= COUNT_MAX else 0
