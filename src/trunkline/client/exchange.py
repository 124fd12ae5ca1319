"""One call as the app's side saw it: the bytes sent, and the bytes that came back.

A record that is written while the answer passes; it delays nothing and changes nothing. Answers are
hashed, and not kept: see :class:`~trunkline.evidence.response.PassingResponse` for those that are
nodes' own bytes, and :class:`~trunkline.client.shown.ShownEvents` for the others.
"""

from dataclasses import dataclass, field
from typing import Final

from trunkline.client.shown import ShownEvents
from trunkline.evidence.content import VERBATIM
from trunkline.evidence.response import PassingResponse
from trunkline.schema.attempt import ClientFormat

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
    passed_bytes: int = 0
    """Of the response's body, so far."""
    response: PassingResponse | ShownEvents = field(init=False)

    def __post_init__(self) -> None:
        self.response = PassingResponse() if self.format in VERBATIM else ShownEvents()

    @property
    def ended(self) -> bool:
        """The app has seen the whole answer. Clients may leave a stream once they read its end
        marker, before the body's own end."""
        return self.closed or self.response.done

    def add(self, data: bytes) -> None:
        """Take note of bytes that pass."""
        self.passed_bytes += len(data)
        self.response.add(data)

    def close(self) -> None:
        """The response's body came to its end."""
        self.response.close()
        self.closed = True

    def forget(self) -> None:
        """Let go of what is kept of the answer: it was checked."""
        self.response.forget()
