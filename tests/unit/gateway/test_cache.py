"""Answers that nodes kept: who may be given them, and a node that sends one unasked."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.property.test_gateway_answer import plan_of
from tests.unit.evidence import make_vectors as made
from tests.unit.gateway.test_prefix import CUT, Machine

from trunkline.gateway.core.policy import RoutingPolicy
from trunkline.gateway.core.tenant import ANONYMOUS, Tenant, cache_scope, share_scope
from trunkline.gateway.core.ticket import Outcome

SCOPE = "5c" * 32
ASKED = msgspec.structs.replace(plan_of(stream=True), cache=SCOPE)


def test_one_that_was_asked_for_goes_on() -> None:
    machine = Machine(plan=ASKED)
    machine.accept(cached=True)
    assert len(machine.starts) == 1
    assert machine.answer.accepted is not None
    assert machine.answer.accepted.cached


def test_one_that_nobody_asked_for_is_left_before_a_word_is_shown() -> None:
    machine = Machine()
    machine.accept(cached=True)
    assert machine.text == ""
    assert len(machine.starts) == 2


def test_a_retry_is_to_be_made() -> None:
    machine = Machine(plan=ASKED)
    machine.accept()
    machine.fail(CUT)
    machine.accept(cached=True)
    assert len(machine.starts) == 3
    assert machine.start.previous[0].error == CUT.code


def test_what_was_kept_uses_nothing_and_teaches_nothing() -> None:
    assert Outcome.of(made.cached(), 0.5) == Outcome(tokens=0)
    fresh = made.receipt()
    used = fresh.usage.prompt + fresh.usage.completion
    assert Outcome.of(fresh, 0.5) == Outcome(
        tokens=used, prompt_tokens=fresh.usage.prompt, first_token_s=0.5
    )


ids = st.text(max_size=8)


@given(ids, ids, st.binary(max_size=4), st.binary(max_size=4))
def test_a_scope_is_one_tenants_under_one_salt(
    one: str, other: str, salt: bytes, pepper: bytes
) -> None:
    scopes = [
        cache_scope(Tenant(id=name, name="x"), bytes(28) + drawn.ljust(4, b"-"))
        for name, drawn in ((one, salt), (other, pepper))
    ]
    same = (one, salt.ljust(4, b"-")) == (other, pepper.ljust(4, b"-"))
    assert (scopes[0] == scopes[1]) == same
    assert all(len(bytes.fromhex(scope)) == 32 for scope in scopes)


def conversation(*texts: str) -> bytes:
    """A request in the OpenAI format, of which each text is a message."""
    return msgspec.json.encode({"messages": [{"role": "user", "content": one} for one in texts]})


@given(ids, ids, st.text(max_size=8), st.text(max_size=8))
def test_prompts_are_shared_within_one_tenants_conversations_of_one_beginning(
    one: str, other: str, said: str, asked: str
) -> None:
    scopes = [
        share_scope(Tenant(id=name, name="x"), bytes(32), conversation(first, "and then"))
        for name, first in ((one, said), (other, asked))
    ]
    assert (scopes[0] == scopes[1]) == ((one, said) == (other, asked))
    assert all(len(bytes.fromhex(scope)) == 32 for scope in scopes)
    tenant = Tenant(id=one, name="x")
    assert share_scope(tenant, bytes(32), conversation(said, "another turn")) == scopes[0]
    assert cache_scope(tenant, bytes(32)) != scopes[0]


@pytest.mark.parametrize("request_", [b"{}", b'{"messages":[]}', b'{"messages":1}', b"no JSON"])
def test_what_has_no_messages_shares_nothing(request_: bytes) -> None:
    assert share_scope(ANONYMOUS, bytes(32), request_) == ""


def test_nobody_shares_unless_somebody_says_so() -> None:
    assert ANONYMOUS.cache == "never"


@pytest.mark.parametrize("use", ["never", "asked", "always"])
def test_the_policy_says_whose_calls(use: str) -> None:
    policy = RoutingPolicy.parse(f'[keys.app]\ncache = "{use}"\n[keys.other]\n')
    assert policy.keys["app"].cache == use
    assert policy.keys["other"].cache is None
