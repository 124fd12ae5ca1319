"""Asks verifiers about an answer that is not shown yet, and brings them what they need for it.

Every verifier of the policy is asked at once. What opens the receipt comes from this gateway, which
has it in memory: the node is not asked, so it can not know which answers are held. A verdict that
comes of it counts as every other one (``verification``). Without one in time it is
``inconclusive``, whatever the reason, and nothing is waited for beyond that.
"""

import asyncio
from typing import Final

import msgspec

from trunkline.base.errors import Error, MalformedError, RequestError, VerificationError
from trunkline.crypto.encoding import encode_base64
from trunkline.gateway.core.actions import Before, Judge, Judgement
from trunkline.gateway.core.demands import Verification, VerifierPolicy, When
from trunkline.gateway.verification import Verdicts, VerifierCalls
from trunkline.receipts import receipt_leaf, salts
from trunkline.runtime.logger import Logger
from trunkline.schema.attempt import Mode
from trunkline.schema.audit import AskedAudit, OpenedContent
from trunkline.verdicts import Result

JUDGED_AT_ONCE: Final = 32
"""Answers that verifiers are asked about at a time; others wait, within their own deadline."""


def before(
    verification: Verification | None,
    demanded: When | None,
    wish: When | None,
    *,
    mode: Mode,
) -> Before | None:
    """Whether an answer is held for a verdict, and how long. ``demanded``: by the routing policy
    for the model asked for; ``wish``: by the call. Raises :class:`RequestError` for what can not
    be had: to show it unverified would not be what was asked."""
    if demanded == "before" and wish == "after":
        raise RequestError(
            "trunkline-verify: the routing policy has this model's answers verified before",
            code="verify_not_allowed",
            param="trunkline-verify",
            status=403,
        )
    if "before" not in (demanded, wish):
        return None
    problem = ""
    if verification is None or not verification.verifiers:
        problem = "the routing policy names no verifiers"
    elif mode == "private":
        problem = "a private answer is shown to no verifier"
    elif not verification.audit:
        problem = "the routing policy lets no answer be audited"
    if problem or verification is None:
        raise RequestError(
            f"the answer can not be verified before it is shown: {problem}",
            code="verification_unavailable",
            param="trunkline-verify",
            status=422,
        )
    return Before(
        deadline_s=verification.before_deadline_s,
        agree=verification.before_agree,
        release=verification.before_inconclusive == "release",
    )


class VerifierJudge:
    """The verifiers of the routing policy, as a judge of answers."""

    def __init__(self, verdicts: Verdicts, *, logger: Logger) -> None:
        self._verdicts = verdicts
        self._logger = logger
        self._gate = asyncio.Semaphore(JUDGED_AT_ONCE)

    async def judge(
        self, wanted: Judge, request: msgspec.Raw, blinding: str, *, timeout_s: float
    ) -> Judgement:
        """See ``relay.Verifying``."""
        content = OpenedContent(
            request=request,
            salts=salts(wanted.part.verified.receipt, bytes.fromhex(blinding)) if blinding else {},
            tokens=wanted.tokens,
            vectors=tuple(map(encode_base64, wanted.vectors)),
        )
        asked = AskedAudit(
            signed=wanted.part.signed,
            content=content,
            deadline_ms=max(int(timeout_s * 1000), 1),
        )
        try:
            async with asyncio.timeout(max(timeout_s, 0.0)), self._gate:
                return await self._ask_all(asked, wanted.before, timeout_s)
        except TimeoutError:
            return "inconclusive"

    async def _ask_all(self, asked: AskedAudit, wanted: Before, timeout_s: float) -> Judgement:
        tasks = {
            asyncio.create_task(self._ask(policy, calls, asked, timeout_s)): policy
            for policy, calls in self._verdicts.asked()
        }
        passed: set[str] = set()
        waiting = set(tasks)
        try:
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                results = [(tasks[task].operator, task.result()) for task in done]
                if any(result == "fail" for _, result in results):
                    return "fail"
                passed |= {operator for operator, result in results if result == "pass"}
                if len(passed) >= wanted.agree:
                    return "pass"
            return "inconclusive"
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(
        self, policy: VerifierPolicy, calls: VerifierCalls, asked: AskedAudit, timeout_s: float
    ) -> Result:
        """One verifier's result. What it only says and does not sign is no verdict."""
        try:
            found = await calls.audit(asked, timeout_s)
            if not found.note:
                self._logger.info(
                    "verdict.missing", verifier=policy.key.name, reason=found.reason[:64]
                )
                return "inconclusive"
            verdict = await self._verdicts.told(policy, found.note)
            if verdict.receipt != receipt_leaf(asked.signed.receipt.encode()).hex():
                raise VerificationError("a verdict on another receipt", code="foreign_verdict")
        except (MalformedError, VerificationError) as error:
            self._logger.warning(
                "verdict.refused", verifier=policy.key.name, error=error.error_code
            )
            return "inconclusive"
        except Error as error:
            self._logger.warning(
                "verdict.missing", verifier=policy.key.name, error=error.error_code
            )
            return "inconclusive"
        return verdict.result
