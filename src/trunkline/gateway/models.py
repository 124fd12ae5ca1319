"""Which models can be asked for: those that nodes serve, and the routing policy's virtual ones.

It refuses a name that nothing can serve, listing what there is, before an answer is begun.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

from trunkline.base.errors import NoRouteError, RequestError, StoppingError
from trunkline.gateway.core.candidates import candidates
from trunkline.gateway.core.route import Candidate, Need, as_candidate
from trunkline.gateway.directory import Directory, KnownModel
from trunkline.gateway.keys import Keys
from trunkline.gateway.routing import Routing
from trunkline.runtime.http import Call, Router
from trunkline.schema import models
from trunkline.schema.attempt import Kind
from trunkline.schema.models import ModelEntry

SETTLE_S: Final = 2.0
"""How long a call for a model nobody has named yet waits for the first look at the nodes."""
MODELS_LISTED_MAX: Final = 20
MODELS_PATH: Final = "/v1/models"
VIRTUAL_OWNER: Final = "routing policy"


class Models:
    """The list of models, and the check of a name against it."""

    def __init__(self, directory: Directory, routing: Routing, keys: Keys) -> None:
        self._directory = directory
        self._routing = routing
        self._keys = keys

    async def require(
        self,
        model: str,
        kind: Kind,
        standing_in: tuple[Candidate, ...],
        stopping: asyncio.Event,
    ) -> None:
        """Raise unless some node serves one of the candidates: RequestError (404), or
        NoRouteError (503) while a node was never heard of, or once the gateway is ``stopping``."""
        if self._served(model, kind, standing_in):
            return
        await self._directory.settled(SETTLE_S, stopping)
        if self._served(model, kind, standing_in):
            return
        if stopping.is_set():
            raise StoppingError
        names = [entry.id for entry in self.entries(kind)]
        listed = ", ".join(names[:MODELS_LISTED_MAX]) or "none"
        if self._directory.unseen:
            # Whether the model exists can not be known: say so, instead of denying it.
            raise NoRouteError(
                f"no reachable node serves this model, and {self._directory.unseen} could not be "
                f"asked yet; served are: {listed}",
                retry_after_s=1.0,
            )
        raise RequestError(
            f"no node serves this model for this kind of call; served are: {listed}",
            code="model_not_found",
            param="model",
            status=404,
        )

    def entries(self, kind: Kind | None = None) -> list[ModelEntry]:
        """Every model that can be asked for, by name; those of one kind, if one is given."""
        served = {known.name: known for known in self._directory.models()}
        names = sorted({*served, *self._routing.current.models})
        found = (self._entry(name, kind, served) for name in names)
        return [entry for entry in found if entry is not None]

    def _entry(
        self, name: str, kind: Kind | None, served: Mapping[str, KnownModel]
    ) -> ModelEntry | None:
        """The name's entry; None where nothing serves it now."""
        policy = self._routing.current
        standing_in = candidates(policy, name)
        behind = [
            served[model]
            for model in dict.fromkeys(one.model for one in standing_in)
            if model in served
            and kind in (None, served[model].kind)
            and self._served(name, served[model].kind, standing_in)
        ]
        if not behind:
            return None
        virtual = name in policy.models and bool(policy.models[name].use)
        # Whichever serves a virtual model, so much is taken.
        contexts = [one.context_tokens for one in behind if one.context_tokens is not None]
        first = behind[0]
        return ModelEntry(
            id=name,
            created_s=first.since_s,
            owned_by=VIRTUAL_OWNER if virtual else first.owned_by,
            context_tokens=min(contexts, default=None) if virtual else first.context_tokens,
        )

    def _served(self, model: str, kind: Kind, standing_in: tuple[Candidate, ...]) -> bool:
        need = Need(model=model, kind=kind, candidates=standing_in)
        return any(as_candidate(one, need) is not None for one in self._directory.offers(need))

    # GET /v1/models

    def add_routes(self, router: Router) -> None:
        """Register the list and its entries."""
        router.add("GET", MODELS_PATH, self._list)
        router.add_prefix("GET", MODELS_PATH + "/", self._one)

    async def _for(self, call: Call) -> list[ModelEntry]:
        """What this caller may ask for."""
        tenant = self._keys.authenticate(call)
        await self._directory.settled(SETTLE_S, call.stopping)
        return [entry for entry in self.entries() if self._keys.allows(tenant, entry.id)]

    async def _list(self, call: Call) -> None:
        shape = models.anthropic_list if wants_anthropic(call) else models.openai_list
        await call.reply(200, shape(await self._for(call)))

    async def _one(self, call: Call) -> None:
        name = call.path.removeprefix(MODELS_PATH + "/")
        shape = models.anthropic_model if wants_anthropic(call) else models.openai_model
        for entry in await self._for(call):
            if entry.id == name:
                await call.reply(200, shape(entry))
                return
        raise RequestError(
            "no node serves this model", code="model_not_found", param="model", status=404
        )


def wants_anthropic(call: Call) -> bool:
    """Whether the caller speaks Anthropic's format on a path that both formats have."""
    return call.header(models.ANTHROPIC_HEADER) is not None
