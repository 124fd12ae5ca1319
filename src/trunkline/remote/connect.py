"""Opening one connection: DNS, TCP to the address that answers first, TLS; each failure coded.

Addresses are tried a quarter of a second apart, families alternating (RFC 8305, simplified), so
that one dead address does not use up the whole deadline.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Callable
from itertools import chain, zip_longest
from typing import Final, TypeVar

from trunkline.base.errors import ConnectError, TimedOutError, UpstreamError
from trunkline.remote.limit import Limit
from trunkline.remote.target import Origin
from trunkline.remote.transport import CONNECT_TIMEOUT, DNS_FAILED, REFUSED, TLS_FAILED

STAGGER_S: Final = 0.25
ADDRESSES_MAX: Final = 8


class Cuttable(asyncio.Protocol):
    """A connection that can be cut at once."""

    def abort(self) -> None:
        raise NotImplementedError


ProtocolT = TypeVar("ProtocolT", bound=Cuttable)


def tls_context() -> ssl.SSLContext:
    """Certificates checked against the system's roots, host names checked, HTTP/1.1 only."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


async def connect(
    origin: Origin,
    protocol: Callable[[], ProtocolT],
    tls: ssl.SSLContext | None,
    timeout_s: float,
) -> ProtocolT:
    """Connect to ``origin`` within ``timeout_s``; ``tls`` is used when its scheme is https.

    Raises ConnectError or TimedOutError with the codes of :mod:`trunkline.remote.transport`.
    """
    try:
        async with Limit(timeout_s):
            addresses = await _resolve(origin)
            return await _first(origin, addresses, protocol, tls if origin.tls else None)
    except TimeoutError:
        raise TimedOutError(
            f"no connection to {origin.host} within {timeout_s:g} s", code=CONNECT_TIMEOUT
        ) from None


async def _resolve(origin: Origin) -> list[str]:
    try:
        return [str(ipaddress.ip_address(origin.host))]
    except ValueError:
        pass
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise ConnectError(f"{origin.host} has no address", code=DNS_FAILED) from None
    six = [str(info[4][0]) for info in found if info[0] == socket.AF_INET6]
    four = [str(info[4][0]) for info in found if info[0] == socket.AF_INET]
    first, second = (six, four) if found and found[0][0] == socket.AF_INET6 else (four, six)
    mixed = [address for address in chain.from_iterable(zip_longest(first, second)) if address]
    if not mixed:
        raise ConnectError(f"{origin.host} has no address", code=DNS_FAILED)
    return list(dict.fromkeys(mixed))[:ADDRESSES_MAX]


async def _first(
    origin: Origin,
    addresses: list[str],
    protocol: Callable[[], ProtocolT],
    tls: ssl.SSLContext | None,
) -> ProtocolT:
    """The first connection to come about; the others are given up."""
    if len(addresses) == 1:
        return await _open(origin, addresses[0], protocol, tls)
    running: set[asyncio.Task[ProtocolT]] = set()
    waiting = list(addresses)
    failure: UpstreamError | None = None
    try:
        while running or waiting:
            if waiting:
                address = waiting.pop(0)
                running.add(asyncio.create_task(_open(origin, address, protocol, tls)))
            done, running = await asyncio.wait(
                running,
                timeout=STAGGER_S if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in done:
                error = task.exception()
                if error is None:
                    # Another may have come about in the same turn; the finally clause drops it.
                    running |= done - {task}
                    return task.result()
                if not isinstance(error, UpstreamError):
                    raise error
                failure = error
    finally:
        for task in running:
            task.cancel()
            task.add_done_callback(_drop)
    raise failure or ConnectError(f"{origin.host} has no address", code=DNS_FAILED)


def _drop(task: "asyncio.Task[ProtocolT]") -> None:
    """Close a connection that came about after another had won."""
    if not task.cancelled() and task.exception() is None:
        task.result().abort()


async def _open(
    origin: Origin,
    address: str,
    protocol: Callable[[], ProtocolT],
    tls: ssl.SSLContext | None,
) -> ProtocolT:
    loop = asyncio.get_running_loop()
    name = origin.host if tls is not None else None
    try:
        _, made = await loop.create_connection(
            protocol, address, origin.port, ssl=tls, server_hostname=name
        )
    except (ssl.SSLError, ssl.CertificateError) as error:
        why = getattr(error, "verify_message", "") or getattr(error, "reason", "") or "failed"
        raise ConnectError(f"TLS with {origin.host}: {why}", code=TLS_FAILED) from None
    except ConnectionRefusedError:
        raise ConnectError(f"{origin.host} refused the connection", code=REFUSED) from None
    except (ConnectionResetError, ConnectionAbortedError, BrokenPipeError):
        # With TLS the TCP connection came about first, so it was the handshake that was cut.
        code = REFUSED if tls is None else TLS_FAILED
        raise ConnectError(f"{origin.host} cut the connection", code=code) from None
    except OSError as error:
        raise ConnectError(
            f"no connection to {origin.host}: {error.strerror or type(error).__name__}",
            code=REFUSED,
        ) from None
    return made
