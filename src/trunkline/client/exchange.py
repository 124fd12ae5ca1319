"""One call as the app's side saw it: the bytes sent, and the bytes that came back.

A record that fills up while the answer passes; it delays nothing and changes nothing. It keeps a
copy of the answer until the receipt was checked, because the signed chain over an answer's events
starts at the attempt's name, which only the receipt tells. Larger answers than ``ANSWER_BYTES_MAX``
pass as well, and are then said to be unproven.
"""

from dataclasses import dataclass, field
from typing import Final

from trunkline.schema import sse
from trunkline.schema.attempt import ClientFormat

ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
PATHS: Final[dict[str, ClientFormat]] = {
    "/v1/chat/completions": "openai.chat",
    "/v1/responses": "openai.responses",
    "/v1/embeddings": "openai.embeddings",
    "/v1/messages": "anthropic.messages",
}


def format_of(path: str) -> tuple[ClientFormat, str] | None:
    """Format of a URL's path and what stands before it; None: no answer comes from there."""
    for suffix, format_ in PATHS.items():
        if path.endswith(suffix):
            return format_, path.removesuffix(suffix)
    return None


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One HTTP exchange that asks for an answer."""

    format: ClientFormat
    request: bytes
    nonce: str
    """64 hex digits, sent with the request: what the receipts have to bind."""
    sent_ms: int
    """Unix milliseconds by the app's clock."""
    kept: bool
    """The gateway was asked to keep the bodies."""
    answer: str = ""
    """The answer's id, as the gateway named it; empty: it named none."""
    encoded: bool = False
    """It came compressed although that was not asked for: not the bytes that were signed."""
    closed: bool = False
    """The response's body came to its end."""
    response: bytearray = field(default_factory=bytearray)
    overflowed: bool = False

    @property
    def ended(self) -> bool:
        """The app has seen the whole answer. Clients may leave a stream once they read its end
        marker, before the body's own end."""
        return self.closed or self.response.endswith(sse.DONE)

    def add(self, data: bytes) -> None:
        """Take note of bytes that pass."""
        if self.overflowed or len(self.response) + len(data) > ANSWER_BYTES_MAX:
            self.overflowed = True
            self.response.clear()
        else:
            self.response += data

    def forget(self) -> None:
        """Let go of the answer: it was checked."""
        self.response = bytearray()
