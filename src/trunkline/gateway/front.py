"""The gateway's front door: OpenAI and Anthropic calls in, answers out, evidence beside them.

A raw ASGI callable. It reads a call, names the answer, sets a :class:`Pump` going and sums it up in
one line without content. Errors are told in the caller's own format. It refuses what it can not
route, listing what there is, and never answers with another model than the one asked for.
"""

import asyncio
from typing import Final

import msgspec

from trunkline.base.errors import Error, OverloadedError, RequestError
from trunkline.base.ids import ID_RANDOM_BYTES, answer_id, attempt_id
from trunkline.base.ports import Clock, Randomness
from trunkline.gateway import asked
from trunkline.gateway.asked import Asked
from trunkline.gateway.assembly import assemble
from trunkline.gateway.config import GatewayConfig
from trunkline.gateway.conversations import RESPONSES_PATH
from trunkline.gateway.core import replay
from trunkline.gateway.core.actions import Failure, Plan
from trunkline.gateway.core.attempt import Answer
from trunkline.gateway.core.candidates import candidates, likely
from trunkline.gateway.core.normal import size_class
from trunkline.gateway.core.policy import RoutingPolicy
from trunkline.gateway.core.price import Tokens, most_tokens
from trunkline.gateway.core.tenant import Tenant, cache_scope, share_scope
from trunkline.gateway.core.values import Values
from trunkline.gateway.evidence import Prover
from trunkline.gateway.gossip import Gossip
from trunkline.gateway.headers import Wishes, answer_headers, read_wishes
from trunkline.gateway.health_file import Memory
from trunkline.gateway.judge import before
from trunkline.gateway.key_store import KeyStore
from trunkline.gateway.models import wants_anthropic
from trunkline.gateway.recording import Recording, Scribe
from trunkline.gateway.relay import CLIENT_GONE, STOPPING, Pump
from trunkline.gateway.routing import Routing
from trunkline.gateway.shared_limits import SharedLimits
from trunkline.gateway.shedding import Bodies
from trunkline.gateway.store import EvidenceStore
from trunkline.gateway.telemetry import Watch
from trunkline.gateway.writer import Sink, StreamWriter, WholeWriter, reply_error
from trunkline.receipts import BLINDING_BYTES, Hiding, request_digest
from trunkline.remote.transport import Transport
from trunkline.runtime.http import Call, ClientGoneError, Receive, Router, Scope, Send
from trunkline.runtime.logger import Logger
from trunkline.runtime.metrics import Metrics
from trunkline.runtime.otlp_export import Exporter
from trunkline.schema import errors
from trunkline.schema.attempt import ClientFormat
from trunkline.schema.openai_responses_answer import Echo
from trunkline.schema.traceparent import TRACEPARENT, TraceParent, read_traceparent

NONCE_BYTES: Final = 32
CACHE_SALT_BYTES: Final = 32
CRASHED: Final = Failure(
    code="internal_error", message="an internal error was reported to the operator", status=500
)
MESSAGES_PATH: Final = "/v1/messages"


class Gateway:
    """The application that :mod:`trunkline.runtime.server` hosts."""

    def __init__(
        self,
        settings: GatewayConfig,
        store: EvidenceStore,
        prover: Prover,
        transport: Transport,
        *,
        policy: str,
        memory: Memory | None = None,
        routing: Routing | None = None,
        key_store: KeyStore | None = None,
        gossip: Gossip | None = None,
        shared_limits: SharedLimits | None = None,
        metrics: Metrics | None = None,
        exporter: Exporter | None = None,
        clock: Clock,
        randomness: Randomness,
        logger: Logger,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._randomness = randomness
        self._logger = logger
        metrics = metrics or Metrics()
        parts = self._parts = assemble(
            settings,
            store,
            prover,
            transport,
            memory=memory,
            routing=routing or Routing(None, clock=clock, logger=logger),
            key_store=key_store,
            gossip=gossip,
            shared_limits=shared_limits,
            metrics=metrics,
            exporter=exporter,
            clock=clock,
            randomness=randomness,
            logger=logger,
        )
        self._routing = parts.routing
        self._telemetry = parts.telemetry
        self._verdicts = parts.verdicts
        self._keys = parts.keys
        self._charges = parts.charges
        self._dispatcher = parts.dispatcher
        self._shared = parts.shared
        self._models = parts.models
        self._replays = parts.replays
        self._conversations = parts.conversations
        self._pumps: dict[Pump, None] = {}
        # Drawn anew at each start: nodes forget what they kept soon enough.
        self._cache_salt = randomness.token(CACHE_SALT_BYTES)
        self._bodies = Bodies(settings.bodies_bytes_max, settings.body_bytes_max)
        self._stopping: asyncio.Task[None] | None = None
        self._router = Router(self._refuse)
        self._routes()
        metrics.add_route(self._router, settings.telemetry)
        parts.add_routes(self._router, policy, prover, metrics, logger=logger)

    async def startup(self) -> None:
        """Begin to look at the nodes, and to finish what an earlier process left provisional."""
        await self._parts.start()

    def reload(self) -> None:
        """Read the routing policy's file now."""
        self._routing.reload()

    async def shutdown(self) -> None:
        """Close everything; what is provisional stays in the store."""
        if self._stopping is not None:
            self._stopping.cancel()
        await self._parts.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        call = Call(scope, receive, send)
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._interrupt_all(call.stopping))
        try:
            await self._router.dispatch(call)
        finally:
            self._bodies.release(call)

    def _routes(self) -> None:
        add = self._router.add
        add("POST", "/v1/chat/completions", self._chat)
        add("POST", "/v1/embeddings", self._embeddings)
        add("POST", MESSAGES_PATH, self._messages)
        add("POST", RESPONSES_PATH, self._responses)
        self._conversations.add_routes(self._router)

    async def _interrupt_all(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        for pump in list(self._pumps):
            pump.interrupt()

    # The ways of asking.

    async def _chat(self, call: Call) -> None:
        await self._answer(call, asked.chat(await self._body(call)))

    async def _embeddings(self, call: Call) -> None:
        await self._answer(call, asked.embeddings(await self._body(call)))

    async def _messages(self, call: Call) -> None:
        await self._answer(call, asked.messages(await self._body(call)))

    async def _responses(self, call: Call) -> None:
        await self._answer(call, await self._conversations.asked(call, await self._body(call)))

    async def _body(self, call: Call) -> bytes:
        """The request's body as it was sent: what is signed must be what the app can show.
        Nothing is read of a caller that is not let in."""
        self._keys.authenticate(call)
        if call.header("content-encoding") not in (None, "", "identity"):
            raise RequestError(
                "content-encoding: send the body as it is",
                code="unsupported_encoding",
                param="content-encoding",
                status=415,
            )
        return await self._bodies.read(call)

    async def _answer(self, call: Call, wanted: Asked) -> None:
        """Make an answer, or show the one that this request was given before."""
        settings = self._settings
        keep_bodies = settings.keep_bodies if wanted.store is None else wanted.store
        tenant = self._keys.authenticate(call)
        wishes = read_wishes(call, settings.timeouts, keep_bodies=keep_bodies, tenant=tenant)
        self._keys.authorize(tenant, wanted.model)
        trace = read_traceparent(call.header(TRACEPARENT))
        key = replay.read_key(call.header(replay.HEADER))
        if key is None:
            await self._make(call, wanted, wishes, tenant, trace, self._new_answer_id())
            return
        claim = replay.claim_of(tenant.id, key, call.path, wanted.client)

        async def make(recording: Recording, name: str, again: bool) -> bool:
            return await self._make(recording, wanted, wishes, tenant, trace, name, again=again)

        done = self._bodies.lend(call)
        await self._replays.serve(call, claim, self._new_answer_id(), make, done)

    async def _make(
        self,
        sink: Call | Recording,
        wanted: Asked,
        wishes: Wishes,
        tenant: Tenant,
        trace: TraceParent | None,
        name: str,
        *,
        again: bool = False,
    ) -> bool:
        """Route, relay, and sum up one answer; returns whether it is whole. ``name``: its id;
        ``again``: as in :class:`Plan`."""
        settings = self._settings
        # Who waits is bounded by the queue, which knows whose turn it is to be refused.
        if (
            self._telemetry.counters.running - self._dispatcher.waiting
            >= settings.answers_running_max
        ):
            raise OverloadedError("too many answers are in progress", retry_after_s=1.0)
        began_s = self._clock.monotonic_s()
        most = most_tokens(wanted.request, wanted.kind, wanted.choices)
        plan = self._plan(wanted, wishes, began_s, tenant, most, name, again=again)
        await self._models.require(plan.model, plan.kind, plan.candidates, sink.stopping)
        answer = Answer(plan, self._new_attempt_id)
        names = tuple(dict.fromkeys(one.model for one in plan.candidates))
        with self._charges.held(plan.answer, tenant, names, most):
            watch = self._telemetry.begin(plan, trace, began_s)
            writer = self._writer(sink, plan, answer, wishes, wanted.echo)
            pump = Pump(
                self._shared,
                plan,
                answer,
                Scribe(sink, writer) if isinstance(sink, Recording) else writer,
                wanted.request,
                client_request=wanted.client if wishes.keep_bodies else None,
                observer=watch,
            )
            await self._carry(sink, pump, answer, watch)
        return pump.outcome is None

    async def _carry(self, sink: Sink, pump: Pump, answer: Answer, watch: Watch) -> None:
        self._pumps[pump] = None
        if sink.stopping.is_set():
            # Its body took until now: nobody else will tell it.
            pump.interrupt()
        try:
            async with sink.while_connected():
                await pump.run()
        except ClientGoneError:
            pump.abandon(CLIENT_GONE)
        except asyncio.CancelledError:
            # The last stage of stopping. The server cuts the connection.
            pump.abandon(STOPPING)
            raise
        except Exception:
            await pump.crash(CRASHED)
            raise
        finally:
            self._pumps.pop(pump, None)
            watch.ended(pump.outcome, answer)

    def _plan(
        self,
        wanted: Asked,
        wishes: Wishes,
        began_s: float,
        tenant: Tenant,
        most: Tokens,
        answer: str,
        *,
        again: bool,
    ) -> Plan:
        policy = self._policy()
        verification, model = policy.verification, policy.models.get(wanted.model)
        demanded = None if model is None else model.verify
        cost = self._dispatcher.estimate(wanted.model, wanted.request, wanted.kind, wanted.choices)
        blinding = self._randomness.token(BLINDING_BYTES).hex()
        bind = Hiding(blinding, answer=answer, attempt="").bind
        client = request_digest(wanted.client)
        held = before(verification, demanded, wishes.verify, mode=wishes.mode)
        # The app's own bytes, where it speaks the nodes' format: hashed once.
        same = wanted.request == wanted.client
        return Plan(
            answer=answer,
            kind=wanted.kind,
            model=wanted.model,
            stream=wanted.stream,
            choices=wanted.choices,
            client_format=wanted.format,
            client_digest=bind("request.client", client),
            request_digest=bind(
                "request.digest", client if same else request_digest(wanted.request)
            ),
            blinding=blinding,
            caller_nonce=wishes.nonce or self._randomness.token(NONCE_BYTES).hex(),
            created_s=self._clock.unix_ms() // 1000,
            mode=wishes.mode,
            audit=wishes.mode != "private" and verification is not None and verification.audit,
            before=held,
            deadline_s=began_s + wishes.total_s,
            timeouts=self._settings.timeouts,
            values=Values.of(wanted.request) if wanted.kind == "chat" else None,
            hold=wishes.hold,
            attempts_max=self._settings.attempts_max,
            hedging=policy.hedging,
            candidates=candidates(policy, wanted.model, answer=answer, tokens=likely(most)),
            tenant=tenant,
            priority=tenant.priority,
            tokens=cost.tokens,
            prompt_tokens=cost.input_tokens,
            text_bytes=cost.text_bytes,
            # What is held has to be made: of what was given before, its caller can open nothing.
            cache=cache_scope(tenant, self._cache_salt) if wishes.cache and not held else "",
            share=""
            if wishes.mode == "private"
            else share_scope(tenant, self._cache_salt, wanted.request),
            again=again,
            size=size_class(len(wanted.request)),
        )

    def _writer(
        self, sink: Sink, plan: Plan, answer: Answer, wishes: Wishes, echo: Echo | None
    ) -> StreamWriter | WholeWriter:
        names = frozenset(one.model for one in plan.candidates) or frozenset({plan.model})

        def head() -> list[tuple[str, str]]:
            return answer_headers(
                plan.answer,
                answer,
                plan.client_format,
                detail=wishes.detail,
                alert=self._verdicts.codes(names),
                verified=plan.before is not None,
            )

        if echo is not None:
            # Said as it is, whatever was asked for.
            echo = msgspec.structs.replace(echo, store=wishes.keep_bodies)
        if not plan.stream:
            return WholeWriter(sink, plan.client_format, plan.answer, head, echo)
        # What is translated is not what the chain is over.
        told = wishes.chain and plan.client_format == "openai.chat"
        return StreamWriter(
            sink, plan.client_format, plan.answer, head, echo, answer if told else None
        )

    def _new_answer_id(self) -> str:
        return answer_id(self._randomness.token(ID_RANDOM_BYTES))

    def _new_attempt_id(self) -> str:
        return attempt_id(self._randomness.token(ID_RANDOM_BYTES))

    def _policy(self) -> RoutingPolicy:
        return self._routing.current

    async def _refuse(self, call: Call, error: Error) -> None:
        """An error before the answer began, in the caller's format."""
        described = errors.describe(error)
        request_id = self._new_answer_id()
        self._telemetry.refused.add(described.code)
        self._logger.info(
            "call.refused", request_id=request_id, status=described.status, code=described.code
        )
        format_: ClientFormat = "anthropic.messages" if _wants_anthropic(call) else "openai.chat"
        await reply_error(call, format_, described, request_id)


def _wants_anthropic(call: Call) -> bool:
    return call.path.startswith(MESSAGES_PATH) or wants_anthropic(call)
