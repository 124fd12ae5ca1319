"""The C2SP texts of a transparency log, without any I/O.

Checkpoints, cosignatures, tiles, proofs, trust policies and the witness's request: read, written
and checked as values. Fetching and serving them is the business of ``remote``, ``log`` and
``witness``.
"""
