"""Virtual times of tenants: who owes whom, and for how long."""

from trunkline.gateway.core.fair import Request, Shares
from trunkline.gateway.core.quota import Cost
from trunkline.gateway.core.route import Need


def request(number: int, tenant: str, tokens: int) -> Request:
    cost = Cost(input_tokens=tokens)
    need = Need(model="m", kind="chat")
    return Request(number=number, need=need, tenant=tenant, deadline_s=10.0, cost=cost)


def busy(shares: Shares) -> None:
    """Two wait; the first starts and turns out to be thought dear."""
    shares.came("gold")
    shares.came("silver")
    shares.served(request(1, "silver", 100_000))
    shares.left("silver")


def test_who_was_served_while_another_waited_is_behind_it() -> None:
    shares = Shares()
    busy(shares)
    shares.came("silver")
    assert shares.at("silver") > shares.at("gold")


def test_no_debt_outlives_the_last_who_waits() -> None:
    shares = Shares()
    busy(shares)
    shares.left("gold")
    shares.came("gold")
    shares.came("silver")
    assert shares.at("silver") == shares.at("gold")
