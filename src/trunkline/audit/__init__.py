"""From an opened receipt and its scores to a verdict's numbers. Pure: no I/O, no clock, no keys.

An answer is checked in three ways, in modules of their own: is what was opened what was signed
(``content``), does the account add up (``accounting``), and would the model with this seed have
said it (``replay`` asks a scorer; ``trials``, ``calibration`` and ``standing`` say what scores
mean). ``judge`` puts them together, ``bundle`` publishes the numbers without the content, and
``recompute`` is how anyone comes to the same ones. docs/adr/0024-replay-scores.md says why so.

It refuses to draw, to ask nodes, and to sign: that is the verifier's.
"""
