"""What all answers of a gateway share, as far as carrying one needs it: no more than ports."""

from typing import Protocol

import msgspec

from trunkline.base.ports import Clock
from trunkline.gateway.core.actions import Judge, Judgement, Plan, Store
from trunkline.gateway.core.replay import Kept
from trunkline.gateway.directory import Directory
from trunkline.gateway.dispatcher import Dispatcher
from trunkline.gateway.health import Health
from trunkline.gateway.hedger import Hedger
from trunkline.gateway.store import Bodies
from trunkline.runtime.logger import Logger


class Vault(Protocol):
    """Where verified parts become durable."""

    async def keep(
        self,
        plan: Plan,
        part: Store,
        attempts: int,
        bodies: Bodies,
        kept: Kept | None = None,
        *,
        possible_double_work: bool = False,
    ) -> None:
        """Store the part; returns once it is durable. Raises an :class:`Error` if it is not."""
        ...


class Verifying(Protocol):
    """Who judges answers before they are shown."""

    async def judge(
        self, wanted: Judge, request: msgspec.Raw, blinding: str, *, timeout_s: float
    ) -> Judgement:
        """What they say within ``timeout_s``; never raises an :class:`Error`. ``request``: the
        bytes that the node was given; ``blinding``: as in :class:`Plan`."""
        ...


class Shared(msgspec.Struct, frozen=True, kw_only=True):
    """What a relay needs besides the answer itself: the process's shared parts."""

    directory: Directory
    dispatcher: Dispatcher
    health: Health
    hedger: Hedger
    vault: Vault
    judge: Verifying
    clock: Clock
    logger: Logger
