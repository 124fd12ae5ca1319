"""The node: fronts one engine or one provider account, serves attempts, signs a receipt for each.

Specified in ``docs/spec/attempt-protocol.md``. It refuses to route, to retry and to choose another
model: those are the gateway's. What it can not honour it refuses by name.
"""
