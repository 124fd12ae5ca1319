"""The gateway: the front door beside the app, which never lets it notice a dying node.

Takes OpenAI and Anthropic calls, routes them to nodes, relays their answers as they come, takes a
stream over on another node when one dies, and keeps the evidence. Decisions are in ``core`` and do
no I/O. It holds no key, signs nothing, and never changes a model or a parameter unasked.
"""
