"""Client: OpenAI. Provider: OpenAI. The identity: the bytes go through as they came.

It refuses nothing and changes nothing, so that what the caller signed up for, what the node serves
and what the receipt binds are the same bytes.
"""

from trunkline.schema import openai_chat, sse


def translate_request(raw: bytes) -> bytes:
    """The request to send on. Raises :class:`RequestError` where the request breaks a rule."""
    return openai_chat.parse(raw).raw


def translate_answer(data: bytes) -> bytes:
    """The whole answer, for the client."""
    return data


class StreamTranslator:
    """A stream's messages as the client's events. Holds nothing between them."""

    __slots__ = ()

    def feed(self, data: bytes) -> bytes:
        """The client's event for one message. Without id or name: the official client takes an
        event that has an id for one that has data, and fails on it when it has none."""
        if b"\n" in data or b"\r" in data:
            return sse.encode(data=data)
        return b"data: %b\n\n" % data

    def finish(self) -> bytes:
        """The end of a complete answer."""
        return sse.DONE
