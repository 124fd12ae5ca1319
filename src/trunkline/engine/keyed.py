"""What a server of another make is told with each request, so that it chooses tokens by our rule:
sampling, seed, and where in the answer its first token stands.

It travels as text under one key of a request's extra arguments (vLLM: ``vllm_xargs``, which take no
objects). Read where the server's own process would die of a bad value, so nothing passes that the
rule could stumble over. Refuses grammars, which are the embedded engine's.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from trunkline.inference.ports import Sampling
from trunkline.sampling import SEED_BYTES

ARGUMENT: Final = "trunkline"
"""The extra argument's name."""
TEXT_BYTES_MAX: Final = 64 * 1024
LOGIT_BIAS_MAX: Final = 1024
PARAMETER_MAX: Final = 100.0
"""Of temperature, penalties and bias."""
POSITION_MAX: Final = 1 << 24


class Keyed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a request's tokens are chosen. ``sampling`` asks for no grammar."""

    sampling: Sampling
    given: int = 0
    """How many of the prompt's last tokens are the answer's first: produced elsewhere."""

    def __post_init__(self) -> None:
        rule = self.sampling
        amounts = (rule.frequency_penalty, rule.presence_penalty, *rule.logit_bias.values())
        # Written so that a NaN is refused too.
        if not (
            0.0 <= rule.temperature <= PARAMETER_MAX
            and 0.0 <= rule.top_p <= 1.0
            and 0.0 <= rule.min_p <= 1.0
            and rule.top_k >= 0
            and all(math.isfinite(one) and abs(one) <= PARAMETER_MAX for one in amounts)
            and len(rule.logit_bias) <= LOGIT_BIAS_MAX
            and min(rule.logit_bias, default=0) >= 0
        ):
            raise ValueError("a sampling parameter is out of its range")
        if len(rule.seed) != SEED_BYTES or rule.grammar or not 0 <= self.given <= POSITION_MAX:
            raise ValueError(
                "a seed of 32 bytes, a place in the answer and no grammar are expected"
            )

    @property
    def penalised(self) -> bool:
        """What was said already counts."""
        return bool(self.sampling.frequency_penalty or self.sampling.presence_penalty)


def encode(keyed: Keyed) -> str:
    """The argument's value."""
    return msgspec.json.encode(keyed).decode()


def decode(value: object) -> Keyed:
    """Read the argument's value. Raises ``ValueError`` saying nothing of what it holds."""
    if not isinstance(value, str) or len(value) > TEXT_BYTES_MAX:
        raise ValueError(f"{ARGUMENT}: text is expected")
    try:
        return msgspec.json.decode(value, type=Keyed)
    except msgspec.DecodeError as error:
        raise ValueError(f"{ARGUMENT}: {error}") from None


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A request in a server's batch."""

    keyed: Keyed
    prefix: tuple[int, ...]
    """The answer's tokens that came with the prompt."""
    output: Sequence[int]
    """Those produced since; the server's own list, which grows."""

    @property
    def position(self) -> int:
        """Of the next token in the answer."""
        return len(self.prefix) + len(self.output)

    def counts(self) -> Counter[int]:
        """How often each token was said; empty where that does not matter."""
        if not self.keyed.penalised:
            return Counter()
        return Counter(self.prefix) + Counter(self.output)


class Batch:
    """Which rows of a server's batch choose by our rule, as the batch changes (vLLM:
    ``BatchUpdate``, whose order of steps this keeps: removed, added, moved)."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        """By index in the batch."""

    def update(
        self,
        *,
        removed: Iterable[int],
        added: Iterable[tuple[int, Row | None]],
        moved: Iterable[tuple[int, int, bool]],
    ) -> None:
        """``added``: None for a request that is not ours. ``moved``: from, to, and whether the two
        change places."""
        for index in removed:
            self.rows.pop(index, None)
        for index, row in added:
            self._put(index, row)
        for source, target, swapped in moved:
            mine, theirs = self.rows.pop(source, None), self.rows.pop(target, None)
            self._put(target, mine)
            if swapped:
                self._put(source, theirs)

    def _put(self, index: int, row: Row | None) -> None:
        self.rows.pop(index, None)
        if row is not None:
            self.rows[index] = row
