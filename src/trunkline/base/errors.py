"""Every failure that Trunkline names, in one tree, split by who must act.

    Error
    ├ ConfigError         the operator edits a file
    ├ RequestError        the caller changes the request (4xx)
    ├ UpstreamError       one attempt failed
    │ ├ ConnectError        no connection could be made
    │ ├ TimedOutError       a deadline inside the attempt passed
    │ ├ RateLimitedError    the upstream said "later"
    │ ├ BadResponseError    the upstream answered something unusable
    │ └ TruncatedError      the answer stopped half-way
    ├ NoRouteError        every attempt failed, or none was possible; carries them
    ├ MalformedError      bytes from outside did not parse
    ├ VerificationError   parsed, but not proven
    │ ├ SignatureError
    │ ├ DigestError
    │ ├ InclusionError
    │ ├ ConsistencyError
    │ └ QuorumError
    ├ ConflictError       a compare-and-swap was lost
    ├ OverloadedError     a bounded queue is full
    ├ BudgetError         the caller's budget does not cover the call
    └ CorruptStateError   our own disk disagrees with itself: stop the process

``code`` is stable: it is the ``code`` of the HTTP body and the ``error.type`` of metrics. Messages
are for people and may change. No message contains a prompt, an answer or a key.
"""

from typing import ClassVar


class Error(Exception):
    """Root of the tree. ``code`` is stable, ``status`` is the HTTP status a front door answers."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    outward: ClassVar[str] = ""
    """What callers are told where the message is for the operator: it names places of this
    machine. Empty: the message."""

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self._code = code

    @property
    def error_code(self) -> str:
        """The class's code, or the more precise one given when it was raised."""
        return self._code or self.code

    @property
    def told(self) -> str:
        """The message as whoever called is told it."""
        return self.outward or self.message


class ConfigError(Error):
    """A configuration file or flag is wrong; the message names the file, the key and the fix."""

    code = "config_invalid"
    outward = "this process is not configured for that"


class RequestError(Error):
    """The caller's request can not be served as it is. ``param`` names the parameter at fault."""

    code = "invalid_request"
    status = 400

    def __init__(
        self, message: str, *, code: str | None = None, param: str | None = None, status: int = 400
    ) -> None:
        super().__init__(message, code=code)
        self.param = param
        self.http_status = status


class UpstreamError(Error):
    """One attempt at one deployment failed. ``retryable``: another deployment may succeed."""

    code = "upstream_error"
    status = 502

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        retryable: bool = True,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, code=code)
        self.retryable = retryable
        self.retry_after_s = retry_after_s


class ConnectError(UpstreamError):
    code = "upstream_unreachable"


class TimedOutError(UpstreamError):
    code = "upstream_timeout"
    status = 504


class RateLimitedError(UpstreamError):
    code = "upstream_rate_limited"
    status = 429


class BadResponseError(UpstreamError):
    code = "upstream_bad_response"


class TruncatedError(UpstreamError):
    code = "upstream_truncated"


class NoRouteError(Error):
    """No deployment answered. ``attempts`` are the failures, in order."""

    code = "no_route"
    status = 503

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        attempts: tuple[UpstreamError, ...] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, code=code)
        self.attempts = attempts
        self.retry_after_s = retry_after_s


class MalformedError(Error):
    """Bytes from outside did not parse."""

    code = "malformed"
    status = 400


class VerificationError(Error):
    """Something parsed, and was not what it claims to be."""

    code = "not_verified"


class SignatureError(VerificationError):
    code = "bad_signature"


class DigestError(VerificationError):
    code = "digest_mismatch"


class InclusionError(VerificationError):
    code = "not_included"


class ConsistencyError(VerificationError):
    code = "not_consistent"


class QuorumError(VerificationError):
    code = "no_quorum"


class ConflictError(Error):
    """A compare-and-swap was lost: somebody else moved the state first."""

    code = "conflict"
    status = 409


class OverloadedError(Error):
    """A bounded queue is full. ``retry_after_s`` is an honest estimate."""

    code = "overloaded"
    status = 503

    def __init__(
        self, message: str, *, code: str | None = None, retry_after_s: float = 1.0
    ) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s


class StoppingError(OverloadedError):
    """This process is stopping: whoever asks again a little later finds another, or the next."""

    code = "shutting_down"

    def __init__(self, message: str = "the gateway is stopping") -> None:
        super().__init__(message)


class BudgetError(Error):
    """The caller's budget does not cover the call. ``retry_after_s``: until it may; None: never."""

    code = "budget_exhausted"
    status = 429

    def __init__(
        self, message: str, *, code: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s


class CorruptStateError(Error):
    """Our own disk disagrees with itself. The process stops rather than make it worse."""

    code = "corrupt_state"
    outward = "this process found its own files damaged"


def require(condition: bool, what: str) -> None:
    """An invariant of money, the log or a stream, which ``python -O`` cannot remove.

    Raises :class:`CorruptStateError`: a broken invariant is a bug, and going on would hide it.
    """
    if not condition:
        raise CorruptStateError(f"invariant broken: {what}")
