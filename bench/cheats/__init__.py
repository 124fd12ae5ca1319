"""Parts of ``bench/attacks.py``: cheating engines, what they wrote, and what was made of it."""
