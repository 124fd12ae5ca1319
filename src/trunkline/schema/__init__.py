"""Wire types: the formats that clients, gateways and nodes speak, and translation between them.

Each module is one format (``openai_chat``, ``anthropic_messages``, ``sse``, ``attempt``); ``grid``
holds one file per pair of client and provider formats. Nothing here does I/O.
"""
