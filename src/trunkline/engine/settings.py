"""Which model an engine loads and how, as a role's configuration says it.

One form for who answers and for who checks: a verifier replays what a node's engine computed, and
has to be told of the same model in the same words.
"""

from typing import Final

import msgspec

from trunkline.base.errors import MalformedError
from trunkline.remote.target import parse_url

CONTEXT_TOKENS_MIN: Final = 64
CONTEXT_TOKENS_MAX: Final = 1_000_000
THREADS_MAX: Final = 256


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model to compute with. A role's own table adds to it."""

    model_path: str | None = None
    """A GGUF file. Absent: the model package that is installed."""
    model: str | None = None
    """Name of ``model_path``'s model. Absent: the file's name without its ending."""
    weights: str = "f16"
    """``f16``: best answers. ``as_shipped``: as in the file; a lone answer twice as fast."""
    context_tokens: int = 2048
    """Longest prompt plus answer. Memory: about 23 kB a token and sequence."""
    threads: int = 1
    """Threads that compute. More than the machine's idle cores is much slower, not faster."""

    def __post_init__(self) -> None:
        if self.model is not None and self.model_path is None:
            raise ValueError("model names the file of model_path: give both")
        if not CONTEXT_TOKENS_MIN <= self.context_tokens <= CONTEXT_TOKENS_MAX:
            raise ValueError(
                f"context_tokens must be between {CONTEXT_TOKENS_MIN} and {CONTEXT_TOKENS_MAX}"
            )
        if not 1 <= self.threads <= THREADS_MAX:
            raise ValueError(f"threads must be between 1 and {THREADS_MAX}")


def check_server(server: str) -> None:
    """Raise ``ValueError`` unless ``server`` can be called."""
    try:
        parse_url(server)
    except MalformedError:
        raise ValueError("server must be an address, http://host:port") from None
