"""The routing policy: what may serve a model asked for, at what price, within which limits.

One TOML file (``docs/operate/routing.md``), read whole into frozen records or refused whole, naming
the line. Names of models and nodes are not looked up: which of them exist changes by the minute.
Money is decimal text in the file and whole millionths inside.
"""

import re
import tomllib
from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from trunkline.base.errors import ConfigError
from trunkline.base.money import MicroUsd
from trunkline.gateway.core.demands import Verification, When
from trunkline.gateway.core.tenant import BATCH, INTERACTIVE, CacheUse
from trunkline.gateway.core.toml_tables import WrongKeyError, convert
from trunkline.schema.attempt import Mode

POLICY_CHARS_MAX: Final = 1024 * 1024
NAMES_MAX: Final = 256
"""Names in one list, and entries in one section."""
NAME_CHARS_MAX: Final = 256
CANDIDATES_MAX: Final = 64
"""Models that one name may lead to, all virtual ones on the way followed."""
NEST_MAX: Final = 16
COUNT_MAX: Final = 1_000_000_000

Strategy = Literal["order", "weights", "least-latency", "cheapest"]
Names = tuple[str, ...]


def _names(field: str, names: Names) -> None:
    if len(names) > NAMES_MAX:
        raise ValueError(f"{field} names more than {NAMES_MAX}")
    if not all(map(_is_name, names)):
        raise ValueError(f"{field} holds an empty or unprintable name")
    if len(set(names)) != len(names):
        raise ValueError(f"{field} names something twice")


def _is_name(name: str) -> bool:
    return 0 < len(name) <= NAME_CHARS_MAX and name.isprintable()


def _count(field: str, count: int | None) -> None:
    if count is not None and not 0 < count <= COUNT_MAX:
        raise ValueError(f"{field} must be above 0 and at most {COUNT_MAX}")


class ModelPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[models.NAME]``: what may serve the name. With ``use`` it is a virtual model."""

    use: Names = ()
    """What serves it: names that nodes serve, or other virtual models. Empty: the name itself."""
    strategy: Strategy = "order"
    """Among those in ``use``: ``order``, each only if the ones before it fail; ``weights``, by
    share of the answers; ``least-latency``, the least expected wait; ``cheapest``, by price."""
    weights: dict[str, int] = {}
    """For ``weights``: share of each name in ``use``; 1 where it is not listed."""
    substitutes: Names = ()
    """What may stand in, in this order, when nothing of the above can serve."""
    nodes: Names | None = None
    """Only these nodes, by key name. None: all."""
    operators: Names | None = None
    """Only these operators. None: all."""
    nodes_denied: Names = ()
    """Never these nodes, not even as a last resort."""
    operators_denied: Names = ()
    """Never these operators."""
    verify: When | None = None
    """``before``: an answer asked for by this name is held until a verifier has passed it
    (``[verification]``). None: as the call says, and ``after`` if it says nothing."""

    def __post_init__(self) -> None:
        for field in ("use", "substitutes", "nodes", "operators", "nodes_denied"):
            _names(field, getattr(self, field) or ())
        _names("operators_denied", self.operators_denied)
        for field in ("nodes", "operators"):
            if getattr(self, field) == ():
                raise ValueError(f"{field} names none, so nothing could serve; leave it out")
        if self.weights and self.strategy != "weights":
            raise ValueError('weights need strategy = "weights"')
        if self.strategy != "order" and not self.use:
            raise ValueError("strategy needs `use`: the models to choose among")
        for name, weight in self.weights.items():
            if name not in self.use:
                raise ValueError(f"weights names {name}, which is not in `use`")
            _count("weights", weight)


class Access(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[operators]``: whom any call may be sent to."""

    allow: Names | None = None
    """Only these. None: all."""
    deny: Names = ()
    """Never these."""

    def __post_init__(self) -> None:
        _names("allow", self.allow or ())
        _names("deny", self.deny)
        if self.allow == ():
            raise ValueError("allow names none, so nothing could serve; leave it out")


class Price(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[prices.MODEL]``: per million tokens. The same digits are picodollars per token."""

    input: MicroUsd
    """Tokens of the prompt."""
    output: MicroUsd
    """Tokens of the answer."""
    cached_input: MicroUsd | None = None
    """Input that the provider had cached. None: as other input."""


class LimitsPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[limits.NODE]``: what the account behind a node allows, if it does not say so itself."""

    requests_per_minute: int | None = None
    """Attempts that begin in a minute."""
    tokens_per_minute: int | None = None
    """Tokens of prompts and answers together."""
    concurrency: int | None = None
    """Attempts that run at once."""

    def __post_init__(self) -> None:
        for field in self.__struct_fields__:
            _count(field, getattr(self, field))


class Hedging(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[hedging]``: a second attempt beside one that is slow to begin. Absent: none."""

    share: float = 0.02
    """Of the answers, at most this share is hedged."""
    after: str = "p95"
    """Once the first token is later than this quantile of what the deployment normally takes, or
    than so many seconds, as in ``"1.5s"``."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 0.5:
            raise ValueError("share must be above 0 and at most 0.5")
        if re.fullmatch(r"p[1-9][0-9]|[0-9]{1,4}(\.[0-9]{1,3})?s", self.after) is None:
            raise ValueError('after must be a quantile ("p10" to "p99") or seconds ("1.5s")')

    @property
    def quantile(self) -> float:
        """``after`` as a share, 0.1 to 0.99; only where ``after_s`` is None."""
        return int(self.after[1:]) / 100

    @property
    def after_s(self) -> float | None:
        """``after`` in seconds, if that is how it is given."""
        return float(self.after[:-1]) if self.after.endswith("s") else None


class TimeoutPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[timeouts]``: waits that follow what a deployment normally does. They only ever shorten
    those of the gateway's own configuration."""

    adapt: bool = True
    """False: only the waits of ``gateway.toml`` hold."""
    margin: float = 4.0
    """How many times its normal worst a deployment may take before it is left."""
    floor_s: float = 1.0
    """No wait becomes shorter than this, seconds."""

    def __post_init__(self) -> None:
        if not 1 <= self.margin <= 100:
            raise ValueError("margin must be between 1 and 100")
        if not 0.01 <= self.floor_s <= 3600:
            raise ValueError("floor_s must be between 0.01 and 3600")


class KeyPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[keys.NAME]``: what the holder of a virtual key may use."""

    models: Names | None = None
    """Names it may ask for, virtual ones as they are called. None: all."""
    requests_per_minute: int | None = None
    """Of this key, over all models."""
    tokens_per_minute: int | None = None
    """Of prompts and answers together."""
    budget_usd: MicroUsd | None = None
    """What its answers may cost in a period, by ``[prices]``. None: no bound."""
    budget_period: Literal["day", "week", "month", "total"] = "month"
    """What the budget is for. Periods begin at midnight UTC, weeks on Monday."""
    unpriced: Literal["refuse", "allow"] = "refuse"
    """What a budget does with a model that ``[prices]`` does not name. Allowed, it is free."""
    priority: Literal["interactive", "batch"] = "interactive"
    """``batch`` waits for interactive calls (``docs/operate/limits.md``)."""
    weight: int = 1
    """Share of the capacity beside other keys while there is not enough for all."""
    cache: CacheUse | None = None
    """Whether nodes may give its calls an answer again: ``never``, ``asked`` (by the header
    ``trunkline-cache``), ``always``. None: ``asked``, and ``never`` without a key, as all who have
    none would share."""
    mode: Mode | None = None
    """What of its answers is published: ``private``, ``batched`` or ``full``. A call may ask for
    less, never for more. None: ``batched``, and whatever a call asks for."""

    def __post_init__(self) -> None:
        _names("models", self.models or ())
        for field in ("requests_per_minute", "tokens_per_minute", "weight"):
            _count(field, getattr(self, field))

    @property
    def rank(self) -> int:
        """``priority`` as the scheduler counts it."""
        return BATCH if self.priority == "batch" else INTERACTIVE


class RoutingPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file. Without a file: the defaults, which change nothing."""

    models: dict[str, ModelPolicy] = {}
    classes: dict[str, Names] = {}
    """Names that may all stand in for one another, in the order given."""
    operators: Access = Access()
    prices: dict[str, Price] = {}
    limits: dict[str, LimitsPolicy] = {}
    hedging: Hedging | None = None
    timeouts: TimeoutPolicy = TimeoutPolicy()
    keys: dict[str, KeyPolicy] = {}
    verification: Verification | None = None

    @classmethod
    def parse(cls, text: str) -> "RoutingPolicy":
        """Read the file's text. Raises :class:`ConfigError` naming the line, the key, the fix."""
        if len(text) > POLICY_CHARS_MAX:
            raise ConfigError(f"longer than {POLICY_CHARS_MAX} characters; is this the right file?")
        try:
            return _read(tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            last = text.count("\n") + 1
            said = str(error).replace("at end of document", f"at line {last}, the end")
            raise ConfigError(f"not valid TOML: {said}") from None
        except RecursionError:
            raise ConfigError("nested too deeply; is this the right file?") from None
        except WrongKeyError as wrong:
            raise ConfigError(wrong.explain(text)) from None

    def allows(self, key: str, model: str) -> bool:
        """Whether the holder of the virtual key ``key`` may ask for ``model`` by this name."""
        restricted = self.keys.get(key)
        return restricted is None or restricted.models is None or model in restricted.models


_SECTIONS: Final[Mapping[str, type[object]]] = {
    "operators": Access,
    "hedging": Hedging,
    "timeouts": TimeoutPolicy,
    "verification": Verification,
}
_NAMED: Final[Mapping[str, type[object]]] = {
    "models": ModelPolicy,
    "classes": Names,
    "prices": Price,
    "limits": LimitsPolicy,
    "keys": KeyPolicy,
}


def _read(tables: Mapping[str, object]) -> RoutingPolicy:
    # Piece by piece first: only so is the name of a wrong entry known.
    for section, value in tables.items():
        if section in _SECTIONS:
            convert(value, _SECTIONS[section], (section,))
        elif section in _NAMED:
            for name, entry in _entries(value, section).items():
                convert(entry, _NAMED[section], (section, name))
        else:
            known = ", ".join(RoutingPolicy.__struct_fields__)
            raise WrongKeyError((section,), f"no such section; there are: {known}")
    policy = convert(tables, RoutingPolicy, ())
    _check_classes(policy)
    _check_use(policy)
    _check_verify(policy)
    return policy


def _entries(value: object, section: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise WrongKeyError((section,), f"a table is expected: [{section}.NAME]")
    if len(value) > NAMES_MAX:
        raise WrongKeyError((section,), f"at most {NAMES_MAX} entries are allowed")
    for name in value:
        if not _is_name(name):
            raise WrongKeyError((section,), "an entry's name is empty, unprintable or too long")
    return value


def _check_classes(policy: RoutingPolicy) -> None:
    for name, members in policy.classes.items():
        try:
            _names("the class", members)
        except ValueError as error:
            raise WrongKeyError(("classes", name), str(error)) from None
        if len(members) < 2:
            raise WrongKeyError(("classes", name), "a class needs two models or more")


def _check_verify(policy: RoutingPolicy) -> None:
    """Nothing is held for a verdict that nobody could give."""
    given = policy.verification
    for name, model in policy.models.items():
        if model.verify == "before" and (given is None or not given.verifiers):
            what = '"before" needs a verifier: [[verification.verifiers]]'
            raise WrongKeyError(("models", name, "verify"), what)


def _check_use(policy: RoutingPolicy) -> None:
    """No virtual model is served by itself, however long the way round, or by too many."""
    counts: dict[str, int] = {}
    for name, model in policy.models.items():
        if model.strategy != "order":
            for used in model.use:
                if used in policy.models and policy.models[used].use:
                    what = f'{used} is virtual itself: only strategy "order" can use it'
                    raise WrongKeyError(("models", name, "use"), what)
        _count_candidates(policy, name, (), counts)


def _count_candidates(policy: RoutingPolicy, name: str, way: Names, counts: dict[str, int]) -> int:
    """How many models stand behind ``name``. ``way``: the names that led here."""
    if len(way) > NEST_MAX:
        raise WrongKeyError(("models", way[0], "use"), f"nested deeper than {NEST_MAX}")
    if name in way:
        circle = " → ".join((*way[way.index(name) :], name))
        what = f"it leads back to itself ({circle}); name what nodes serve"
        raise WrongKeyError(("models", way[-1], "use"), what)
    model = policy.models.get(name)
    if model is None or not model.use:
        return 1
    if name not in counts:
        way = (*way, name)
        counts[name] = sum(_count_candidates(policy, used, way, counts) for used in model.use)
    if counts[name] > CANDIDATES_MAX:
        what = f"{counts[name]} models stand behind it; at most {CANDIDATES_MAX} may"
        raise WrongKeyError(("models", name, "use"), what)
    return counts[name]
