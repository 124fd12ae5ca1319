"""What the Responses format refers back to: an earlier answer, or an item of one.

The gateway keeps nothing unless it is asked to (``store: true``, or bodies kept by header or by
configuration). What was kept is in the evidence store, as the chat request that nodes were asked
and the events that one of them sent; the response is made of them anew, as it was the first time.
What was asked with a virtual key is known to that key's holder alone.

It refuses, by the parameter's name, what was not kept, and an answer that took more than one
attempt: of the first, what the app was shown is not on record.
"""

import re
from typing import Final

import msgspec

from trunkline.base.errors import Error, RequestError
from trunkline.gateway import asked
from trunkline.gateway.asked import Asked
from trunkline.gateway.core.tenant import Tenant
from trunkline.gateway.keys import Keys
from trunkline.gateway.store import Bodies, EvidenceStore
from trunkline.gateway.writer import response_id, whole_answer
from trunkline.receipts import decode
from trunkline.runtime.http import Call, Router
from trunkline.schema import openai_responses as src
from trunkline.schema.grid import responses_openai, responses_openai_items

RESPONSES_PATH: Final = "/v1/responses"
NOT_FOUND: Final = "previous_response_not_found"
REFERRED_BYTES_MAX: Final = 32 * 1024 * 1024
"""What one request may refer to, together: a few bytes of it may each stand for a whole answer."""

_ITEM: Final = re.compile(r"(?:msg|fc|rs)_([a-z0-9]{1,64})_([0-9]{1,6})")


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that was kept."""

    request: src.ResponsesRequest
    """As the app sent it."""
    messages: tuple[msgspec.Raw, ...]
    """What nodes were told, the app's instructions first if it gave any."""
    response: bytes
    """The whole response, as JSON."""

    @property
    def output(self) -> tuple[src.Item, ...]:
        return src.output_items(self.response)


class _Referred:
    """What one request refers to: each answer is read once, and all of it is bounded."""

    def __init__(self) -> None:
        self._left = REFERRED_BYTES_MAX
        self.outputs: dict[str, tuple[src.Item, ...]] = {}

    def take(self, size: int, param: str) -> None:
        """Count ``size`` more bytes. Raises :class:`RequestError` 413 if that is too much."""
        self._left -= size
        if self._left < 0:
            raise RequestError(
                f"{param}: the request refers to more than {REFERRED_BYTES_MAX} bytes",
                code="body_too_large",
                param=param,
                status=413,
            )


class _Chat(msgspec.Struct, frozen=True, kw_only=True):
    messages: tuple[msgspec.Raw, ...]
    stream: bool | None = None


_CHAT: Final = msgspec.json.Decoder(_Chat)


class Conversations:
    """Resolves references, and shows what was kept."""

    def __init__(self, store: EvidenceStore, keys: Keys) -> None:
        self._store = store
        self._keys = keys

    def add_routes(self, router: Router) -> None:
        """``GET /v1/responses/<id>``."""
        router.add_prefix("GET", f"{RESPONSES_PATH}/", self.show)

    async def asked(self, call: Call, raw: bytes) -> Asked:
        """What a Responses request asks for, its references resolved. Raises RequestError."""
        tenant = self._keys.authenticate(call)
        view = src.parse(raw)
        referred = _Referred()
        items = tuple(
            [
                await self._item(item, f"input[{index}]", tenant, referred)
                if isinstance(item, src.ItemReference)
                else item
                for index, item in enumerate(view.items)
            ]
        )
        view = msgspec.structs.replace(view, items=items)
        if view.previous_response_id is None:
            return asked.responses(view)
        param = "previous_response_id"
        kept = await self._kept(view.previous_response_id, param, tenant)
        referred.take(len(kept.response) + sum(map(len, kept.messages)), param)
        # Instructions hold for one answer: the format has new ones take their place.
        told = kept.messages[kept.request.instructions is not None :]
        said = responses_openai_items.translate(kept.output)
        return asked.responses(view, (*told, *said))

    async def show(self, call: Call) -> None:
        """The response that was kept, whole."""
        tenant = self._keys.authenticate(call)
        for name in ("stream", "starting_after", "include_obfuscation"):
            if call.query.get(name, "false") != "false":
                raise RequestError(
                    f"{name}: is not supported", code="unsupported_parameter", param=name
                )
        name = call.path.removeprefix(f"{RESPONSES_PATH}/")
        kept = await self._kept(name, "response_id", tenant, status=404)
        await call.reply(200, kept.response)

    async def _item(
        self, item: src.ItemReference, param: str, tenant: Tenant, referred: _Referred
    ) -> src.Item:
        met = _ITEM.fullmatch(item.id or "")
        if met is None:
            raise _unknown(param, 400)
        output = referred.outputs.get(met[1])
        if output is None:
            kept = await self._kept(f"resp_{met[1]}", param, tenant)
            referred.take(len(kept.response), param)
            output = referred.outputs[met[1]] = kept.output
        if int(met[2]) >= len(output):
            raise _unknown(param, 400)
        found = output[int(met[2])]
        referred.take(len(msgspec.json.encode(found)), param)
        return found

    async def _kept(self, name: str, param: str, tenant: Tenant, status: int = 400) -> _Kept:
        answer = "ans_" + name.removeprefix("resp_")
        found = await self._store.get(answer) if name.startswith("resp_") else None
        if found is None or found[0].format != "openai.responses":
            raise _unknown(param, status)
        if found[0].tenant not in ("", tenant.id):
            raise _unknown(param, status)
        parts = found[1]
        bodies = parts[0].bodies
        if bodies is None or bodies.client_request is None:
            raise _unknown(param, status)
        try:
            shown = decode(parts[0].signed.receipt.encode()).response
            if len(parts) == 1 and not shown.resumed and not shown.prefix:
                return _rebuilt(answer, bodies, bodies.client_request)
        except (Error, msgspec.DecodeError):
            raise _unknown(param, status) from None
        raise RequestError(
            f"{param}: that answer was continued by another node, and what the first one said is "
            "not kept: send its items",
            code="previous_response_not_whole",
            param=param,
            status=status,
        )


def _rebuilt(answer: str, bodies: Bodies, client_request: bytes) -> _Kept:
    request = src.parse(client_request)
    chat = _CHAT.decode(bodies.request or b"")
    told = msgspec.structs.replace(responses_openai.echo(request), store=True)
    chunks = [chunk.encode() for chunk in bodies.chunks or ()]
    if chat.stream:
        name = response_id(answer)
        response = responses_openai.whole_of(chunks, response_id=name, told=told)
    else:
        (body,) = chunks
        response = whole_answer(body, "openai.responses", answer, told)
    return _Kept(request=request, messages=chat.messages, response=response)


def _unknown(param: str, status: int) -> RequestError:
    return RequestError(
        f"{param}: is not an answer that was kept here (store: true keeps one)",
        code=NOT_FOUND,
        param=param,
        status=status,
    )
