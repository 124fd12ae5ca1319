"""Receipts: a node's signed statement about one attempt. Pure: no I/O, no clock, no keys.

Specified in ``docs/spec/receipt.md``.
"""
