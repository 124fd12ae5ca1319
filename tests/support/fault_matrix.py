"""The fault matrix: each fault of design §6 before a real gateway, seen by the real client.

    python -m tests.support.fault_matrix          # run it and write docs/fault-matrix.md

Two provider nodes stand before scripted upstreams. A cell is one answer: its first attempt meets
the fault, wherever it is made, and a second one would be answered well. ``tests/e2e`` runs it and
compares the page; what the app may see at all is asserted there.
"""

import asyncio
import json
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any, Literal

import openai
from tests.support import upstream
from tests.support import upstream_faults as faults
from tests.support.gateway import Stack, gateway_over
from tests.support.severed import Severed
from tests.support.upstream import Act, Content, Phase, Upstream

from trunkline.crypto.signer import Signer
from trunkline.gateway.config import GatewayConfig, NodeConfig
from trunkline.gateway.core.deadline import Timeouts
from trunkline.node.app import NodeApp, create_store
from trunkline.node.config import NodeConfig as ProviderNodeConfig
from trunkline.node.config_providers import OpenAIEngine
from trunkline.remote.exchange import ProviderTimeouts
from trunkline.runtime.server import serving

PAGE = Path(__file__).parents[2] / "docs" / "fault-matrix.md"
MODEL = "scripted-model"
ALONE = "scripted-model-alone"
"""The same, but nobody can go on after a text of it."""
SILENCE_S = 1.5
"""Longest silence that the gateway and the nodes put up with here."""
HANG_S = 90.0
AT_ONCE = 12

Way = Literal["stream", "alone", "held", "whole"]
"""``alone``: a stream of text that no deployment can go on with. ``held``: a stream whose text is
held back too, by ``trunkline-hold: answer``."""
WAYS: tuple[Way, ...] = ("stream", "alone", "held", "whole")
CONTENTS: tuple[Content, ...] = ("text", "tool", "json")
PHASES: tuple[Phase, ...] = ("before", "during", "after")
ONCE: tuple[Phase, ...] = ("before",)
STREAM: tuple[Way, ...] = ("stream", "alone", "held")
COLUMNS: tuple[tuple[Way, Content], ...] = (
    *(("stream", content) for content in CONTENTS),
    ("alone", "text"),
    ("held", "text"),
    *(("whole", content) for content in CONTENTS),
)  # fmt: skip
VALUES: tuple[Content, ...] = ("tool", "json")

TIMEOUTS = Timeouts(
    connect_s=1.0,
    head_s=SILENCE_S,
    first_event_s=SILENCE_S,
    first_token_s=SILENCE_S,
    whole_s=SILENCE_S,
    idle_s=SILENCE_S,
    total_s=60.0,
)
PROVIDER_TIMEOUTS = ProviderTimeouts(
    connect_s=1.0, stream_head_s=SILENCE_S, whole_head_s=SILENCE_S, idle_s=SILENCE_S
)


@dataclass(frozen=True)
class Fault:
    """One row or more of the table: a fault, and where it makes sense."""

    name: str
    act: Act
    phases: tuple[Phase, ...] = ONCE
    ways: tuple[Way, ...] = WAYS
    contents: tuple[Content, ...] = CONTENTS
    model: str = MODEL
    harmless: bool = False
    """The answer is whole as it came: no second attempt is needed."""
    uncounted: bool = False
    """Usage may be missing from a whole answer: the upstream never said it."""
    limits: bool = False
    """The gateway believes it: neither deployment is asked again before the time that was named."""
    severed: bool = False
    """The node dies, not the upstream."""
    repeats: bool = False
    """A part of the text comes twice, which shows at the end only."""


@dataclass(frozen=True)
class Cell:
    fault: Fault
    phase: Phase
    way: Way
    content: Content

    @property
    def model(self) -> str:
        if self.fault.limits:
            # A model of its own, so that the limit that it meets is no other answer's.
            return f"limited-{sha256(self.script.encode()).hexdigest()[:12]}x"
        own = self.way == "alone" and self.fault.model == MODEL
        return ALONE if own else self.fault.model

    @property
    def script(self) -> str:
        return "|".join((self.fault.name, self.phase, self.way, self.content))


@dataclass
class View:
    """What the app saw of one answer."""

    text: str = ""
    """Text, arguments of the tool call or document, as far as it came."""
    tool: str = ""
    finish: str | None = None
    usage: dict[str, int] | None = None
    models: set[str] = field(default_factory=set)
    error: str | None = None
    """Stable code of the explicit error."""
    body: Any = None
    hung: bool = False


def _rate_limits() -> list[Fault]:
    retry = "429, retry-after"
    return [
        Fault(name, act, limits=True)
        for name, act in (
            ("429", faults.limited()),
            (f"{retry} in seconds", faults.limited(("retry-after", "17"))),
            (f"{retry} in milliseconds", faults.limited(("retry-after-ms", "17000"))),
            (f"{retry} as a date", faults.limited(("retry-after", faults.DATE))),
            (f"{retry} in the body", faults.status(429, body=faults.RETRY_DELAY)),
        )
    ]


FAULTS: tuple[Fault, ...] = (
    Fault("connection refused", upstream.Exchange.healthy, model="refused"),
    Fault("DNS failure", upstream.Exchange.healthy, model="unresolved"),
    Fault("TLS failure", upstream.Exchange.healthy, model="no-tls"),
    Fault("closed without an answer", faults.gone),
    Fault("hang before headers", faults.hang),
    *(Fault(str(code), faults.status(code)) for code in (401, 403, 404, 408, 409)),
    *_rate_limits(),
    *(Fault(str(code), faults.status(code)) for code in (500, 502, 503, 504, 529)),
    Fault("400 that blames the key", faults.status(400, body=faults.BAD_KEY)),
    Fault("502 with HTML", faults.status(502, body=faults.HTML)),
    Fault("HTML in a 200", faults.html),
    Fault("error object in a 200", faults.error_object),
    Fault("wrong content type", faults.plain_type),
    Fault("whole for stream, stream for whole", faults.other_shape),
    Fault("empty choices", faults.empty_choices),
    Fault("empty text", faults.empty_text),
    Fault("a finish that says a tool is called, and no call", faults.called_nothing),
    Fault("cut", faults.cut, PHASES),
    Fault("connection reset", faults.reset, PHASES),
    Fault("stall", faults.stall, PHASES),
    Fault("trickle of bytes", faults.dribble, PHASES),
    Fault("the node dies", faults.outlive, PHASES, severed=True),
    Fault("clean end too early", faults.clean_end, PHASES),
    Fault("[DONE] too early", faults.clean_done, PHASES, STREAM),
    Fault("error event", faults.error_event, PHASES, STREAM),
    Fault("garbage", faults.garbage, PHASES),
    Fault("signs of life, and nothing else", faults.signs_of_life, PHASES, STREAM),
    Fault("more text after the finish", faults.said_twice, ("after",), STREAM,
          contents=("text",)),
    Fault("no finish_reason", faults.no_finish, ("after",)),
    Fault("value breaks off, finish said", faults.half_value, ("after",), contents=VALUES),
    Fault("value breaks schema, or unknown tool", faults.wrong_value, ("after",),
          contents=VALUES),
    Fault("another model answers", faults.wrong_model),
    Fault("model changes in the stream", faults.wrong_model, ("during", "after"), STREAM),
    Fault("a frame comes twice", faults.duplicate, ("during", "after"), STREAM, repeats=True),
    Fault("a choice is in a frame twice", faults.choice_twice, ("during", "after"), STREAM),
    Fault("the role's frame comes twice", faults.duplicate, ONCE, STREAM, harmless=True),
    Fault("no [DONE]", faults.no_done, ("after",), STREAM, harmless=True),
    Fault("silence after [DONE]", faults.hang_after_done, ("after",), STREAM, harmless=True),
    Fault("connection reset after the finish", faults.reset_after_finish, ("after",), STREAM,
          harmless=True),
    Fault("nulls, pings and no index", faults.slips, ONCE, STREAM, harmless=True),
    Fault("neither id nor model, and an empty frame first", faults.unnamed, harmless=True),
    Fault("usage that is no count", faults.no_count, ("after",), harmless=True, uncounted=True),
    Fault("usage missing", faults.no_usage, ("after",), harmless=True, uncounted=True),
    Fault("split at every byte", faults.byte_by_byte, harmless=True),
)  # fmt: skip


def cells() -> list[Cell]:
    return [
        Cell(fault, phase, way, content)
        for fault in FAULTS
        for phase, (way, content) in product(fault.phases, COLUMNS)
        if way in fault.ways and content in fault.contents
    ]


# Running it.


def _node(name: str, folder: Path, base_url: str, models: Sequence[str]) -> tuple[NodeApp, str]:
    signer = Signer.generate(f"{name}.localhost/node", sha256(name.encode()).digest())
    create_store(folder)
    (folder / "key").write_text(signer.skey())
    (folder / "key").chmod(0o600)
    config = ProviderNodeConfig(
        name=signer.name,
        operator=f"{name}.localhost",
        embeddings=False,
        shutdown_grace_s=0.2,
        engine=OpenAIEngine(
            base_url=base_url,
            models=tuple(models),
            timeouts=PROVIDER_TIMEOUTS,
            prefix="vllm",
            prefix_models={ALONE: "none"},
        ),
    )
    return NodeApp(config, base=folder / "node.toml"), str(signer.vkey)


def _mark(cell: Cell) -> bytes:
    """What the node must have sent when it dies."""
    if cell.phase == "before":
        return b""
    if cell.phase == "during" or cell.way == "whole":
        return b"event: accepted"
    return json.dumps(upstream.PARTS[cell.content][upstream.SHOWN_AFTER - 1]).encode()


@contextmanager
def _refusing() -> Iterator[int]:
    """A port at which nobody listens, and which nobody else is given meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        yield port


@asynccontextmanager
async def network(
    folder: Path, wanted: Sequence[Cell], calls: dict[str, int], routing: Path | None = None
) -> AsyncIterator[Stack]:
    """A gateway over two nodes with scripted upstreams, and three that reach nothing. ``routing``:
    the file of its routing policy."""
    severed = Severed({c.script: _mark(c) for c in wanted if c.fault.severed}, set())
    acts = {cell.script: (cell.fault.act, cell.phase) for cell in wanted}
    async with AsyncExitStack() as stack:
        urls = [
            await stack.enter_async_context(Upstream(acts, calls).listening()) for _ in range(2)
        ]
        refusing = stack.enter_context(_refusing())
        limited = tuple({cell.model for cell in wanted if cell.fault.limits})
        served = (MODEL, ALONE, *limited, "refused", "unresolved", "no-tls")
        # Named so that they come first where nothing else tells nodes apart.
        providers = [
            ("a-refused", f"http://127.0.0.1:{refusing}/v1", ("refused",)),
            ("a-unresolved", "http://nowhere.invalid/v1", ("unresolved",)),
            ("a-tls", urls[0].replace("http:", "https:"), ("no-tls",)),
            ("beta", urls[0], served),
            ("gamma", urls[1], (MODEL, ALONE, *limited)),
        ]
        nodes = []
        for name, url, models in providers:
            app, vkey = _node(name, folder / name, url, models)
            node_url = await stack.enter_async_context(serving(app, shutdown_grace_s=0.2))
            line = await stack.enter_async_context(severed.before(node_url))
            nodes.append(NodeConfig(url=line, vkey=vkey))
        config = GatewayConfig(
            policy_file="policy",
            log_url="http://127.0.0.1:1",
            nodes=tuple(nodes),
            timeouts=TIMEOUTS,
            poll_s=0.2,
            shutdown_grace_s=0.2,
        )
        yield await stack.enter_async_context(
            gateway_over([], folder / "gateway", config=config, routing=routing)
        )


def _request(cell: Cell) -> dict[str, Any]:
    asked: dict[str, Any] = {
        "model": cell.model,
        "messages": [{"role": "user", "content": cell.script}],
    }
    if cell.content == "tool":
        asked["tools"] = upstream.TOOLS
    if cell.content == "json":
        schema = {"name": "person", "strict": True, "schema": upstream.SCHEMA}
        asked["response_format"] = {"type": "json_schema", "json_schema": schema}
    if cell.way == "held":
        asked["extra_headers"] = {"trunkline-hold": "answer"}
    if cell.way != "whole":
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
    return asked


async def _stream(client: openai.AsyncOpenAI, asked: dict[str, Any], view: View) -> None:
    async for chunk in await client.chat.completions.create(**asked):
        view.models.add(chunk.model)
        if chunk.usage is not None:
            view.usage = chunk.usage.model_dump(exclude_none=True)
        for choice in chunk.choices:
            view.text += choice.delta.content or ""
            for call in choice.delta.tool_calls or ():
                if call.function is not None:
                    view.tool += call.function.name or ""
                    view.text += call.function.arguments or ""
            view.finish = choice.finish_reason or view.finish


async def _whole(client: openai.AsyncOpenAI, asked: dict[str, Any], view: View) -> None:
    answer = await client.chat.completions.create(**asked)
    view.models.add(answer.model)
    if answer.usage is not None:
        view.usage = answer.usage.model_dump(exclude_none=True)
    for choice in answer.choices:
        view.text += choice.message.content or ""
        for call in choice.message.tool_calls or ():
            view.tool += call.function.name
            view.text += call.function.arguments
        view.finish = choice.finish_reason


async def look(client: openai.AsyncOpenAI, cell: Cell) -> View:
    """Ask as an app would, and keep what it sees."""
    view = View()
    read = _whole if cell.way == "whole" else _stream
    try:
        async with asyncio.timeout(HANG_S):
            await read(client, _request(cell), view)
    except openai.APITimeoutError:
        view.hung = True
    except openai.APIError as error:
        view.error = str(error.code)
        view.body = error.body
    except TimeoutError:
        view.hung = True
    return view


def verdict(cell: Cell, view: View) -> str:
    """``whole``, ``error``, or what must never be: ``damage``, ``hang``."""
    if view.hung:
        return "hang"
    truth = "".join(upstream.PARTS[cell.content])
    if view.error is not None:
        # What came before an explicit error must be the truth as far as it goes, and no finish.
        repeated = cell.fault.repeats and cell.way == "alone"
        shown = _repeated(cell) if repeated else truth
        honest = shown.startswith(view.text) and view.finish is None
        return "error" if honest and view.error != "None" else "damage"
    tool = cell.content == "tool"
    expected = (truth, upstream.TOOL if tool else "", "tool_calls" if tool else "stop")
    counted = view.usage == upstream.USAGE or (cell.fault.uncounted and view.usage is None)
    good = (view.text, view.tool, view.finish) == expected and counted
    return "whole" if good and view.models == {cell.model} else "damage"


def _repeated(cell: Cell) -> str:
    """What the app is shown of a text before the repeat in it is found."""
    parts = upstream.PARTS[cell.content]
    at = 0 if cell.phase == "during" else upstream.SHOWN_AFTER - 1
    return "".join((*parts[: at + 1], *parts[at:]))


async def run(
    folder: Path, wanted: Sequence[Cell] = tuple(cells())
) -> tuple[dict[Cell, View], dict[str, int]]:
    """Every wanted cell's view, and how often each script's upstream was called."""
    calls: dict[str, int] = {}
    views: dict[Cell, View] = {}
    gate = asyncio.Semaphore(AT_ONCE)
    async with network(folder, wanted, calls) as stack:

        async def one(cell: Cell) -> None:
            async with gate:
                views[cell] = await look(stack.openai, cell)

        async with asyncio.TaskGroup() as group:
            for cell in wanted:
                group.create_task(one(cell))
    return views, calls


# The page.

_INTRO = """# Fault matrix

Written by `python -m tests.support.fault_matrix`; the tests run it again and compare. Do not edit.

Two provider nodes, each before a scripted upstream on raw sockets, behind a real gateway; the app
is the official `openai` client without retries. The first attempt at every answer meets the fault;
a second one, anywhere, would be answered well.

- **whole**: the complete, valid answer with its own finish reason and usage; nothing lost, nothing
  twice. The app can not tell that anything happened.
- error: one explicit error with a stable code, in the client's own format, after nothing but true
  text, without a finish. It says how much had been sent. Only where text has reached the app and
  no deployment of the same model can be asked to go on after it.
- Anything else (damage, a hang) fails the tests.

*Before*, *during* and *after* say where the fault is: before the first token was sent, in the
middle of it, after the third. An answer that is not streamed is cut in its body likewise.

Text streams as it comes. When it breaks off, another deployment of the same model is given it as
the beginning of the model's own turn (`prefix = "vllm"`) and goes on; the app's stream is one, with
the usage of both parts. *Alone* is the same where no deployment of the model can be asked so
(`prefix = "none"`): there the end is explicit. *Held* is text held back until it is whole, which
the app asks for (`trunkline-hold: answer`). Tool calls and documents under a JSON schema always
are; a broken one is asked for again elsewhere.

Chunks of this format carry no numbers. A text's frame that comes twice is found at once where each
chunk has the usage so far; else (*alone*) by the token count at the end, which is always asked for,
and the error follows text with the repeat in it. So are frames that changed places, where the count
falls. A frame that is lost, and one in another place where nothing is counted, look like text that
the model wrote: nobody can find that.

"""


def render(views: dict[Cell, View]) -> str:
    """The page."""
    heads = [f"{way}: {content}" for way, content in COLUMNS]
    lines = [f"| fault | when | {' | '.join(heads)} |", "| --- | --- |" + " --- |" * len(heads)]
    for fault in FAULTS:
        for phase in fault.phases:
            found = []
            for way, content in COLUMNS:
                cell = Cell(fault, phase, way, content)
                found.append(verdict(cell, views[cell]) if cell in views else "–")
            said = ["**whole**" if text == "whole" else text for text in found]
            lines.append(f"| {fault.name} | {phase} | {' | '.join(said)} |")
    told = [verdict(cell, view) for cell, view in views.items()]
    counts = [f"{told.count(kind)} {kind}" for kind in ("whole", "error", "damage", "hang")]
    return f"{_INTRO}{len(told)} answers: {', '.join(counts)}.\n\n" + "\n".join(lines) + "\n"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        views, _ = asyncio.run(run(Path(folder)))
    PAGE.write_text(render(views))
    bad = {c.script: view for c, view in views.items() if verdict(c, view) in ("damage", "hang")}
    print(json.dumps({name: vars(view) for name, view in bad.items()}, indent=1, default=repr))
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
