"""What a request will probably use, before it is sent: for limits, and for whose turn it is.

The prompt by its bytes, at a rate learned for each model from prompts of text alone; pictures by
their size; other attached data by its length. The output by the bound that the request sets, since
providers count that, or else by what the model typically generates. Real usage corrects both
(``learned``). It is no bound on cost: ``price.most_tokens`` is.
"""

import binascii
import re
import struct
from typing import Final

from trunkline.gateway.core.price import COMPLETION_TOKENS_UNSAID, most_tokens
from trunkline.gateway.core.quota import Cost
from trunkline.schema.attempt import Kind

TOKENS_PER_BYTE: Final = 0.4
"""Before anything was learned: English has 0.25, code and most other scripts up to this."""
TOKENS_PER_BYTE_MIN: Final = 0.02
TOKENS_PER_BYTE_MAX: Final = 1.0
"""A token is a byte at least."""
OUTPUT_TOKENS: Final = 512.0
"""Generated where neither the request nor experience says how much."""
SPREADS: Final = 2.0
"""How many mean deviations above the mean are expected."""
MODELS_MAX: Final = 1024
_WEIGHT: Final = 0.1

ATTACHED_BYTES_MIN: Final = 2048
"""A run of base64 as long as this is attached data, not text."""
IMAGE_TOKENS: Final = 1600
"""Of a picture whose size is not known."""
IMAGE_TOKENS_MIN: Final = 85
IMAGE_TOKENS_MAX: Final = 2500
PIXELS_PER_TOKEN: Final = 650
"""The dearest of the vendors' published rules: width times height over 750, or tiles of 512."""
ANSWER_BYTES_PER_TOKEN: Final = 4
"""Of what was generated: English as it is, other scripts have fewer."""
DATA_BYTES_PER_TOKEN: Final = 1000
"""Of attached sound and documents, as base64."""

_ATTACHED: Final = re.compile(rb"[A-Za-z0-9+/_-]{%d,}" % ATTACHED_BYTES_MIN)
_LINKED_IMAGE: Final = re.compile(rb'"image_url"\s*:\s*(?:\{\s*"url"\s*:\s*)?"https?:')
_HEAD_CHARS: Final = 65_536
"""Of a picture's base64 that its size is looked for in."""


class _Typical:
    """What one model was seen to use."""

    __slots__ = ("output", "spread", "tokens_per_byte")

    def __init__(self) -> None:
        self.tokens_per_byte = TOKENS_PER_BYTE
        self.output: float | None = None
        self.spread = 0.0

    @property
    def expected(self) -> int:
        if self.output is None:
            return int(OUTPUT_TOKENS)
        return max(round(self.output + SPREADS * self.spread), 1)


class Estimates:
    """Learns by model, as models are asked for."""

    def __init__(self) -> None:
        self._typical: dict[str, _Typical] = {}

    def cost(self, model: str, request: bytes, kind: Kind, choices: int) -> Cost:
        """What the request may use. ``request``: OpenAI's format, parsed before."""
        typical = self._typical.get(model) or _Typical()
        text_bytes, attached = _attached(request)
        prompt = max(round(text_bytes * typical.tokens_per_byte) + attached, 1)
        learnable = 0 if attached else text_bytes
        if kind != "chat":
            return Cost(input_tokens=prompt, text_bytes=learnable)
        most = most_tokens(request, kind, choices).completion
        unsaid = most == COMPLETION_TOKENS_UNSAID * choices
        output = min(typical.expected * choices, most) if unsaid else most
        return Cost(input_tokens=prompt, output_tokens=output, text_bytes=learnable)

    def learned(self, model: str, estimated: Cost, used: Cost) -> None:
        """An answer used so much of what had been estimated."""
        typical = self._typical.get(model)
        if typical is None:
            if len(self._typical) >= MODELS_MAX:
                self._typical.clear()
            typical = self._typical[model] = _Typical()
        if used.input_tokens > 0 and estimated.text_bytes:
            # By the bytes, not by how wrong the estimate was: that was made at the rate of its
            # time, and many made at one rate would correct today's again and again.
            seen = min(used.input_tokens / estimated.text_bytes, TOKENS_PER_BYTE_MAX)
            moved = typical.tokens_per_byte + _WEIGHT * (seen - typical.tokens_per_byte)
            typical.tokens_per_byte = max(moved, TOKENS_PER_BYTE_MIN)
        if used.output_tokens > 0:
            before = typical.output
            off = used.output_tokens - (used.output_tokens if before is None else before)
            typical.output = used.output_tokens if before is None else before + _WEIGHT * off
            typical.spread += _WEIGHT * (abs(off) - typical.spread)


def delivered_tokens(text_bytes: int) -> int:
    """What generating so much text took, where nobody counted."""
    return -(-text_bytes // ANSWER_BYTES_PER_TOKEN)


def _attached(request: bytes) -> tuple[int, int]:
    """Bytes of text, and the tokens of everything that is none."""
    tokens = IMAGE_TOKENS * len(_LINKED_IMAGE.findall(request))
    text_bytes = len(request)
    if text_bytes < ATTACHED_BYTES_MIN:
        return text_bytes, tokens
    for found in _ATTACHED.finditer(request):
        text_bytes -= found.end() - found.start()
        before = request[max(found.start() - 40, 0) : found.start()]
        if b"data:image" in before:
            tokens += image_tokens(found[0][:_HEAD_CHARS])
        else:
            tokens += (found.end() - found.start()) // DATA_BYTES_PER_TOKEN
    return text_bytes, tokens


def image_tokens(base64_head: bytes) -> int:
    """Tokens of a picture, from the beginning of its base64."""
    try:
        size = _pixels(binascii.a2b_base64(base64_head[: len(base64_head) // 4 * 4]))
    except (binascii.Error, struct.error, IndexError):
        size = None
    if size is None:
        return IMAGE_TOKENS
    return min(max(size // PIXELS_PER_TOKEN, IMAGE_TOKENS_MIN), IMAGE_TOKENS_MAX)


def _pixels(data: bytes) -> int | None:
    """Width times height by the picture's own header (PNG, GIF, JPEG). None: another format."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        width, height = struct.unpack_from(">II", data, 16)
        return int(width * height)
    if data.startswith((b"GIF87a", b"GIF89a")):
        width, height = struct.unpack_from("<HH", data, 6)
        return int(width * height)
    if data.startswith(b"\xff\xd8"):
        return _jpeg_pixels(data)
    return None


def _jpeg_pixels(data: bytes) -> int | None:
    """By the frame header, the first segment of a type C0 to CF that is no table."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        kind = data[at + 1]
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return int(width * height)
        (length,) = struct.unpack_from(">H", data, at + 2)
        at += 2 + max(length, 2)
    return None
