"""The sampling rule (``sampling/choice.py``) on tensors, for servers whose logits never leave an
accelerator: many rows at once, the same token as the reference in each.

Noise is the same to the last bit up to the uniforms: integers, and no product of them over 2⁴⁹, so
that nothing rests on how an accelerator overflows. Logarithms and sums are the device's own, which
the rule allows for: they decide where scores agree to fifteen digits, or a sum meets its limit to
twelve.

Everything is float64 and int64. Needs ``torch``, which the server brings. Refuses nothing: a row
without a finite logit gets some token, as it would from the server.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from trunkline.inference.ports import Sampling

if TYPE_CHECKING:
    from torch import Tensor

ROWS_AT_ONCE: Final = 16
"""Rows whose noise is held at a time: a megabyte each, in each of some ten buffers, with a
vocabulary of 128,000."""

_ROUNDS: Final = 10
_MULTIPLIERS: Final = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS: Final = (0x9E3779B9, 0xBB67AE85)
_WORD: Final = 0xFFFFFFFF
_HALF: Final = 0xFFFF
_TWO_53: Final = 2.0**-53
_WORDS: Final = struct.Struct("<8I")


def choose(
    logits: "Tensor",
    rules: Sequence[Sampling],
    *,
    positions: Sequence[int],
    counts: Sequence[Mapping[int, int]],
) -> "Tensor":
    """The token of each row, int64, shape (rows,), on the logits' device.

    ``logits``: float32, shape (rows, vocabulary); the others, one a row, as of
    :func:`trunkline.sampling.choose`. No rule has a grammar.
    """
    import torch

    return torch.cat(
        [
            _choose(logits[at:end], rules[at:end], positions[at:end], counts[at:end])
            for at in range(0, len(rules), ROWS_AT_ONCE)
            for end in (at + ROWS_AT_ONCE,)
        ]
    )


def _choose(
    logits: "Tensor",
    rules: Sequence[Sampling],
    positions: Sequence[int],
    counts: Sequence[Mapping[int, int]],
) -> "Tensor":
    import torch

    x = logits.to(torch.float64)
    for row, (rule, said) in enumerate(zip(rules, counts, strict=True)):
        _adjust(x[row], rule, said)
    if all(rule.temperature == 0.0 for rule in rules):
        return x.argmax(dim=-1)
    # Greedy rows take part as if at temperature 1, and no noise is added to them.
    z = x / _column([rule.temperature or 1.0 for rule in rules], x)
    noise = gumbels([rule.seed for rule in rules], positions, x)
    drawn = _column([float(rule.temperature > 0.0) for rule in rules], x) > 0.0
    scores = torch.where(drawn, z + noise, z)
    if any(rule.top_k or rule.top_p < 1.0 or rule.min_p for rule in rules):
        scores = torch.where(_survivors(z, rules) | ~drawn, scores, -torch.inf)
    # The first of equal ones, which is the lowest id.
    return scores.argmax(dim=-1)


def _adjust(x: "Tensor", rule: Sampling, said: Mapping[int, int]) -> None:
    """Steps 1 and 2 of the rule, in place."""
    import torch

    moves = [
        (token, -(rule.frequency_penalty * count + rule.presence_penalty))
        for token, count in said.items()
        if rule.frequency_penalty or rule.presence_penalty
    ]
    for pairs in (moves, rule.logit_bias.items()):
        known = [(token, by) for token, by in pairs if 0 <= token < x.numel()]
        if known:
            tokens = torch.tensor([token for token, _ in known], device=x.device)
            x[tokens] += torch.tensor([by for _, by in known], dtype=x.dtype, device=x.device)


def _survivors(z: "Tensor", rules: Sequence[Sampling]) -> "Tensor":
    """Step 5: which tokens the limits let through, bool, shape as ``z``."""
    import torch

    # Stable: equal ones by ascending id.
    ranked, order = torch.sort(z, dim=-1, descending=True, stable=True)
    size = z.shape[-1]
    rank = torch.arange(size, device=z.device)
    inside = rank < _column([float(rule.top_k or size) for rule in rules], z)
    weights = (ranked - ranked[:, :1]).exp() * inside
    # Of the likelier ones: what is below the share of the sum lets the next one through.
    before = weights.cumsum(dim=-1).roll(1, dims=-1)
    before[:, 0] = 0.0
    share = _column([rule.top_p for rule in rules], z)
    inside &= (before < share * weights.sum(dim=-1, keepdim=True)) | (share >= 1.0) | (rank == 0)
    floors = _column([rule.min_p for rule in rules], z).log()
    inside &= ranked >= ranked[:, :1] + floors
    return torch.zeros_like(inside).scatter(-1, order, inside)


def gumbels(seeds: Sequence[bytes], positions: Sequence[int], like: "Tensor") -> "Tensor":
    """The noise of every token (``sampling/noise.py``), a row for each seed: float64, of the shape
    and on the device of ``like``."""
    import torch

    words = [_WORDS.unpack(seed) for seed in seeds]
    s = [torch.tensor([row[at] for row in words], device=like.device)[:, None] for at in range(6)]
    place = torch.tensor(list(positions), device=like.device)[:, None]
    size = like.shape[-1]
    blocks = torch.arange((size + 1) // 2, device=like.device)[None, :]
    x0, x1, x2, x3 = philox4x32((blocks ^ s[2], place ^ s[3], s[4], s[5]), (s[0], s[1]))
    n = torch.stack((units(x0, x1), units(x2, x3)), dim=-1).reshape(len(words), -1)[:, :size]
    uniform = (n.to(torch.float64) * _TWO_53 + 0.5 * _TWO_53).clamp(max=1.0 - _TWO_53)
    return -(-uniform.log()).log()


def philox4x32(
    counter: tuple["Tensor", "Tensor", "Tensor", "Tensor"], key: tuple["Tensor", "Tensor"]
) -> tuple["Tensor", "Tensor", "Tensor", "Tensor"]:
    """As ``sampling/philox.py``, on int64 arrays of 32-bit words; the key's broadcast like the
    counter's. Operators alone, so that any library's arrays will do."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _product(c0, _MULTIPLIERS[0])
        high1, low1 = _product(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0 = (k0 + _KEY_STEPS[0]) & _WORD
        k1 = (k1 + _KEY_STEPS[1]) & _WORD
    return c0, c1, c2, c3


def units(a: "Tensor", b: "Tensor") -> "Tensor":
    """Two words as a 53-bit integer: step 3 of the noise."""
    return ((b >> 5) << 26) | (a >> 6)


def _product(word: "Tensor", factor: int) -> tuple["Tensor", "Tensor"]:
    """High and low word of a product, from halves, so that no step needs more than 49 bits."""
    low = (word & _HALF) * factor
    carried = (word >> 16) * factor + (low >> 16)
    return carried >> 16, ((carried & _HALF) << 16) | (low & _HALF)


def _column(values: Sequence[float], like: "Tensor") -> "Tensor":
    """A number for each row, shape (rows, 1)."""
    import torch

    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None]
