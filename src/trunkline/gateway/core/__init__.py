"""The gateway's decisions: no I/O, no clock. Time and randomness are handed in by the shell."""
