"""What a receipt says of usage, for what a provider reported."""

import pytest

from trunkline.node.core.account import reported
from trunkline.receipts import ReceiptUsage
from trunkline.schema.openai_answer import PromptTokensDetails, Usage


@pytest.mark.parametrize(("said", "cached"), [(7, 7), (None, 0), (-1, 0), (2**60, 0)])
def test_tokens_from_the_cache_are_told_apart(said: int | None, cached: int) -> None:
    details = PromptTokensDetails(cached_tokens=said)
    usage = Usage(prompt_tokens=10, completion_tokens=2, prompt_tokens_details=details)
    assert reported(usage) == ReceiptUsage(cached=cached, completion=2, counted=False, prompt=10)


def test_a_provider_that_says_nothing_of_its_cache() -> None:
    expected = ReceiptUsage(completion=2, counted=False, prompt=10)
    assert reported(Usage(prompt_tokens=10, completion_tokens=2)) == expected
    nothing = Usage(prompt_tokens=10, completion_tokens=2, prompt_tokens_details=None)
    assert reported(nothing) == expected
    assert reported(None) == ReceiptUsage(completion=0, counted=False, prompt=0)
