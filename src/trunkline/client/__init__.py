"""What an app or a command needs beside its own AI client: its answers' evidence. Light.

Apps use it through :mod:`trunkline.verified`. Importing this loads nothing.
"""
