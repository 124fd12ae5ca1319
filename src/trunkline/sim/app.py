"""The apps of a simulated network: what they ask, what they saw, and how it ended for them."""

import asyncio
import json
from enum import Enum, auto
from random import Random
from typing import Final, Literal

import msgspec

from trunkline.base.errors import ConnectError, UpstreamError
from trunkline.schema.attempt import ClientFormat
from trunkline.sim.network import Network, SimResponse, SimTransport
from trunkline.sim.roles import GATEWAY, SimGateway, StoredPart, secret_of, stored
from trunkline.sim.upstream import TOOL

BODY_BYTES_MAX: Final = 1 << 20
TRIES_MAX: Final = 3
"""How often a call with an idempotency key is made."""
AGAIN_S: Final = 0.7
PATIENCE_S: Final = 300.0
"""An app gives up after this; by then a deadline was missed long ago."""
RESPONSES_EVERY: Final = 4
"""Of so many calls in the OpenAI formats one is a Responses call."""

_PATHS: Final[dict[ClientFormat, str]] = {
    "anthropic.messages": "/v1/messages",
    "openai.embeddings": "/v1/embeddings",
    "openai.chat": "/v1/chat/completions",
    "openai.responses": "/v1/responses",
}
_WORDS: Final = ("why", "is", "the", "sea", "blue", "é", "🌊", "seven", "light", "salt")


Kind = Literal["keyed", "spoken", "any", "vectors"]
"""Who may answer: an embedded model, a provider's, either, or an embedding model."""
_SCHEMA: Final = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
_TOOLS: Final[dict[str, object]] = {
    "tools": [{"type": "function", "function": {"name": TOOL, "parameters": _SCHEMA}}]
}
_DOCUMENT: Final[dict[str, object]] = {
    "response_format": {"type": "json_schema", "json_schema": {"name": "d", "schema": _SCHEMA}}
}


class Menu(msgspec.Struct, frozen=True, kw_only=True):
    """What apps can ask for, and as whom."""

    models: tuple[tuple[str, Kind], ...]
    keys: tuple[str, ...]
    """Names of virtual keys."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One call of an app."""

    number: int
    at_s: float
    format: ClientFormat
    model: str
    said: str
    """The user's words."""
    body: bytes
    stream: bool
    key: str
    """Name of the virtual key."""
    deadline_s: float
    token: str | None = None
    """Its ``Idempotency-Key``: it is asked again until it is answered, and once more."""
    pause_s: float = 0.0
    """Rest after each piece of the body that was read: an app that is slow."""
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
    rested_s: float = 0.0
    """Time that the app itself took to read."""
    retry_after: str | None = None
    kept: StoredPart | None = None
    """What was on the gateway's disk the moment the app saw the end."""


def draw(number: int, random: Random, at_s: float, menu: Menu) -> Ask:
    """A call drawn from the seed."""
    model, kind = random.choice(menu.models)
    text = " ".join(random.choice(_WORDS) for _ in range(random.randint(1, 8)))
    stream = random.random() < 0.75 and kind != "vectors"
    format_: ClientFormat = "openai.chat"
    body: dict[str, object] = {"model": model}
    if kind == "vectors":
        format_ = "openai.embeddings"
        body["input"] = [text, f"{text} {number}"]
    else:
        format_, wishes = _chat(number, random, text, kind, stream=stream)
        body |= wishes
    return Ask(
        number=number,
        at_s=at_s,
        format=format_,
        model=model,
        said=text,
        body=json.dumps(body).encode(),
        stream=stream,
        key=random.choice(menu.keys),
        deadline_s=random.choice((1.5, 3.0, 10.0, 30.0, 30.0)),
        leaves_after=random.randint(0, 4000) if random.random() < 0.1 else None,
        token=f"{random.random()}" if random.random() < 0.12 else None,
        pause_s=random.choice((0.05, 0.5)) if random.random() < 0.1 else 0.0,
    )


def _chat(
    number: int, random: Random, text: str, kind: Kind, *, stream: bool
) -> tuple[ClientFormat, dict[str, object]]:
    """The format and the members of a chat call."""
    anthropic = random.random() < 0.25
    responses = not anthropic and number % RESPONSES_EVERY == 0
    body: dict[str, object] = {"messages": [{"role": "user", "content": text}], "stream": stream}
    special = kind == "spoken" and not responses and random.random() < 0.3
    if anthropic:
        body["max_tokens"] = random.choice((5, 20, 400))
        if special:
            body["max_tokens"] = 400
            body["tools"] = [{"name": TOOL, "input_schema": _SCHEMA}]
        return "anthropic.messages", body
    if special:
        body |= random.choice((_TOOLS, _DOCUMENT))
    else:
        body |= _openai_wishes(random, plain=kind != "keyed")
    if stream and random.random() < 0.3:
        body["stream_options"] = {"include_usage": True}
    if responses:
        return "openai.responses", _as_responses(body, text)
    return "openai.chat", body


def _openai_wishes(random: Random, *, plain: bool) -> dict[str, object]:
    """``plain``: only what every model understands."""
    wishes: dict[str, object] = {}
    if random.random() < 0.4:
        wishes["seed"] = random.randint(0, 1000)
    if random.random() < 0.3:
        wishes["max_tokens"] = random.choice((1, 3, 20))
    if plain:
        return wishes
    if random.random() < 0.2:
        wishes["n"] = 2
    if random.random() < 0.2:
        wishes["stop"] = [" sea", "."]
    if random.random() < 0.15:
        wishes |= {"logprobs": True, "top_logprobs": 2}
    return wishes


def _as_responses(body: dict[str, object], text: str) -> dict[str, object]:
    """The same in the Responses format, as far as it has words for it."""
    renamed = {"max_tokens": "max_output_tokens"}
    kept = ("stream", "temperature", "top_logprobs", "max_tokens")
    return {"input": text} | {renamed.get(name, name): body[name] for name in kept if name in body}


async def ask(wanted: Ask, network: Network, gateway: SimGateway) -> Seen:
    """Make the call and watch it to its end."""
    loop = asyncio.get_running_loop()
    began_s, deaths = loop.time(), gateway.deaths
    down = not network.server(GATEWAY).listens
    status, answer, retry_after, ending = 0, None, None, Ending.REFUSED
    reader = _Reader(wanted)
    try:
        async with await _open(wanted, network) as response:
            status, answer = response.status, response.header("trunkline-receipt")
            retry_after = response.header("retry-after")
            ending = await reader.read(response)
    except ConnectError:
        # It may have begun to stop while the connection was on its way.
        down = down or not network.server(GATEWAY).listens
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
        body=bytes(reader.body),
        rested_s=reader.rested_s,
        retry_after=retry_after,
        kept=None if answer is None else stored(gateway.disk, answer),
    )
    network.trace.note(
        "app", "call.ended", number=wanted.number, ending=ending.name, status=status,
        size=len(reader.body),
    )  # fmt: skip
    return seen


async def ask_again(wanted: Ask, network: Network, gateway: SimGateway) -> list[Seen]:
    """Make the call, and make it again if its key allows that."""
    seen = [await ask(wanted, network, gateway)]
    for _ in range(TRIES_MAX - 1 if wanted.token is not None else 0):
        await asyncio.sleep(AGAIN_S)
        wanted = msgspec.structs.replace(wanted, leaves_after=None)
        seen.append(await ask(wanted, network, gateway))
    return seen


async def _open(wanted: Ask, network: Network) -> SimResponse:
    headers = (
        ("content-type", "application/json"),
        ("authorization", f"Bearer {secret_of(wanted.key)}"),
        ("trunkline-deadline-ms", str(int(wanted.deadline_s * 1000))),
    )
    token = () if wanted.token is None else (("idempotency-key", wanted.token),)
    return await SimTransport(network).request(
        "POST",
        f"http://{GATEWAY}{_PATHS[wanted.format]}",
        headers=(*headers, *token),
        body=wanted.body,
        connect_timeout_s=PATIENCE_S,
        head_timeout_s=PATIENCE_S,
        idle_timeout_s=PATIENCE_S,
    )


class _Reader:
    """Reads a body as its app would."""

    def __init__(self, wanted: Ask) -> None:
        self._wanted = wanted
        self.body = bytearray()
        self.rested_s = 0.0

    async def read(self, response: SimResponse) -> Ending:
        leaves_after, pause_s = self._wanted.leaves_after, self._wanted.pause_s
        async for piece in response.chunks():
            self.body += piece
            if len(self.body) > BODY_BYTES_MAX:
                raise AssertionError("an answer without bound")
            if leaves_after is not None and len(self.body) >= leaves_after:
                return Ending.LEFT
            if pause_s:
                self.rested_s += pause_s
                await asyncio.sleep(pause_s)
        return Ending.COMPLETE
