"""Translation between formats: one file per pair, ``<client format>_<provider format>.py``.

The listing is the support matrix; ``docs/support-matrix.md`` spells it out. A new provider is a new
file, never a branch in an old one. Translators are pure: bytes in, bytes out, no clock, no ids of
their own making.
"""
