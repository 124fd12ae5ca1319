"""Google Gemini's answers, as read: ``GenerateContentResponse`` of the Gemini API (v1beta).

A stream's events are of the same type, each with what is new. The view holds what the grid
translates; members unknown to it are skipped, because the format grows. It refuses nothing but what
does not parse.
"""

from typing import Annotated, Final, TypeAlias

import msgspec

from trunkline.base.errors import MalformedError
from trunkline.schema.parsing import ABSENT

EVENT_BYTES_MAX: Final = 64 * 1024 * 1024

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class _Camel(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The wire's names are in camel case."""


class FunctionCall(_Camel, frozen=True, kw_only=True):
    id: str = ""
    name: str = ""
    args: msgspec.Raw = ABSENT
    """The arguments, an object; absent for none."""


class Part(_Camel, frozen=True, kw_only=True):
    """One of its members is given. Members that are not asked for (media, code) are only noted."""

    text: str | None = None
    thought: bool = False
    function_call: FunctionCall | None = None
    inline_data: msgspec.Raw = ABSENT
    file_data: msgspec.Raw = ABSENT
    executable_code: msgspec.Raw = ABSENT
    code_execution_result: msgspec.Raw = ABSENT


class Content(_Camel, frozen=True, kw_only=True):
    parts: tuple[Part, ...] = ()


class ScoredToken(_Camel, frozen=True, kw_only=True):
    token: str = ""
    log_probability: float = 0.0


class TopCandidates(_Camel, frozen=True, kw_only=True):
    candidates: tuple[ScoredToken, ...] = ()


class LogprobsResult(_Camel, frozen=True, kw_only=True):
    chosen_candidates: tuple[ScoredToken, ...] = ()
    top_candidates: tuple[TopCandidates, ...] = ()


class Candidate(_Camel, frozen=True, kw_only=True):
    index: int = 0
    content: Content = Content()
    finish_reason: str = ""
    """Empty while the candidate goes on."""
    logprobs_result: LogprobsResult | None = None


class PromptFeedback(_Camel, frozen=True, kw_only=True):
    block_reason: str = ""
    """Why the prompt was not answered; empty if it was."""


class UsageMetadata(_Camel, frozen=True, kw_only=True):
    """Counted model tokens of all candidates, so far."""

    prompt_token_count: Count = 0
    """Cached tokens included."""
    tool_use_prompt_token_count: Count = 0
    cached_content_token_count: Count | None = None
    candidates_token_count: Count = 0
    """Thoughts not included."""
    thoughts_token_count: Count | None = None


class Failure(_Camel, frozen=True, kw_only=True):
    """``google.rpc.Status``, as far as it is no prose."""

    status: str = ""


class Response(_Camel, frozen=True, kw_only=True):
    candidates: tuple[Candidate, ...] = ()
    prompt_feedback: PromptFeedback | None = None
    usage_metadata: UsageMetadata | None = None
    model_version: str = ""
    response_id: str = ""
    error: Failure | None = None
    """Sent within a stream in place of an answer."""


_RESPONSE: Final = msgspec.json.Decoder(Response)


def parse_response(data: bytes) -> Response:
    """Read an answer, or one event of it. Raises :class:`MalformedError`."""
    if len(data) > EVENT_BYTES_MAX:
        raise MalformedError("a response is too large", code="bad_chunk")
    try:
        return _RESPONSE.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Not the parser's message: it may quote the answer.
        raise MalformedError("a response does not parse", code="bad_chunk") from None
