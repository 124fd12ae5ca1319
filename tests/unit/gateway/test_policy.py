"""The routing policy's file: what is read, and how what is wrong is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.verifier_hand import VerifierHand

from trunkline.base.errors import ConfigError
from trunkline.base.money import MicroUsd
from trunkline.gateway.core.policy import Hedging, LimitsPolicy, RoutingPolicy
from trunkline.gateway.core.tenant import BATCH, INTERACTIVE
from trunkline.gateway.core.toml_tables import line_of

WHOLE = """
[models.fast]                       # a virtual model
use = [
  "small",                          # at home
  "gpt-5-mini",
]
strategy = "weights"
weights = { small = 3 }
[models."gpt-5"]
substitutes = ["claude-5"]
nodes = ["beta.localhost/node"]
[classes]
open = ["llama", "qwen"]
[operators]
deny = ["evil.example"]
[prices."gpt-5"]
input = "1.25"
cached_input = "0.125"
output = "10"
[limits."beta.localhost/node"]
requests_per_minute = 500
[hedging]
share = 0.05
after = "p90"
[timeouts]
margin = 3
[keys.phone]
models = ["fast"]
budget_usd = "10"
priority = "batch"
"""


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as raised:
        RoutingPolicy.parse(text)
    return raised.value.message


def test_every_section_is_read() -> None:
    policy = RoutingPolicy.parse(WHOLE)
    assert policy.models["fast"].use == ("small", "gpt-5-mini")
    assert policy.models["fast"].weights == {"small": 3}
    assert policy.models["gpt-5"].nodes == ("beta.localhost/node",)
    assert policy.classes == {"open": ("llama", "qwen")}
    assert policy.operators.deny == ("evil.example",)
    assert policy.prices["gpt-5"].cached_input == MicroUsd(125_000)
    assert policy.prices["gpt-5"].output == MicroUsd(10_000_000)
    assert policy.limits["beta.localhost/node"] == LimitsPolicy(requests_per_minute=500)
    assert policy.hedging == Hedging(share=0.05, after="p90")
    assert policy.hedging is not None
    assert policy.hedging.quantile == 0.9
    assert policy.hedging.after_s is None
    assert Hedging(after="1.5s").after_s == 1.5
    assert policy.timeouts.margin == 3.0
    assert policy.keys["phone"].budget_usd == MicroUsd(10_000_000)
    assert policy.keys["phone"].rank == BATCH


def test_an_empty_file_changes_nothing() -> None:
    assert RoutingPolicy.parse("# nothing yet\n") == RoutingPolicy()
    assert RoutingPolicy().hedging is None


def test_a_key_may_ask_for_what_it_is_given_and_others_for_anything() -> None:
    policy = RoutingPolicy.parse(WHOLE)
    assert policy.allows("phone", "fast")
    assert not policy.allows("phone", "gpt-5-mini")
    assert policy.allows("laptop", "gpt-5-mini")
    assert RoutingPolicy.parse("[keys.k]\nweight = 2").keys["k"].rank == INTERACTIVE


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\ny = [", "line 2"),
        (
            '# a comment\n[models.fast]\nuse = ["a"]\nstrategi = "order"',
            "line 4: models.fast.strat",
        ),
        ('[models.fast]\n\nstrategy = "best"\nuse = ["a"]', "line 3: models.fast.strategy: one of"),
        ('[models.fast]\nuse = [\n"a",\n3]', "line 2: models.fast.use: expected `str`"),
        ('[models.fast]\nuse = ["a", "a"]', "line 2: models.fast.use: use names something twice"),
        ('[models.fast]\nuse = [""]', "empty or unprintable"),
        ("[models.x]\nnodes = []", "nodes names none"),
        ('[models.x]\nstrategy = "cheapest"', "line 2: models.x.strategy: strategy needs `use`"),
        ('[models.x]\nuse = ["a"]\nweights = { a = 1 }', "line 3: models.x.weights"),
        (
            '[models.x]\nuse = ["a"]\nstrategy = "weights"\nweights = { a = 0 }',
            "line 4: models.x.weights: weights must be above 0",
        ),
        (
            '[models.x]\nuse = ["a"]\nstrategy = "weights"\n[models.x.weights]\nb = 1',
            "line 4: models.x.weights: weights names b",
        ),
        ('[prices."gpt.5"]\ninput = "1"\noutput = 2.5', "line 3: prices.gpt.5.output: write the"),
        ('[prices.a]\ninput = "1"', "line 1: prices.a.output: this key is missing"),
        ('[prices.a]\ninput = "1"\noutput = "-2"', "line 3: prices.a.output: an amount"),
        ("[limits.n]\nconcurrency = 0", "line 2: limits.n.concurrency"),
        ("[hedging]\nshare = 2.0", "line 2: hedging.share"),
        ('[hedging]\nafter = "p5"', "line 2: hedging.after"),
        ('[hedging]\nafter = "1.5"', "line 2: hedging.after"),
        ("[timeouts]\nmargin = 0.5", "line 2: timeouts.margin"),
        ("[timeouts]\nfloor_s = nan", "line 2: timeouts.floor_s"),
        ('[keys.k]\npriority = "high"', "line 2: keys.k.priority: one of these is expected"),
        ('[classes]\na = ["x"]', "line 2: classes.a: a class needs two"),
        ('[classes]\na = ["x", "x"]', "line 2: classes.a: the class names something twice"),
        ("models = 3", "line 1: models: a table is expected"),
        ('[models.""]\nuse = ["a"]', "an entry's name is empty"),
        ("[[models]]\nuse = []", "line 1: models: a table is expected"),
    ],
)
def test_what_is_wrong_is_refused_with_its_line_and_key(text: str, said: str) -> None:
    assert said in refusal(text)


def test_a_section_that_nothing_acts_on_is_refused_and_not_ignored() -> None:
    assert refusal("\n[weather]\nsun = 2").startswith("line 2: weather: no such section")


ONE, TWO = VerifierHand("one"), VerifierHand("two")


def test_verification_is_read() -> None:
    text = f"""
[models.payments]
use = ["tiny"]
verify = "before"
[verification]
on_withheld = "quarantine"
webhook = "https://hooks.example/alerts"
before_inconclusive = "release"
{ONE.toml}{TWO.toml}"""
    policy = RoutingPolicy.parse(text)
    assert policy.models["payments"].verify == "before"
    found = policy.verification
    assert found is not None
    assert (found.audit, found.on_fail, found.on_withheld) == (True, "quarantine", "quarantine")
    assert found.verifiers == (ONE.policy, TWO.policy)
    assert found.verifiers[0].key == ONE.key
    assert found.quorum == 2
    assert RoutingPolicy.parse("[verification]\n" + ONE.toml).verification is not None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("quorum = 2", "line 2: verification.quorum: no such key"),
        ("agree = 2", "line 2: verification.agree: agree must be between 1 and"),
        ("before_agree = 0", "line 2: verification.before_agree: before_agree must be"),
        ("before_deadline_s = 0", "line 2: verification.before_deadline_s: before_deadline_s must"),
        (
            'on_fail = "ignore"',
            "line 2: verification.on_fail: one of these is expected: quarantine",
        ),
        ('webhook = "ftp://x"', "line 2: verification.webhook: webhook must be a URL"),
        (
            ONE.toml + ONE.toml,
            "line 2: verification.verifiers: verifiers: two have the same key name",
        ),
        (ONE.toml.replace("+A", "+B"), "line 2: verification.verifiers: vkey"),
        (ONE.toml.replace("http:", "file:"), "line 2: verification.verifiers: url must be a URL"),
    ],
)
def test_what_is_wrong_with_verification_is_named(text: str, said: str) -> None:
    assert refusal("[verification]\n" + text).startswith(said)


def test_nothing_is_held_for_a_verdict_that_nobody_could_give() -> None:
    text = '[models.tiny]\nverify = "before"\n'
    assert refusal(text).startswith('line 2: models.tiny.verify: "before" needs a verifier')
    assert refusal(text + "[verification]\naudit = true").startswith("line 2: models.tiny.verify")


def test_a_virtual_model_never_leads_back_to_itself() -> None:
    text = '[models.a]\nuse = ["b"]\n[models.b]\nuse = ["x", "c"]\n[models.c]\nuse = ["a"]'
    assert "line 6: models.c.use: it leads back to itself (a → b → c → a)" in refusal(text)
    assert "line 2: models.a.use" in refusal('[models.a]\nuse = ["a"]')


def test_only_in_order_can_virtual_models_be_nested() -> None:
    nested = '[models.inner]\nuse = ["a"]\n[models.outer]\nuse = ["inner"]\n'
    assert RoutingPolicy.parse(nested).models["outer"].use == ("inner",)
    assert "line 4: models.outer.use: inner is virtual" in refusal(nested + 'strategy = "cheapest"')


def test_no_key_of_the_file_is_quoted_without_bound() -> None:
    assert len(refusal("[models." + "a" * 100_000 + "]")) < 500
    assert len(refusal("[hedging]\n" + "a" * 100_000 + " = 1")) < 500
    assert "longer than" in refusal("#" * (1024 * 1024 + 1))


def test_a_text_nested_without_end_is_refused() -> None:
    assert "nested too deeply" in refusal("x = " + "[" * 100_000)


@given(st.text(max_size=200))
def test_any_text_is_a_policy_or_refused(text: str) -> None:
    try:
        RoutingPolicy.parse(text)
    except ConfigError as error:
        assert error.message


_WORDS = st.sampled_from(
    ["[models.a]", "[models.b]", 'use = ["b"]', 'use = ["c"]', "[keys.k]", "weight = 0", "# x", ""]
)


@given(st.lists(_WORDS, max_size=8))
def test_lines_that_look_right_give_a_policy_or_are_refused(lines: list[str]) -> None:
    try:
        RoutingPolicy.parse("\n".join(lines))
    except ConfigError as error:
        assert "line" in error.message


def test_the_line_is_that_of_the_statement_or_of_its_table() -> None:
    text = '[a."b.c"]\nx = """\n[d]\n"""\n\n[d] # [e]\ny = { z = 1 }\n'
    assert line_of(text, ("a", "b.c", "x")) == 2
    assert line_of(text, ("a", "b.c", "missing")) == 1
    assert line_of(text, ("d", "y", "z")) == 7
    assert line_of(text, ("d",)) == 6
    assert line_of(text, ("elsewhere",)) is None
    assert line_of(text.replace("\n", "\r\n"), ("d", "y", "z")) == 7
