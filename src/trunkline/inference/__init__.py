"""What serving a model and checking it share: a chat request turned into tokens, and tokens back.

The prompt template, the plan of a request, the text of an answer, and the port to an engine. A node
serves with it and a verifier checks with it, so neither can differ from the other in how. Pure: an
engine is behind ``ports``, and nothing here waits for one.
"""
