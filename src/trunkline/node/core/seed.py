"""Where the seed of an answer comes from, and what its node says of that.

``docs/spec/receipt.md``, "Seed". Pure: nonces are handed in.
"""

import msgspec

from trunkline.base.errors import RequestError
from trunkline.inference.plan import SeedSource
from trunkline.node.core.statement import bound_request
from trunkline.receipts import Nonce, bound_bytes
from trunkline.sampling import answer_seed
from trunkline.schema.attempt import Attempt


class Seed(msgspec.Struct, frozen=True, kw_only=True):
    """The answer's seed and what it was made from."""

    value: bytes
    source: SeedSource
    node_nonce: str = ""
    nonces: str = ""
    nonce_index: int = 0


def caller_given(asked: bytes) -> Seed:
    """What the request's own ``seed`` stands for."""
    return Seed(value=asked, source="caller")


def from_nonces(attempt: Attempt, nonce: Nonce) -> Seed:
    """The seed that neither side could choose."""
    return Seed(
        value=_seed(attempt, nonce.value),
        source="nonces",
        node_nonce=nonce.value.hex(),
        nonces=nonce.root.hex(),
        nonce_index=nonce.index,
    )


def inherited(attempt: Attempt, asked: bytes | None) -> Seed:
    """The seed that an earlier attempt at the answer had. ``asked``: by the request itself.

    Raises :class:`RequestError` where it is not the one that the request, or the nonce that came
    with it, gives.
    """
    value = bytes.fromhex(attempt.seed or "")
    if asked is not None and asked != value:
        raise _wrong("seed", "is not the one that the request's own seed stands for")
    if attempt.node_nonce is None:
        return Seed(value=value, source="inherited")
    if _seed(attempt, bytes.fromhex(attempt.node_nonce)) != value:
        raise _wrong("node_nonce", "the seed is not made from it")
    return Seed(
        value=value,
        source="inherited",
        node_nonce=attempt.node_nonce,
        nonces=attempt.nonces or "",
        nonce_index=attempt.nonce_index,
    )


def _seed(attempt: Attempt, node_nonce: bytes) -> bytes:
    digest = bound_bytes(bound_request(attempt))
    return answer_seed(bytes.fromhex(attempt.caller_nonce), node_nonce, digest)


def _wrong(param: str, why: str) -> RequestError:
    return RequestError(f"{param}: {why}", code="invalid_attempt", param=param)
