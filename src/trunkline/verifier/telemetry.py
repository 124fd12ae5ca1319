"""What a verifier counts. Listed in ``docs/operate/telemetry.md``."""

from trunkline.runtime.metrics import Metrics


class VerifierGauges:
    """What is so now."""

    def __init__(self, metrics: Metrics) -> None:
        self.followed = metrics.gauge(
            "trunkline.verifier.log.followed", "{entry}", "Entries of the log read and verified"
        )
        self.waiting = metrics.gauge(
            "trunkline.verifier.audits.waiting", "{audit}", "Audits drawn that have no verdict yet"
        )
        self.verdicts = metrics.gauge(
            "trunkline.verifier.verdicts", "{verdict}", "Verdicts that are public", "result"
        )
        self.unlogged = metrics.gauge(
            "trunkline.verifier.statements.waiting", "{statement}", "Not with the log yet"
        )
        self.left_out = metrics.gauge(
            "trunkline.verifier.receipts.left_out",
            "{receipt}",
            "Drawn, and no place in the queue, since this process started",
        )
        self.cpu = metrics.gauge(
            "trunkline.verifier.engine.cpu", "s", "CPU time of the engines, since this start"
        )
        self.tokens = metrics.gauge(
            "trunkline.verifier.tokens.scored",
            "{token}",
            "Tokens that engines were given to check, since this start",
            "part",
        )
