"""The transparency log: a C2SP tile log in a local folder, sequenced by one process.

``core`` decides (what a round writes, what is published, what is admitted); the files beside it
keep tiles, the lock database and the conversation with witnesses.
"""
