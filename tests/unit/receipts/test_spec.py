"""The specification names every member of a receipt, and nothing has grown unwritten."""

from pathlib import Path
from typing import get_type_hints

import msgspec

from trunkline.receipts import Receipt, ReceiptAttempt, ReceiptCached

SPEC = Path(__file__).parents[3] / "docs" / "spec" / "receipt.md"


def test_every_member_is_specified() -> None:
    table = SPEC.read_text().partition("## Members")[2].partition("## Digests")[0]
    hints = get_type_hints(Receipt)
    for name, hint in hints.items():
        assert f"`{name}" in table, name
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct) and name != "times":
            for field in msgspec.structs.fields(hint):
                assert f".{field.name}`" in table, f"{name}.{field.name}"
    for field in msgspec.structs.fields(ReceiptAttempt):
        assert f"`{field.name}`" in table, f"route[].{field.name}"
    for field in msgspec.structs.fields(ReceiptCached):
        assert f"`cached.{field.name}`" in table, f"cached.{field.name}"
