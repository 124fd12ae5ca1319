"""The verifier role: checks answers after they were given, and says what it found.

It follows the log, draws receipts from randomness that nobody could foresee, demands their
openings, scores them, and signs verdicts from which anybody can recompute its numbers. Judging
itself is pure and elsewhere (``audit``); what is signed is ``verdicts``. Specified in
``docs/spec/audit.md``, operated by ``docs/operate/verifiers.md``.
"""
