"""By which rules answers are made, as a number: what nodes state and verifiers compare.

The same request leads to the same prompt, plan and events only by the same rules: those of
``messages`` and ``template``, ``plan``, ``textpipe``, ``toolcalls`` and ``answer``, and of
``schema.openai_embeddings``. A verifier holds against a node only what follows from its own rules
if the node had stated them too, so that no node of another version fails for it.
"""

from typing import Final

RULES: Final = 1
"""To be raised with every change by which an honest answer to some request has another prompt,
other sampling parameters, another end or other events. ``tests/unit/inference/test_rules.py``
notices most."""
