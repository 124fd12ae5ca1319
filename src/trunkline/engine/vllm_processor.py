"""vLLM's logits processor that makes a vLLM server choose by our rule, so that any verifier can
replay its answers: ``vllm serve … --logits-processors trunkline.engine.vllm_processor:KeyedNoise``.

Loaded by vLLM in its own processes; nothing of ours imports it. For requests that carry the extra
argument ``trunkline`` (``keyed.py``) it chooses the token itself, from the model's logits as they
are, and leaves vLLM nothing but that token. Such a request asks vLLM for temperature 0 and nothing
else that bends logits, or it is refused. Requests without the argument are left alone.

Interface: ``vllm.v1.sample.logits_processor.LogitsProcessor``, that of vLLM's V1 model runner.
Where V2 is the default, start the server with ``VLLM_USE_V2_MODEL_RUNNER=0`` (else it does not
start). By ``--logits-processors``, and not as an installed plugin: only then does vLLM keep the
tokens said so far up to date under asynchronous scheduling, which penalties need. Not with
speculative decoding, with which vLLM takes no processors.

Driven against vLLM 0.32.0 on CPUs (``docs/adr/0029``); not on a GPU so far.
"""

from typing import TYPE_CHECKING

import torch
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, MoveDirectionality

from trunkline.engine.keyed import ARGUMENT, Batch, Row, decode
from trunkline.engine.keyed_torch import choose

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.config import VllmConfig

_NEUTRAL = {
    "temperature": 0.0,
    "n": 1,
    "repetition_penalty": 1.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "min_tokens": 0,
    "logit_bias": None,
    "allowed_token_ids": None,
    "bad_words": None,
    "structured_outputs": None,
    "thinking_token_budget": None,
}
"""vLLM's own parameters that a keyed request leaves as they are."""


class KeyedNoise(LogitsProcessor):  # type: ignore[misc]  # vLLM is not installed where types are checked
    """See the module."""

    def __init__(
        self, vllm_config: "VllmConfig", device: torch.device, is_pin_memory: bool
    ) -> None:
        self._batch = Batch()

    @classmethod
    def validate_params(cls, sampling_params: "SamplingParams") -> None:
        """Refuse a request before it is admitted, by ``ValueError``: a 400 for its caller."""
        value = (sampling_params.extra_args or {}).get(ARGUMENT)
        if value is None:
            return
        decode(value)
        for name, neutral in _NEUTRAL.items():
            found = getattr(sampling_params, name, neutral)
            if found != neutral and (found or neutral):
                raise ValueError(f"{ARGUMENT}: leave {name} as it is")

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        if batch_update is None:
            return
        self._batch.update(
            removed=batch_update.removed,
            added=[
                (index, _row(params, prompt, output))
                for index, params, prompt, output in batch_update.added
            ],
            moved=[
                (source, target, how == MoveDirectionality.SWAP)
                for source, target, how in batch_update.moved
            ],
        )

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        rows = self._batch.rows
        if not rows:
            return logits
        ours = list(rows.values())
        indices = torch.tensor(list(rows), device=logits.device)
        chosen = choose(
            logits[indices],
            [row.keyed.sampling for row in ours],
            positions=[row.position for row in ours],
            counts=[row.counts() for row in ours],
        )
        logits[indices] = -torch.inf
        logits[indices, chosen] = 0.0
        return logits


def _row(params: "SamplingParams", prompt: list[int] | None, output: list[int]) -> Row | None:
    value = (params.extra_args or {}).get(ARGUMENT)
    if value is None:
        return None
    keyed = decode(value)
    given = (prompt or [])[-keyed.given :] if keyed.given else []
    return Row(keyed=keyed, prefix=tuple(given), output=output)
