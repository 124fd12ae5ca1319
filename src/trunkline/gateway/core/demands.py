"""``[verification]`` of the routing policy: whose verdicts count here, and what they do.

Read with the rest of the file (``core.policy``). Verifiers are pinned by their keys, and grouped by
the operators that the user names here: what a verifier says of itself does not count.
"""

import re
from typing import Final, Literal

import msgspec

from trunkline.base.errors import MalformedError
from trunkline.crypto.keys import ED25519, VerifierKey

VERIFIERS_MAX: Final = 16
URL_CHARS_MAX: Final = 2048
DEADLINE_S_MAX: Final = 600.0
AGREE: Final = 2

When = Literal["before", "after"]
"""Whether an answer is shown before or only after a verdict on it."""
Consequence = Literal["quarantine", "demote", "alert"]
_URL: Final = re.compile(r"https?://[^\s/?#]+[^\s?#]*")


def _url(field: str, url: str) -> None:
    if len(url) > URL_CHARS_MAX or _URL.fullmatch(url) is None:
        raise ValueError(f"{field} must be a URL, http:// or https://, without a query")


class VerifierPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[verification.verifiers]]``: one verifier whose verdicts count."""

    vkey: str
    """Its verifier key: nothing counts that this key did not sign."""
    url: str
    """Where it is asked."""
    operator: str
    """Who runs it. Verifiers of one operator count as one voice."""

    def __post_init__(self) -> None:
        try:
            key = VerifierKey.parse(self.vkey)
        except MalformedError as error:
            raise ValueError(f"vkey: {error.message}") from None
        if key.algorithm != ED25519:
            raise ValueError("vkey is not one that verdicts are signed with")
        _url("url", self.url)
        if not 0 < len(self.operator) <= 255 or not self.operator.isprintable():
            raise ValueError("operator must be a name")

    @property
    def key(self) -> VerifierKey:
        """``vkey``, read."""
        return VerifierKey.parse(self.vkey)


class Verification(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[verification]``: verdicts asked for, and what they do. Absent: nothing is audited for this
    gateway, and no verdict is heard."""

    audit: bool = True
    """Nodes are told that a verifier may open their receipts, and keep the openings for a while.
    Never so of private answers."""
    verifiers: tuple[VerifierPolicy, ...] = ()
    """Whose verdicts count. Two operators or more, or one that lies is believed."""
    agree: int | None = None
    """Operators whose verifiers must find a node failed before it is quarantined. None: 2, or as
    many as there are if those are fewer."""
    on_fail: Consequence = "quarantine"
    """What a failed standing may come to at most: ``quarantine`` (one operator alone only demotes),
    ``demote``, ``alert`` (said, and nothing else)."""
    on_withheld: Consequence = "demote"
    """The same where a node did not open its receipts."""
    on_dispute: Literal["demote", "alert"] = "alert"
    """What verdicts that contradict each other about one answer do to its node."""
    last_resort: bool = False
    """Whether a quarantined node is asked where no other serves the model. If not, the call is
    refused: 503 ``node_quarantined``."""
    webhook: str | None = None
    """URL that each alert is posted to. None: none."""
    before_deadline_s: float = 10.0
    """How long an answer that is verified ``before`` is held for its verdict, seconds."""
    before_inconclusive: Literal["refuse", "release"] = "refuse"
    """What becomes of such an answer where no verdict was had by then."""
    before_agree: int = 1
    """Operators whose verifiers must pass such an answer."""

    def __post_init__(self) -> None:
        if len(self.verifiers) > VERIFIERS_MAX:
            raise ValueError(f"verifiers: at most {VERIFIERS_MAX}")
        keys = [verifier.key for verifier in self.verifiers]
        if len({key.name for key in keys}) != len(keys):
            raise ValueError("verifiers: two have the same key name")
        for field in ("agree", "before_agree"):
            asked = getattr(self, field)
            if asked is not None and not 1 <= asked <= max(len(self.operators), 1):
                raise ValueError(
                    f"{field} must be between 1 and the number of verifiers' operators, "
                    f"{len(self.operators)}"
                )
        if self.webhook is not None:
            _url("webhook", self.webhook)
        if not 0.1 <= self.before_deadline_s <= DEADLINE_S_MAX:
            raise ValueError(f"before_deadline_s must be between 0.1 and {DEADLINE_S_MAX:.0f}")

    @property
    def operators(self) -> frozenset[str]:
        """Who runs the verifiers."""
        return frozenset(verifier.operator for verifier in self.verifiers)

    @property
    def quorum(self) -> int:
        """``agree``, with its default."""
        return min(AGREE, len(self.operators)) if self.agree is None else self.agree
