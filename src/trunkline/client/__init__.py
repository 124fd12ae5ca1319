"""What an app or a command needs beside its own AI client: its answers' evidence. Light.

It refuses to judge: what it fetches is for :func:`trunkline.verify`.
"""

from trunkline.client.fetch import fetch_evidence

__all__ = ["fetch_evidence"]
