"""The commands: the only room that wires the others together.

Everything a person starts by hand is here, and nothing that decides about an answer. Modules are
imported when a command needs them, so that help and completion come at once.
"""
