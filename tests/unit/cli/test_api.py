"""What the commands make of the gateway's own API."""

from types import SimpleNamespace

import pytest

from trunkline.base.errors import Error
from trunkline.cli import api


def said(**ready: bool) -> SimpleNamespace:
    """A gateway's status: which of its nodes it believes ready."""
    return SimpleNamespace(nodes=[SimpleNamespace(node=n, ready=ready[n]) for n in ready])


async def test_a_start_waits_until_the_gateway_sees_its_nodes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard = [api.NotRunningError("not yet"), said(a=True, b=False), said(a=True, b=True)]

    async def status(_: str) -> SimpleNamespace:
        one = heard.pop(0)
        if isinstance(one, Error):
            raise one
        return one

    monkeypatch.setattr(api, "status", status)

    await api.until_seen("http://gateway")
    assert not heard

    heard = [said(a=True, b=False)]
    await api.until_seen("http://gateway", without={"b"})
    assert not heard


async def test_a_gateway_that_never_sees_its_nodes_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def status(_: str) -> SimpleNamespace:
        return said(a=False)

    monkeypatch.setattr(api, "status", status)
    monkeypatch.setattr(api, "SEEN_S_MAX", 0.1)
    with pytest.raises(Error, match="does not see all nodes") as caught:
        await api.until_seen("http://gateway")
    assert caught.value.error_code == "start_timeout"
