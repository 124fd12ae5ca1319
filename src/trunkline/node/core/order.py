"""Whether a stream's chunks came in their order, as far as they tell.

Chunks of the OpenAI format carry no numbers. Two things they say show that something is wrong: a
count of the tokens so far that falls (vLLM and SGLang count with each chunk), and the ``id`` of the
answer, which comes back after a chunk with another one: that was of another answer. An ``id`` that
is new in each chunk is some providers' habit, and says nothing.
"""

from typing import Final

from trunkline.base.errors import BadResponseError
from trunkline.schema.openai_answer import Chunk

BAD_CHUNK: Final = "upstream_bad_chunk"
"""The chunk is wrong; those before it were right."""
REPEATED: Final = "upstream_repeated_chunk"
"""What was passed on before is wrong."""


class Order:
    """Follows the chunks of one stream that say something."""

    __slots__ = ("_counted", "_counts", "_id", "_skipped", "_strayed")

    def __init__(self, *, counts: bool) -> None:
        """``counts``: their usage is that of the answer so far."""
        self._counts = counts
        self._counted = 0
        self._skipped = False
        """A count was more than one above the last, so there may be a chunk between."""
        self._id = ""
        self._strayed = False
        """One had another ``id`` than the first."""

    def note(self, chunk: Chunk) -> None:
        """The next one. Raises BadResponseError ``upstream_bad_chunk``, or
        ``upstream_repeated_chunk`` where those before may be the ones in the wrong place."""
        self._id = self._id or chunk.id
        if chunk.id == self._id and self._strayed:
            raise BadResponseError("a chunk of another answer came between", code=REPEATED)
        self._strayed = bool(chunk.id) and chunk.id != self._id
        if self._counts and chunk.usage is not None:
            self._note_count(chunk.usage.completion_tokens)

    def _note_count(self, counted: int) -> None:
        if not counted:
            # What is left out reads as zero, and no chunk says something in no tokens.
            return
        if counted < self._counted:
            code = REPEATED if self._skipped else BAD_CHUNK
            raise BadResponseError("a chunk is not in its place", code=code)
        self._skipped = self._skipped or counted > self._counted + 1
        self._counted = counted
