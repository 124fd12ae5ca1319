"""The apps of a simulated network: what they ask, what they saw, and how it ended for them."""

import asyncio
import json
from enum import Enum, auto
from random import Random
from typing import Final

import msgspec

from trunkline.base.errors import ConnectError, UpstreamError
from trunkline.schema.attempt import ClientFormat
from trunkline.sim.network import Network, SimResponse, SimTransport
from trunkline.sim.roles import GATEWAY, SimGateway, StoredPart, stored

BODY_BYTES_MAX: Final = 1 << 20
PATIENCE_S: Final = 300.0
"""An app gives up after this; by then a deadline was missed long ago."""
RESPONSES_EVERY: Final = 4
"""Of so many calls in the OpenAI formats one is a Responses call."""

_PATHS: Final[dict[ClientFormat, str]] = {
    "anthropic.messages": "/v1/messages",
    "openai.chat": "/v1/chat/completions",
    "openai.responses": "/v1/responses",
}
_WORDS: Final = ("why", "is", "the", "sea", "blue", "é", "🌊", "seven", "light", "salt")


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One call of an app."""

    number: int
    at_s: float
    format: ClientFormat
    body: bytes
    stream: bool
    deadline_s: float
    leaves_after: int | None = None
    """Bytes of the body after which the app closes the connection."""


class Ending(Enum):
    """How the connection ended, as the app saw it."""

    COMPLETE = auto()
    CUT = auto()
    REFUSED = auto()
    LEFT = auto()


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that an app saw of a call."""

    ask: Ask
    began_s: float
    ended_s: float
    ending: Ending
    bereft: bool
    """The gateway was down or died meanwhile."""
    status: int = 0
    answer: str | None = None
    body: bytes = b""
    kept: StoredPart | None = None
    """What was on the gateway's disk the moment the app saw the end."""


def draw(number: int, random: Random, at_s: float, models: tuple[str, ...]) -> Ask:
    """A call drawn from the seed."""
    anthropic = random.random() < 0.25
    stream = random.random() < 0.75
    text = " ".join(random.choice(_WORDS) for _ in range(random.randint(1, 8)))
    body: dict[str, object] = {
        "model": random.choice(models),
        "messages": [{"role": "user", "content": text}],
        "stream": stream,
    }
    if anthropic:
        body["max_tokens"] = random.choice((5, 20, 400))
    else:
        body |= _openai_wishes(random, stream=stream)
    responses = not anthropic and number % RESPONSES_EVERY == 0
    if responses:
        body = _as_responses(body, text)
    return Ask(
        number=number,
        at_s=at_s,
        format=_format(anthropic=anthropic, responses=responses),
        body=json.dumps(body).encode(),
        stream=stream,
        deadline_s=random.choice((1.5, 3.0, 10.0, 30.0, 30.0)),
        leaves_after=random.randint(0, 4000) if random.random() < 0.1 else None,
    )


def _openai_wishes(random: Random, *, stream: bool) -> dict[str, object]:
    wishes: dict[str, object] = {}
    if random.random() < 0.4:
        wishes["seed"] = random.randint(0, 1000)
    if random.random() < 0.3:
        wishes["max_tokens"] = random.choice((1, 3, 20))
    if random.random() < 0.2:
        wishes["n"] = 2
    if random.random() < 0.2:
        wishes["stop"] = [" sea", "."]
    if random.random() < 0.15:
        wishes |= {"logprobs": True, "top_logprobs": 2}
    if stream and random.random() < 0.3:
        wishes["stream_options"] = {"include_usage": True}
    return wishes


def _format(*, anthropic: bool, responses: bool) -> ClientFormat:
    if anthropic:
        return "anthropic.messages"
    return "openai.responses" if responses else "openai.chat"


def _as_responses(body: dict[str, object], text: str) -> dict[str, object]:
    """The same in the Responses format, as far as it has words for it."""
    renamed = {"max_tokens": "max_output_tokens"}
    kept = ("model", "stream", "temperature", "top_logprobs", "max_tokens")
    return {"input": text} | {renamed.get(name, name): body[name] for name in kept if name in body}


async def ask(wanted: Ask, network: Network, gateway: SimGateway) -> Seen:
    """Make the call and watch it to its end."""
    loop = asyncio.get_running_loop()
    began_s, deaths, down = loop.time(), gateway.deaths, not network.server(GATEWAY).listens
    status, answer, body, ending = 0, None, bytearray(), Ending.REFUSED
    try:
        async with await _open(wanted, network) as response:
            status, answer = response.status, response.header("trunkline-receipt")
            ending = await _read(wanted, response, body)
    except ConnectError:
        ending = Ending.REFUSED
    except UpstreamError:
        ending = Ending.CUT
    seen = Seen(
        ask=wanted,
        began_s=began_s,
        ended_s=loop.time(),
        ending=ending,
        bereft=down or gateway.deaths != deaths,
        status=status,
        answer=answer,
        body=bytes(body),
        kept=None if answer is None else stored(gateway.disk, answer),
    )
    network.trace.note(
        "app", "call.ended", number=wanted.number, ending=ending.name, status=status, size=len(body)
    )
    return seen


async def _open(wanted: Ask, network: Network) -> SimResponse:
    return await SimTransport(network).request(
        "POST",
        f"http://{GATEWAY}{_PATHS[wanted.format]}",
        headers=(
            ("content-type", "application/json"),
            ("trunkline-deadline-ms", str(int(wanted.deadline_s * 1000))),
        ),
        body=wanted.body,
        connect_timeout_s=PATIENCE_S,
        head_timeout_s=PATIENCE_S,
        idle_timeout_s=PATIENCE_S,
    )


async def _read(wanted: Ask, response: SimResponse, body: bytearray) -> Ending:
    leaves_after = wanted.leaves_after
    async for piece in response.chunks():
        body += piece
        if len(body) > BODY_BYTES_MAX:
            raise AssertionError("an answer without bound")
        if leaves_after is not None and len(body) >= leaves_after:
            return Ending.LEFT
    return Ending.COMPLETE
