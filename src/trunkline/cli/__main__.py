"""``python -m trunkline.cli``: the same as ``trunkline``."""

from trunkline.cli.main import main

main()
