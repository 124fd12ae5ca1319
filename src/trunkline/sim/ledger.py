"""The judges' own books: what each tenant must have been charged, by the receipts on the disk.

============ =======================================================================================
``charge``   an answer with evidence is not charged exactly once, at its price, to who asked; a
             charge without evidence; totals that are not the sum of their charges. Where a
             provider did not say what was used: a charge of nothing, or of more than could be
``budget``   a tenant was charged more than its budget
``repeated`` a call made again under its idempotency key got another answer, or was charged again
``exceeded`` a key's requests in some minute were more than its limit
============ =======================================================================================
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from trunkline.gateway.core.policy import RoutingPolicy
from trunkline.gateway.core.price import COMPLETION_TOKENS_UNSAID
from trunkline.sim.app import Ask, Seen
from trunkline.sim.checkers import succeeded
from trunkline.sim.disk import Disk
from trunkline.sim.roles import tenant_of
from trunkline.sim.violation import Violation

WINDOW_S: Final = 60.0
_NANO: Final = 1_000
_FRAME_BYTES: Final = 512
_BOUNDS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens")


def charges(disk: Disk, policy: RoutingPolicy, seen: Iterable[Seen]) -> list[Violation]:
    """Compare the gateway's disk with what its receipts and its apps say."""
    asked = {one.answer: one.ask for one in seen if one.answer}
    query = disk.connection.execute
    charged: dict[str, tuple[str, str, int]] = {}
    for answer, tenant, model, nusd in query("SELECT answer, tenant, model, nusd FROM charges"):
        charged[answer] = (tenant, model, nusd)
    stored = dict(query("SELECT answer, signed FROM parts").fetchall())
    found = [
        Violation("charge", f"answer {answer}: charged without evidence")
        for answer in charged.keys() - stored.keys()
    ]
    for answer, signed in stored.items():
        ask = asked.get(answer)
        wrong = _wrong(signed, charged.get(answer), policy, ask)
        if not wrong and ask is not None and charged[answer][0] != tenant_of(ask.key):
            wrong = "charged to another tenant"
        if wrong:
            found.append(Violation("charge", f"answer {answer}: {wrong}"))
    return [*found, *_totals(disk, charged.values(), policy)]


def _wrong(
    signed: bytes, charge: tuple[str, str, int] | None, policy: RoutingPolicy, ask: Ask | None
) -> str:
    receipt = json.loads(json.loads(signed)["receipt"])
    if charge is None:
        return "not charged"
    price = policy.prices[charge[1]]
    usage = receipt["usage"]
    if not (usage["counted"] or usage["prompt"] or usage["completion"] or "cached" in receipt):
        most = None if ask is None else _most_nusd(ask, policy)
        fair = charge[2] > 0 and (most is None or charge[2] <= most)
        return "" if fair else f"charged {charge[2]} nano-USD, unsaid what for, of at most {most}"
    pico = usage["prompt"] * int(price.input) + usage["completion"] * int(price.output)
    due = -(-pico // _NANO)
    return "" if due == charge[2] else f"charged {charge[2]} nano-USD of {due}"


def _most_nusd(ask: Ask, policy: RoutingPolicy) -> int:
    """What a call may cost at the dearest model, on the generous side: each byte of it a token of
    the prompt, and more than that, since it is written in another format for the node."""
    body = json.loads(ask.body)
    said = [int(body[name]) for name in _BOUNDS if body.get(name)]
    completion = (max(said) if said else COMPLETION_TOKENS_UNSAID) * int(body.get("n") or 1)
    costs = (
        (2 * len(ask.body) + _FRAME_BYTES) * int(price.input) + completion * int(price.output)
        for price in policy.prices.values()
    )
    return -(-max(costs) // _NANO)


def _totals(
    disk: Disk, charged: Iterable[tuple[str, str, int]], policy: RoutingPolicy
) -> list[Violation]:
    sums: Counter[str] = Counter()
    for tenant, _, nusd in charged:
        sums[tenant] += nusd
    rows = disk.connection.execute("SELECT tenant, SUM(nusd) FROM spending GROUP BY tenant")
    found: list[Violation] = []
    if {tenant: nusd for tenant, nusd in rows.fetchall() if nusd} != {
        tenant: nusd for tenant, nusd in sums.items() if nusd
    }:
        found.append(Violation("charge", "the totals are not the sums of the charges"))
    for name, own in policy.keys.items():
        spent = sums[tenant_of(name)]
        if own.budget_usd is not None and spent > int(own.budget_usd) * _NANO:
            found.append(Violation("budget", f"{name}: {spent} of {own.budget_usd * _NANO}"))
    return found


def repeats(disk: Disk, seen: Iterable[Seen]) -> list[Violation]:
    """One answer and one charge for each idempotency key, however often it was asked."""
    tries: dict[str, list[Seen]] = {}
    for one in seen:
        if one.ask.token is not None:
            tries.setdefault(one.ask.token, []).append(one)
    charged = {answer for (answer,) in disk.connection.execute("SELECT answer FROM charges")}
    found: list[Violation] = []
    for of in tries.values():
        whole = [one for one in of if succeeded(one)]
        number = of[0].ask.number
        if len({(one.answer, one.body) for one in whole}) > 1:
            found.append(Violation("repeated", f"call {number}: {len(whole)} answers, not all one"))
        paid = charged & {one.answer for one in of}
        if len(paid) > 1:
            found.append(Violation("repeated", f"call {number}: charged {len(paid)} times"))
    return found


def rates(policy: RoutingPolicy, begun: Mapping[str, Sequence[float]]) -> list[Violation]:
    """``begun``: by key, when each answer's first attempt arrived at a node."""
    found: list[Violation] = []
    for name, times in begun.items():
        limit = policy.keys[name].requests_per_minute
        most = _most(sorted(times))
        if limit is not None and most > limit:
            found.append(Violation("exceeded", f"{name}: {most} in a minute, of {limit}"))
    return found


def _most(times: Sequence[float]) -> int:
    """The most of them in any window."""
    most = first = 0
    for last, at_s in enumerate(times):
        while times[first] <= at_s - WINDOW_S:
            first += 1
        most = max(most, last - first + 1)
    return most
