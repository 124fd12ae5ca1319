"""``trunkline log upload``: a log's tiles from its folder into a bucket."""

import asyncio
from pathlib import Path

from trunkline.cli.terminal import console
from trunkline.log.upload import upload


def command(config_path: Path) -> None:
    """Copy, and say how much there is."""
    copied = asyncio.run(upload(config_path))
    console().print(f"✓ {copied} tiles and bundles are in the bucket", markup=False)
