"""Typed callers of everything that is reached over HTTP, and the transport port under them.

Refuses to retry, route or judge: each call is one attempt, and every failure is an
:class:`~trunkline.base.errors.UpstreamError` with a stable code. The one exception is a request
repeated because a kept connection turned out to be closed before a single byte was answered.
"""
