"""What the simulation found of limits: what an answer counts, and who is told to come back."""

import pytest
from tests.support.limited import MODEL, Provider, World

from trunkline.gateway.core.policy import LimitsPolicy
from trunkline.gateway.core.quota import Cost
from trunkline.gateway.core.slots import End, How, Slots

COST = Cost(input_tokens=10)


@pytest.mark.parametrize("how", ["unreached", "limited", "busy", "failed"])
def test_an_answer_counts_for_its_tenant_even_where_its_first_attempt_fails(how: How) -> None:
    slots = Slots()
    slots.configure_tenant("a", 5, None)
    own = slots.tenant("a")
    assert own is not None
    run = slots.start(("node", MODEL), COST, own.spend(COST, 0.0), "a", 0.0)
    slots.finish(run, End(how=how), 1.0)
    # The attempt after it counts nothing, and goes well.
    slots.finish(slots.start(("other", MODEL), COST, (), "a", 1.0), End(how="ok", tokens=10), 2.0)
    assert own.room(COST, 2.0) == 4


def test_who_fits_into_what_windows_have_left_is_not_told_to_come_back() -> None:
    """Ten a minute are one in six seconds in the long run; the first ten are there at once."""
    world = World({"a": Provider(requests=10, places=2, takes_s=0.5)})
    world.scheduler.slots.configure_account(
        "a", LimitsPolicy(requests_per_minute=10, concurrency=2)
    )
    for number in range(10):
        world.ask(number * 0.01, deadline_s=8.0)
    world.run()
    assert [seen.refused for seen in world.seen.values() if seen.refused is not None] == []
