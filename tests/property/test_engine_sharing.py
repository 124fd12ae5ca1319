"""Whatever comes when, whoever may share what, and whatever is cancelled: each job gets what it
gets alone, and what one tenant says changes nothing of what another's work takes."""

from collections.abc import Sequence

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.engine.test_batcher import ROOM, VOCABULARY, FakeMemory, generate, running

from trunkline.base.errors import Error
from trunkline.engine.batcher import Batcher
from trunkline.inference.ports import Generate, Sharing, Token

SLOTS = 3
LEAD = [11, 12, 13, 14, 15, 16, 17, 18, 19]
"""The template's beginning, of which a job may say that a part is nobody's secret."""
BEGINNING = [*range(30, 45)]
"""What many prompts go on with."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One job, and when it comes and goes."""

    scope: str
    lead: int
    common: int
    """How much of ``BEGINNING`` its prompt has."""
    own: tuple[int, ...]
    tokens: int
    rounds_before: int
    cancelled_after: int | None

    def job(self, words: Sequence[int]) -> Generate:
        prompt = [*LEAD, *BEGINNING[: self.common], *words, 1]
        job = generate(prompt, sharing=Sharing(scope=self.scope, lead=self.lead))
        return msgspec.structs.replace(job, max_tokens=self.tokens)


asked = st.builds(
    Asked,
    scope=st.sampled_from(["", "a", "b"]),
    lead=st.sampled_from([0, 4, len(LEAD)]),
    common=st.sampled_from([0, 2, len(BEGINNING)]),
    own=st.lists(st.integers(2, VOCABULARY - 2), max_size=12).map(tuple),
    tokens=st.integers(1, 6),
    rounds_before=st.integers(0, 4),
    cancelled_after=st.one_of(st.none(), st.integers(0, 3)),
)


def run(plan: Sequence[Asked], jobs: Sequence[Generate]) -> tuple[dict[int, list[Token]], str]:
    """All answers, and what was computed when, without a word of what it was."""
    memory = FakeMemory(SLOTS)
    shared = Batcher(memory, slots=SLOTS, piece_tokens=4, lone_piece_tokens=7, queue_jobs_max=64)
    found: dict[int, list[Token]] = {}
    leaving: dict[int, int] = {}
    due = [one.rounds_before for one in plan]
    while due or shared.busy:
        while due and due[0] == 0:
            due.pop(0)
            id_ = len(plan) - len(due) - 1
            shared.add(running(id_, jobs[id_]))
            after = plan[id_].cancelled_after
            if after is not None:
                leaving[id_] = after
        due[:1] = [one - 1 for one in due[:1]]
        for id_ in [id_ for id_, after in leaving.items() if after == 0]:
            shared.cancel(id_)
        leaving = {id_: after - 1 for id_, after in leaving.items() if after}
        for moves in (shared.advance_answers(), shared.advance_prompt()):
            for id_, outcome in moves:
                assert not isinstance(outcome, Error)
                found.setdefault(id_, []).extend(outcome)
        assert max(map(len, memory.cache)) <= ROOM
    return found, repr((memory.batches, memory.outputs, memory.copies))


def lone(job: Generate) -> list[Token]:
    return run([Asked(scope="", lead=0, common=0, own=(), tokens=1, rounds_before=0,
                      cancelled_after=None)], [job])[0][0]  # fmt: skip


@given(plan=st.lists(asked, min_size=1, max_size=6))
def test_each_gets_what_it_gets_alone(plan: list[Asked]) -> None:
    jobs = [one.job(one.own) for one in plan]
    found, _ = run(plan, jobs)
    for id_, (one, job) in enumerate(zip(plan, jobs, strict=True)):
        whole = lone(job)
        answer = found.get(id_, [])
        assert answer == whole if one.cancelled_after is None else answer == whole[: len(answer)]


@given(plan=st.lists(asked, min_size=2, max_size=6), data=st.data())
def test_what_others_ask_does_not_show_in_what_work_takes(
    plan: list[Asked], data: st.DataObject
) -> None:
    """Jobs of scope ``b`` are one tenant's. What each of the others says, of a tenant of its own or
    of none, is said otherwise in a second run, which computes as much at the same times."""
    plan = [
        one if one.scope == "b" else msgspec.structs.replace(one, scope=one.scope and str(at))
        for at, one in enumerate(plan)
    ]
    words = [
        one.own
        if one.scope == "b"
        else data.draw(st.tuples(*[st.integers(2, VOCABULARY - 2) for _ in one.own]))
        for one in plan
    ]
    first = run(plan, [one.job(one.own) for one in plan])[1]
    assert first == run(plan, [one.job(its) for one, its in zip(plan, words, strict=True)])[1]
