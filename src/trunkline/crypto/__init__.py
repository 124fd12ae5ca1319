"""Digests, keys, signed notes and Merkle trees: bytes in, bytes or a named failure out.

Verifying is open to every room above. Signing lives apart, in :mod:`trunkline.crypto.signer`, which
only rooms that hold keys may import.
"""
