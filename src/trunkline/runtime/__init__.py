"""Hosting for service rooms: HTTP server, configuration, diagnostics, durable stores, real clock.

Refuses to decide anything: what a request means, what is stored and what is retried is the rooms'.
"""
