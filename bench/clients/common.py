"""What the apps share: reading the cases, writing what came out, and the one tool they offer."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

DESCRIPTION = "The weather forecast of a city."
PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "unit": {"type": "string"},
    },
    "required": ["city", "days"],
}

Ask = Callable[[str, str], Awaitable[tuple[str, str]]]
"""From a script and a way to the text and the tool's name."""


def forecast(city: str, days: int, unit: str = "C") -> str:
    """The weather forecast of a city."""
    return f"{city}: {days} days, {unit}"


def main(build: Callable[[str, str], Ask]) -> None:
    """Run every case, one after the other. ``build``: from base URL and model to how to ask."""
    asyncio.run(_main(build))


async def _main(build: Callable[[str, str], Ask]) -> None:
    given = json.load(sys.stdin)
    ask = build(given["base_url"], given["model"])
    for case in given["cases"]:
        found: dict[str, Any] = {**case, "text": "", "tool": "", "error": None}
        try:
            found["text"], found["tool"] = await ask(case["script"], case["way"])
        except Exception as error:  # noqa: BLE001 - what the app would have crashed with
            found["error"] = f"{type(error).__name__}: {error}"[:300]
        print(json.dumps(found), flush=True)
