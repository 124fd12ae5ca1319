"""The official clients without a network: every request is given the same answer."""

from collections.abc import Iterator

import anthropic
import httpx2
import openai


def openai_client(body: bytes, *, status: int = 200, stream: bool = False) -> openai.OpenAI:
    return openai.OpenAI(
        api_key="test",
        base_url="http://gateway.test/v1",
        max_retries=0,
        http_client=_answered(body, status, stream=stream),
    )


def anthropic_client(
    body: bytes, *, status: int = 200, stream: bool = False
) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        api_key="test",
        base_url="http://gateway.test",
        max_retries=0,
        http_client=_answered(body, status, stream=stream),
    )


def _answered(body: bytes, status: int, *, stream: bool) -> httpx2.Client:
    """A transport that answers every request with ``body``, byte by byte."""

    def reply(_: httpx2.Request) -> httpx2.Response:
        kind = "text/event-stream" if stream else "application/json"
        pieces: Iterator[bytes] = (body[i : i + 1] for i in range(len(body)))
        return httpx2.Response(status, headers={"content-type": kind}, content=pieces)

    return httpx2.Client(transport=httpx2.MockTransport(reply))
