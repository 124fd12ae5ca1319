"""What can be wrong with an answer that a gateway gave, seen from the app that asked for it.

VerificationError
└ ReceiptError          carries the numbered steps, as far as they went
  ├ NoReceiptError        receipt_missing    the answer names no receipt, or none can be had
  ├ AnswerChangedError    answer_changed     what came is not what a node signed
  ├ RequestChangedError   request_changed    a node was asked something else
  ├ OtherAnswerError      other_answer       the receipt is of another call
  ├ ReplayedError         answer_replayed    an old answer, with its own old receipt
  ├ FalseEvidenceError    evidence_false     a signature, key, log or proof does not hold
  ├ UnreadError           answer_unread      the app did not read the answer to its end
  ├ NotShownError         not_established    something can not be shown, however long one waits
  └ NotFinalError         not_final          the log's quorum was not there by the deadline
"""

from typing import ClassVar

from trunkline.base.errors import VerificationError
from trunkline.client.judge import Fault, Result

__all__ = [
    "AnswerChangedError",
    "FalseEvidenceError",
    "NoReceiptError",
    "NotFinalError",
    "NotShownError",
    "OtherAnswerError",
    "ReceiptError",
    "ReplayedError",
    "RequestChangedError",
    "UnreadError",
    "VerificationError",
    "error_of",
]


class ReceiptError(VerificationError):
    """The answer is not proven. ``result`` has the steps; None where there was nothing to check."""

    def __init__(self, message: str, result: Result | None = None) -> None:
        super().__init__(message, code=self.code)
        self.result = result


class NoReceiptError(ReceiptError):
    code: ClassVar[str] = "receipt_missing"


class AnswerChangedError(ReceiptError):
    code: ClassVar[str] = "answer_changed"


class RequestChangedError(ReceiptError):
    code: ClassVar[str] = "request_changed"


class OtherAnswerError(ReceiptError):
    code: ClassVar[str] = "other_answer"


class ReplayedError(ReceiptError):
    code: ClassVar[str] = "answer_replayed"


class FalseEvidenceError(ReceiptError):
    code: ClassVar[str] = "evidence_false"


class UnreadError(ReceiptError):
    code: ClassVar[str] = "answer_unread"


class NotShownError(ReceiptError):
    code: ClassVar[str] = "not_established"


class NotFinalError(ReceiptError):
    code: ClassVar[str] = "not_final"


_ERRORS: dict[Fault, type[ReceiptError]] = {
    "answer_changed": AnswerChangedError,
    "request_changed": RequestChangedError,
    "other_answer": OtherAnswerError,
    "answer_replayed": ReplayedError,
    "evidence_false": FalseEvidenceError,
    "answer_unread": UnreadError,
}


def error_of(result: Result, fault: Fault) -> ReceiptError:
    """The error that says what is wrong, naming the first step that shows it."""
    step = next((step for step in result.steps if step.result == "fail"), None)
    detail = "" if step is None else f"step {step.number} ({step.title}): {step.detail}"
    return _ERRORS[fault](detail or fault, result)
