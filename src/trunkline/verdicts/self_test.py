"""Self-tests: an engine's owner says which bits it computes, over a script that everyone knows.

Specified in ``docs/spec/verdict.md``. Node and verifier run the same fixed tokens through the same
weights, and sign the digest of every logit that came out. Where both say the same, honest answers
match to the last bit, and one mismatch is proof: the exact regime. It refuses to conclude that
from names of builds, settings or processors, which are told for people only.
"""

from typing import ClassVar, Literal

from msgspec import UNSET, UnsetType

from trunkline.verdicts.record import Count, Digest, Key, Name, Record, Text

SELF_TEST_TYPE = "trunkline.self-test/v1"


class SelfTest(Record, frozen=True, kw_only=True):
    """What one engine computes. Signed by the node, or the verifier, that runs it."""

    TYPE: ClassVar[str] = SELF_TEST_TYPE
    NOTE_BYTES_MAX: ClassVar[int] = 8 * 1024

    bits: Digest
    """Of the float32 logits after each token of the script, in one prefill and one by one."""
    context_tokens: Count | UnsetType = UNSET
    """That prompt and answer may have together. Absent: it does not say."""
    cpu: Text
    """The processor or accelerator, as it calls itself."""
    engine: Text
    """The engine and its version."""
    key: Key
    model: Name
    numerics: Name
    """Fingerprint of all that is known to decide a logit's bits, as in receipts."""
    type: Literal["trunkline.self-test/v1"] = "trunkline.self-test/v1"
    unix_ms: Count
    weights: Digest

    def same_bits(self, other: "SelfTest") -> bool:
        """Whether the two engines compute the same: then the exact regime holds between them."""
        ours, theirs = ((one.bits, one.numerics, one.weights) for one in (self, other))
        return ours == theirs
