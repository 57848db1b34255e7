"""An import that kills itself on its way: `python -m tests.support.mortal_import CONFIG FILE OSF SHARE`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from appliance import config
from appliance.clock import SystemClock
from appliance.ops import image_add, osfs
from appliance.storage.store import Store


async def add(node: Path, source: Path, osf: str, share: float) -> None:
    """Import a file into an OSF, and die by SIGKILL once so much of it has been read."""

    def report(step: str, done: float) -> None:
        if done >= share:
            os.kill(os.getpid(), signal.SIGKILL)

    settings = config.read_file(node)
    store = await Store.open(settings[config.DATABASE_URL], SystemClock())
    async with store.read() as tx:
        wanted = await osfs.named(tx, osf)
    await image_add.add(store, settings, wanted, source, version=None, by="test", report=report)


if __name__ == "__main__":
    node, source, osf, share = sys.argv[1:]
    asyncio.run(add(Path(node), Path(source), osf, float(share)))
