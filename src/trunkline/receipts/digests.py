"""What a receipt binds besides text: digests of requests and of token ids, each in its own domain.

Specified in ``docs/spec/receipt.md``, "Digests". Every hash input starts with a line that names its
kind and version, so that no request body can be passed off as a list of tokens, or as a stream.
"""

import struct
from collections.abc import Sequence

from trunkline.crypto.digest import digest

REQUEST_DOMAIN = b"trunkline.request/v1\n"
PROMPT_DOMAIN = b"trunkline.prompt/v1\n"
TOKENS_DOMAIN = b"trunkline.tokens/v1\n"
PREFIX_DOMAIN = b"trunkline.prefix/v1\n"


def request_digest(raw: bytes) -> str:
    """``sha256:<hex>`` of a request body exactly as sent.

    Used twice in a receipt: for the body that the app sent (``request.client``) and for the
    ``request`` bytes that the node was given (``request.digest``).
    """
    return digest(REQUEST_DOMAIN + raw)


def prompt_digest(tokens: Sequence[int]) -> str:
    """``sha256:<hex>`` of a rendered prompt's token ids, each a 32-bit little-endian integer.

    Raises ``ValueError`` for an id outside 0 to 2³²−1.
    """
    return digest(PROMPT_DOMAIN + _pack(tokens))


def tokens_digest(choices: Sequence[Sequence[int]]) -> str:
    """``sha256:<hex>`` of an answer's token ids, per choice in index order.

    Each choice is preceded by its length, so that moving a token to the next choice shows. Raises
    ``ValueError`` for an id outside 0 to 2³²−1.
    """
    parts = [TOKENS_DOMAIN, struct.pack("<I", len(choices))]
    for tokens in choices:
        parts += (struct.pack("<I", len(tokens)), _pack(tokens))
    return digest(b"".join(parts))


def prefix_digest(text: str) -> str:
    """``sha256:<hex>`` of the text that an answer is continued after, in UTF-8.

    Raises ``ValueError`` for a text that is not Unicode (a lone surrogate).
    """
    return digest(PREFIX_DOMAIN + text.encode())


def _pack(tokens: Sequence[int]) -> bytes:
    try:
        return struct.pack(f"<{len(tokens)}I", *tokens)
    except struct.error as error:
        raise ValueError("a token id is outside 0 to 2^32-1") from error
