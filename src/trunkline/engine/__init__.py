"""The embedded engine: a small model in a child process, exact from one run to the next.

Only ``client.py`` and ``embeddings.py`` are for the rest. Nothing here imports them, so
that the child process loads no more than it runs.
"""
