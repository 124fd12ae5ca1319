"""The floor: ids, errors, and the ports for clock and randomness. Imports nothing of ours."""
