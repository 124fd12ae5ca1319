"""Gemini's whole answer as a completion (part of ``openai_gemini``).

It refuses an answer in which a candidate has no known finish reason, or one that means that none
was reached (a malformed call, ``OTHER``): a finish is never made up. Thoughts are left out. The
names without underscore serve ``openai_gemini_stream`` too.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from trunkline.base.errors import MalformedError
from trunkline.schema import gemini_answer as src
from trunkline.schema import openai_answer as out
from trunkline.schema.openai_parts import FunctionCall
from trunkline.schema.parsing import given

_FINISH: Final[dict[str, out.FinishReason]] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "ESCALATION": "content_filter",
}
"""What is missing stands for an answer that failed (``MALFORMED_FUNCTION_CALL``, ``OTHER``)."""


def translate_answer(data: bytes, *, created_s: int, choices: int = 1) -> bytes:
    """The whole answer as a completion. ``choices``: how many were asked for.

    Raises :class:`MalformedError`, also where a candidate is missing or has no known finish.
    """
    response = src.parse_response(data)
    made: tuple[out.Choice, ...]
    if blocked(response):
        made = tuple(
            out.Choice(
                index=index,
                message=out.AnswerMessage(content=None),
                finish_reason="content_filter",
            )
            for index in range(choices)
        )
    else:
        candidates = sorted(response.candidates, key=lambda candidate: candidate.index)
        if [candidate.index for candidate in candidates] != list(range(choices)):
            raise MalformedError("an answer lacks candidates", code="bad_completion")
        made = tuple(_choice(candidate, response.response_id) for candidate in candidates)
    return out.encode_completion(
        out.Completion(
            id=response.response_id,
            created=created_s,
            model=response.model_version,
            choices=made,
            usage=openai_usage(response.usage_metadata),
        )
    )


def _choice(candidate: src.Candidate, response_id: str) -> out.Choice:
    texts: list[str] = []
    calls: list[out.AnswerToolCall] = []
    for part in candidate.content.parts:
        if part.thought:
            continue
        if part.function_call is not None:
            call_id, name, arguments = read_call(
                part.function_call, response_id, candidate.index, len(calls)
            )
            function = FunctionCall(name=name, arguments=arguments)
            calls.append(out.AnswerToolCall(id=call_id, function=function))
        elif part.text is not None:
            texts.append(part.text)
    text = "".join(texts)
    scored = openai_logprobs(candidate.logprobs_result)
    return out.Choice(
        index=candidate.index,
        message=out.AnswerMessage(
            content=text if text or not calls else None,
            tool_calls=tuple(calls) or msgspec.UNSET,
        ),
        logprobs=out.Logprobs(content=scored) if scored else None,
        finish_reason=finish_reason(candidate.finish_reason, called=bool(calls)),
    )


def blocked(response: src.Response) -> bool:
    """The prompt was not answered, for what it holds."""
    feedback = response.prompt_feedback
    return feedback is not None and bool(feedback.block_reason) and not response.candidates


def read_call(
    call: src.FunctionCall, response_id: str, choice: int, number: int
) -> tuple[str, str, str]:
    """A call's id, name and arguments. Where Gemini gives no id, one is made of the answer's."""
    arguments = bytes(call.args).decode("utf-8") if given(call.args) else "{}"
    if not call.name or not arguments.startswith("{"):
        raise MalformedError("a tool call lacks a part", code="bad_tool_call")
    return call.id or f"call_{response_id}_{choice}_{number}", call.name, arguments


def finish_reason(reason: str, *, called: bool) -> out.FinishReason:
    """This format's word for it. Gemini says STOP after calls too."""
    finish = _FINISH.get(reason)
    if finish is None:
        # A finish that nobody gave is never made up.
        raise MalformedError("an answer has no known finish reason", code="bad_completion")
    return "tool_calls" if called and finish == "stop" else finish


def openai_logprobs(result: src.LogprobsResult | None) -> tuple[out.TokenLogprob, ...]:
    """The chosen tokens, each with its alternatives. Their bytes are not known."""
    if result is None:
        return ()
    tops: Sequence[src.TopCandidates] = result.top_candidates
    return tuple(
        out.TokenLogprob(
            token=chosen.token,
            logprob=out.logprob(chosen.log_probability),
            top_logprobs=tuple(
                out.TopLogprob(token=other.token, logprob=out.logprob(other.log_probability))
                for other in (tops[index].candidates if index < len(tops) else ())
            ),
        )
        for index, chosen in enumerate(result.chosen_candidates)
    )


def openai_usage(usage: src.UsageMetadata | None) -> out.Usage | None:
    if usage is None:
        return None
    thought = usage.thoughts_token_count
    prompt = usage.prompt_token_count + usage.tool_use_prompt_token_count
    completion = usage.candidates_token_count + (thought or 0)
    cached = usage.cached_content_token_count
    return out.Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=(
            msgspec.UNSET if cached is None else out.PromptTokensDetails(cached_tokens=cached)
        ),
        completion_tokens_details=(
            msgspec.UNSET
            if thought is None
            else out.CompletionTokensDetails(reasoning_tokens=thought)
        ),
    )
