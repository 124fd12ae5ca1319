"""What a gateway must have made of a call: the request for nodes, and the answer from their events.

Only the OpenAI format reaches nodes as it is. For the others the same pure translation is done
again here, and compared. A gateway of another version may translate otherwise: a difference then
says that something could not be shown, not that somebody lied.
"""

import msgspec

from trunkline.base.errors import Error, MalformedError
from trunkline.client.exchange import Exchange
from trunkline.evidence.content import VERBATIM
from trunkline.schema import anthropic_messages, openai_responses
from trunkline.schema.grid import anthropic_openai, responses_openai
from trunkline.schema.openai_responses_answer import Echo

_JSON_SPACE = b" \t\r\n"


def asked(exchange: Exchange) -> bytes | None:
    """The request that nodes must have been given; None where it depends on what is not here (an
    earlier response that this one refers to)."""
    if exchange.format in VERBATIM:
        return exchange.request.strip(_JSON_SPACE)
    try:
        if exchange.format == "anthropic.messages":
            return anthropic_openai.to_openai(anthropic_messages.parse(exchange.request))
        view = openai_responses.parse(exchange.request)
        referring = any(isinstance(item, openai_responses.ItemReference) for item in view.items)
        if referring or view.previous_response_id is not None:
            return None
        return responses_openai.to_openai(view, ())
    except Error:
        return None


def shown(exchange: Exchange, chunks: list[bytes], *, streamed: bool) -> bytes:
    """The body that the app must have received for a node's events. MalformedError."""
    name = exchange.answer.removeprefix("ans_")
    if exchange.format == "anthropic.messages":
        message_id = f"msg_{name}"
        if not streamed:
            return anthropic_openai.translate_answer(_only(chunks), message_id=message_id)
        messages = anthropic_openai.StreamTranslator(message_id=message_id)
        return b"".join(map(messages.feed, chunks)) + messages.finish()
    response_id, told = f"resp_{name}", _echo(exchange)
    if not streamed:
        return responses_openai.translate_answer(_only(chunks), response_id=response_id, told=told)
    events = responses_openai.StreamTranslator(response_id=response_id, told=told)
    return b"".join(map(events.feed, chunks)) + events.finish()


def _only(chunks: list[bytes]) -> bytes:
    if len(chunks) != 1:
        raise MalformedError("a whole answer is one event")
    return chunks[0]


def _echo(exchange: Exchange) -> Echo:
    echo = responses_openai.echo(openai_responses.parse(exchange.request))
    return msgspec.structs.replace(echo, store=exchange.kept)
