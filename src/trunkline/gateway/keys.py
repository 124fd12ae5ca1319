"""Who is calling: virtual keys, checked against the store of their hashes.

A key is shown once, when it is made; from then on only its SHA-256 is known. Keys in force are held
in memory by digest, and read again whenever the store changes. A digest is looked up in a table:
what a caller could learn from the time that takes is about the hash of his own guess, of which he
chooses no part, so there is nothing to approach step by step.

It refuses to write a credential down, into a line or an error, whoever sent it.
"""

import asyncio
from base64 import b32encode
from collections.abc import Callable
from typing import Final, Literal

from trunkline.base.errors import OverloadedError, RequestError
from trunkline.base.ids import ID_RANDOM_BYTES
from trunkline.base.ports import Clock, Randomness
from trunkline.gateway.core.policy import KeyPolicy, RoutingPolicy
from trunkline.gateway.core.tenant import ANONYMOUS, Tenant
from trunkline.gateway.key_store import Credential, KeyStore, digest_of
from trunkline.runtime.http import Call
from trunkline.runtime.logger import Logger

PREFIX: Final = "tlk_"
SECRET_BYTES: Final = 32
SECRET_CHARS: Final = len(PREFIX) + 52
REFRESH_S: Final = 0.5
"""Between two looks at the store: so old may be what is known of a key."""
UNREADABLE_S_MAX: Final = 60.0
"""While the store can not be read, what was known stays in force so long; then no key does."""

KeyUse = Literal["off", "optional", "required"]
NO_POLICY: Final = KeyPolicy()


def new_secret(randomness: Randomness) -> str:
    """A fresh virtual key, 256 bits: ``tlk_`` and 52 characters."""
    spelled = b32encode(randomness.token(SECRET_BYTES)).decode("ascii")
    return PREFIX + spelled.rstrip("=").lower()


def new_tenant_id(randomness: Randomness) -> str:
    """A fresh tenant's id: 120 bits, so that a digest of it gives nothing away."""
    return "ten_" + b32encode(randomness.token(ID_RANDOM_BYTES)).decode("ascii").lower()


class Keys:
    """The keys in force. ``start`` it, ``stop`` it."""

    def __init__(
        self,
        use: KeyUse,
        store: KeyStore | None,
        policy: Callable[[], RoutingPolicy],
        *,
        clock: Clock,
        logger: Logger,
    ) -> None:
        """``store``: needed unless ``use`` is off. ``policy``: the routing policy of the moment."""
        if store is None and use != "off":
            raise ValueError("keys can not be checked without their store")
        self._use = use
        self._store = store
        self._policy = policy
        self._clock = clock
        self._logger = logger
        self._known: dict[bytes, Credential] = {}
        self._revision = -1
        self._unreadable_since_s: float | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the keys. From here they are kept up to date."""
        if self._store is not None:
            await self.refresh()
            self._task = asyncio.create_task(self._follow(), name="keys")

    async def stop(self) -> None:
        """Close the store."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._store is not None:
            await self._store.close()

    def authenticate(self, call: Call) -> Tenant:
        """Who sent this call. Raises :class:`RequestError` 401 ``invalid_api_key``, and 403
        ``foreign_origin`` for a page in somebody's browser that knows no key."""
        if self._use == "off":
            return self._anonymous(call)
        secret = _secret(call)
        if secret is None and self._use == "optional":
            return self._anonymous(call)
        if self._unreadable_s > UNREADABLE_S_MAX:
            # A key that was revoked meanwhile must not go on working for good.
            raise OverloadedError(
                "which keys are in force can not be known: the store of keys is not readable",
                code="keys_unreadable",
                retry_after_s=REFRESH_S,
            )
        if secret is None:
            raise _denied("a key of this gateway is needed, tlk_…, as the client's api_key")
        found = self._known.get(digest_of(secret))
        if found is None:
            raise _denied("this gateway does not know the key, or it was revoked")
        if found.ends_ms is not None and found.ends_ms <= self._clock.unix_ms():
            raise _denied("the key has expired")
        return self._tenant(found.tenant, found.name)

    @property
    def problem(self) -> str:
        """Why what is known of the keys may be wrong, for a person; empty: it is not."""
        if self._unreadable_since_s is None:
            return ""
        left_s = max(UNREADABLE_S_MAX - self._unreadable_s, 0.0)
        then = f"in {left_s:.0f} s all are refused" if left_s else "all are refused"
        return f"the store of keys is not readable; revoked keys may still work, {then}"

    @property
    def _unreadable_s(self) -> float:
        since_s = self._unreadable_since_s
        return 0.0 if since_s is None else self._clock.monotonic_s() - since_s

    def authorize(self, tenant: Tenant, model: str) -> None:
        """Raise :class:`RequestError` 403 ``model_not_allowed`` if it may not be asked for."""
        if not self.allows(tenant, model):
            raise RequestError(
                "this key may not use the model",
                code="model_not_allowed",
                param="model",
                status=403,
            )

    def allows(self, tenant: Tenant, model: str) -> bool:
        """Whether the tenant may ask for a model by this name."""
        return self._policy().allows(tenant.name, model)

    def in_force(self) -> list[tuple[str, str]]:
        """Tenant id and name of every key not revoked, by name."""
        found = {(known.name, known.tenant) for known in self._known.values()}
        return [(tenant, name) for name, tenant in sorted(found)]

    async def refresh(self) -> None:
        """Read the store if it has changed."""
        if self._store is None:
            return
        changed = await self._store.changed_since(self._revision)
        if changed is not None:
            self._revision, credentials = changed
            self._known = {found.digest: found for found in credentials}
            self._logger.info("keys.read", secrets=len(self._known))

    async def _follow(self) -> None:
        refusing = False
        while True:
            await asyncio.sleep(REFRESH_S)
            try:
                await self.refresh()
            except Exception as error:  # noqa: BLE001 - what is known stays in force for a while
                if self._unreadable_since_s is None:
                    self._unreadable_since_s = self._clock.monotonic_s()
                    self._logger.crashed("keys.unreadable", error)
                elif self._unreadable_s > UNREADABLE_S_MAX and not refusing:
                    self._logger.error("keys.refused", reason=self.problem)
                    refusing = True
            else:
                if self._unreadable_since_s is not None:
                    self._logger.info("keys.readable")
                self._unreadable_since_s, refusing = None, False

    def _anonymous(self, call: Call) -> Tenant:
        # Any site that the user looks at could spend the user's accounts otherwise.
        if call.from_foreign_page:
            raise RequestError(
                "a page of another site may not call this gateway without a key of its own",
                code="foreign_origin",
                param="origin",
                status=403,
            )
        return self._tenant(ANONYMOUS.id, ANONYMOUS.name)

    def _tenant(self, id_: str, name: str) -> Tenant:
        own = self._policy().keys.get(name, NO_POLICY)
        return Tenant(
            id=id_,
            name=name,
            weight=own.weight,
            priority=own.rank,
            cache=own.cache or ("asked" if id_ else "never"),
            mode=own.mode,
        )


def _secret(call: Call) -> str | None:
    """The virtual key that a call carries; None: none of ours. Apps that have to send a credential
    to whomever they call send any, and those are not looked at."""
    scheme, _, credential = (call.header("authorization") or "").partition(" ")
    sent = (
        credential.strip() if scheme.lower() == "bearer" else "",
        (call.header("x-api-key") or "").strip(),
    )
    for secret in sent:
        if secret.startswith(PREFIX):
            return secret[: SECRET_CHARS + 1]
    return None


def _denied(message: str) -> RequestError:
    return RequestError(message, code="invalid_api_key", status=401)
