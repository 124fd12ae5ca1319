"""What the exit codes mean, the same for every command."""

from typing import Final

DONE: Final = 0
"""What was asked for happened, or was confirmed."""
NO: Final = 1
"""The answer is no: it does not verify, differs, is not healthy, was not completed."""
UNABLE: Final = 2
"""It could not be done or checked: wrong usage or configuration, nothing running, no proof yet."""
INTERRUPTED: Final = 130
"""Ended by Ctrl-C before it was done."""
