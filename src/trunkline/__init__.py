"""Trunkline keeps AI calls working when a provider fails, and proves who answered.

The client's API: verify an answer's evidence, offline.

    report = trunkline.verify(evidence, policy=policy, trusted_keys=keys)
    report.outcome  # "pass", "fail" or "inconclusive"

Importing this starts nothing and loads no server, no HTTP and no model.
"""

from trunkline.evidence import EvidenceKey, Report, Step, verify

__version__ = "0.1.0"

__all__ = ["EvidenceKey", "Report", "Step", "__version__", "verify"]
