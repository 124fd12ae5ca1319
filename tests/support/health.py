"""Attempts as health sees them, under a clock that a test moves."""

from hashlib import sha256

from trunkline.crypto.signer import Signer
from trunkline.gateway.core.actions import Failure
from trunkline.gateway.core.normal import Timings
from trunkline.gateway.core.route import Deployment
from trunkline.gateway.health import Health

TIMES = Timings(accept_s=0.01, read_s=0.1, first_token_s=0.11, gap_s=0.02)
NOTHING = Timings()
CUT = Failure(code="upstream_truncated", message="cut")
REFUSED = Failure(code="upstream_refused", message="no", refused=True)
AUTH = Failure(code="upstream_auth", message="HTTP 401")
MISSING = Failure(code="upstream_model_missing", message="HTTP 404")
BUSY = Failure(code="upstream_rate_limited", message="HTTP 429", faultless=True)
STALLED = Failure(code="upstream_stalled", message="silent")

KEY = Signer.generate("node", sha256(b"node").digest()).vkey


class ManualClock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def unix_ms(self) -> int:
        return 1_700_000_000_000 + int(self.now_s * 1000)

    def monotonic_s(self) -> float:
        return self.now_s


def deployment(node: str = "a", model: str = "m", load: int = 0) -> Deployment:
    return Deployment(
        node=node, operator="o", url="http://h", key=KEY, model=model, kind="chat", load=load
    )


def attempt(
    health: Health, where: Deployment, failure: Failure | None = None, timings: Timings = TIMES
) -> None:
    health.started(where)
    health.ended(where, failure, timings if failure is None else NOTHING)
