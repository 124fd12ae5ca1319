"""From an app's request body to what nodes are asked: one function per format of the front door.

The bytes that go to nodes are the app's own where both speak OpenAI. The typed views are read for
what routing needs; what is out of range is refused here, with the parameter's name.
"""

from collections.abc import Sequence

import msgspec

from trunkline.base.errors import RequestError
from trunkline.schema import anthropic_messages, openai_chat, openai_embeddings
from trunkline.schema.attempt import ClientFormat, Kind
from trunkline.schema.grid import anthropic_openai, responses_openai, responses_openai_params
from trunkline.schema.openai_responses import ResponsesRequest
from trunkline.schema.openai_responses_answer import Echo

_JSON_SPACE = b" \t\r\n"


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What an app wants."""

    format: ClientFormat
    kind: Kind
    model: str
    stream: bool
    choices: int
    client: bytes
    """The body exactly as the app sent it."""
    request: bytes
    """The request for nodes, in the OpenAI format. Without white space around it, because that
    does not survive being carried inside another JSON document, and its digest must."""
    store: bool | None = None
    """Whether the body asks for the answer to be kept; None: it does not say."""
    echo: Echo | None = None
    """What a Responses answer repeats of its request."""


def chat(raw: bytes) -> Asked:
    """``POST /v1/chat/completions``. Raises :class:`RequestError`."""
    view = openai_chat.parse(raw)
    return Asked(
        format="openai.chat",
        kind="chat",
        model=view.model,
        stream=view.streams,
        choices=view.choices,
        client=raw,
        request=raw.strip(_JSON_SPACE),
    )


def embeddings(raw: bytes) -> Asked:
    """``POST /v1/embeddings``. Raises :class:`RequestError`."""
    view = openai_embeddings.parse(raw)
    return Asked(
        format="openai.embeddings",
        kind="embeddings",
        model=view.model,
        stream=False,
        choices=1,
        client=raw,
        request=raw.strip(_JSON_SPACE),
    )


def messages(raw: bytes) -> Asked:
    """``POST /v1/messages``. Raises :class:`RequestError`, also for what OpenAI can not express."""
    view = anthropic_messages.parse(raw)
    return Asked(
        format="anthropic.messages",
        kind="chat",
        model=view.model,
        stream=view.streams,
        choices=1,
        client=raw,
        request=anthropic_openai.to_openai(view),
    )


def responses(view: ResponsesRequest, history: Sequence[object] = ()) -> Asked:
    """``POST /v1/responses``. Raises :class:`RequestError`, also for what a chat request can not
    express. ``history``: the chat messages that ``previous_response_id`` stands for."""
    request = responses_openai.to_openai(view, history)
    try:
        openai_chat.parse(request)
    except RequestError as error:
        raise _in_caller_words(error) from None
    return Asked(
        format="openai.responses",
        kind="chat",
        model=view.model,
        stream=view.streams,
        choices=1,
        client=view.raw,
        request=request,
        store=view.store,
        echo=responses_openai.echo(view),
    )


def _in_caller_words(error: RequestError) -> RequestError:
    """A rule of the chat format that was broken, by the name that the caller knows."""
    if error.param is None:
        return error
    param = responses_openai_params.caller_name(error.param)
    message = error.message.removeprefix(f"{error.param}:").strip()
    return RequestError(
        f"{param}: {message}", code=error.error_code, param=param, status=error.http_status
    )
