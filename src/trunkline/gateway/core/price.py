"""What an answer costs, and the most that one may cost: whole billionths of a dollar (nano-USD).

Prices are per million tokens in millionths of a dollar, so price times tokens is exact in
millionths of a millionth; it is rounded up once per answer. A millionth of a dollar would be too
coarse a unit: to embed a short text costs less. Nothing here knows where prices come from.
"""

from typing import Final

import msgspec

from trunkline.gateway.core.policy import Price
from trunkline.schema.attempt import Kind

NANO_PER_MICRO: Final = 1_000
PICO_PER_NANO: Final = 1_000
COST_NUSD_MAX: Final = 10**15
"""A million dollars. No answer costs more, whatever a node says that it used."""
COMPLETION_TOKENS_UNSAID: Final = 8_192
"""What one choice may generate where the request sets no bound of its own."""
COMPLETION_TOKENS_MAX: Final = 10_000_000


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """Used by an answer, or the most that one may use."""

    prompt: int
    completion: int
    cached: int = 0
    """Of the prompt: read from the provider's cache."""


class _Bounds(msgspec.Struct, frozen=True):
    """The members of a request that bound what it generates. Checked long before."""

    max_completion_tokens: int | None = None
    max_tokens: int | None = None


_BOUNDS = msgspec.json.Decoder(_Bounds)


def cost_nusd(price: Price, tokens: Tokens) -> int:
    """What ``tokens`` cost, nano-USD, rounded up; at most ``COST_NUSD_MAX``."""
    cached = min(tokens.cached, tokens.prompt)
    cached_price = price.input if price.cached_input is None else price.cached_input
    pico = (
        (tokens.prompt - cached) * price.input
        + cached * cached_price
        + tokens.completion * price.output
    )
    return min(-(-int(pico) // PICO_PER_NANO), COST_NUSD_MAX)


def most_tokens(request: bytes, kind: Kind, choices: int) -> Tokens:
    """The most that a request is taken to use. ``request``: OpenAI's format, parsed before.

    A token is at least one byte of the request, so its length bounds the prompt, except where it
    names pictures by address. What is generated beyond a bound is charged all the same.
    """
    if kind != "chat":
        return Tokens(prompt=len(request), completion=0)
    try:
        said = _BOUNDS.decode(request)
    except msgspec.MsgspecError:
        said = _Bounds()
    # Where both are said, some providers go by the one, some by the other.
    each = max(said.max_completion_tokens or 0, said.max_tokens or 0) or COMPLETION_TOKENS_UNSAID
    completion = min(each, COMPLETION_TOKENS_MAX) * choices
    return Tokens(prompt=len(request), completion=completion)
