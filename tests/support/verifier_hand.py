"""Verdicts for tests: signed as a verifier signs them, about whatever a test says."""

from hashlib import sha256

import msgspec

from trunkline.crypto.keys import VerifierKey
from trunkline.crypto.signer import Signer, sign_note
from trunkline.gateway.core.demands import VerifierPolicy
from trunkline.verdicts import (
    Kind,
    Result,
    Standing,
    StandingEvidence,
    Subject,
    Verdict,
    commitment_to,
)

DIGEST = "sha256:" + "0" * 64


class VerifierHand:
    """A verifier's key, and what it signs with it."""

    def __init__(self, name: str, operator: str = "", *, url: str = "http://127.0.0.1:1") -> None:
        self.name = f"{name}.example/verifier"
        self.operator = operator or f"{name}.example"
        self.signer = Signer.generate(self.name, sha256(name.encode()).digest())
        self.url = url

    @property
    def key(self) -> VerifierKey:
        return self.signer.vkey

    @property
    def policy(self) -> VerifierPolicy:
        return VerifierPolicy(vkey=str(self.key), url=self.url, operator=self.operator)

    @property
    def toml(self) -> str:
        """Its table in a routing file."""
        return (
            f'[[verification.verifiers]]\nvkey = "{self.key}"\nurl = "{self.url}"\n'
            f'operator = "{self.operator}"\n'
        )

    def verdict(
        self,
        node: VerifierKey,
        unix_ms: int,
        *,
        standing: Standing = "open",
        result: Result | None = None,
        kind: Kind = "replay",
        receipt: str = "",
        model: str = "tiny",
        configuration: str = "calibrated",
    ) -> Verdict:
        """``receipt``: if left out, one that no other hand speaks of; ``result``: likewise, what
        makes a subject fail, or nothing."""
        if result is None:
            result = "fail" if standing == "failed" else "inconclusive"
        return Verdict(
            alpha="0.001",
            bundle=DIGEST,
            calibration="",
            checks=(),
            evidence=StandingEvidence(detector="0", samples=1, tokens=30, wealth="1"),
            key=str(self.key),
            kind=kind,
            operator=self.operator,
            previous="",
            receipt=receipt or sha256(self.name.encode()).hexdigest(),
            regime="exact",
            result=result,
            salt="00" * 32,
            standing=standing,
            subject=Subject(
                configuration=configuration,
                key=str(node),
                model=model,
                node=node.name,
                numerics="n",
                operator="op",
                weights=DIGEST,
            ),
            unix_ms=unix_ms,
        )

    def sign(self, verdict: Verdict) -> str:
        """The signed note."""
        return sign_note(verdict.text(), self.signer).decode()

    def bind(self, verdict: Verdict) -> str:
        """The commitment to it, signed."""
        bound = commitment_to(verdict, self.sign(verdict).encode())
        return sign_note(bound.text(), self.signer).decode()


def digest_of(verdict: Verdict) -> str:
    """A stand-in for the digest of its note."""
    return sha256(msgspec.json.encode(verdict)).hexdigest()
