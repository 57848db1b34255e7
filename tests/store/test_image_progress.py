"""How far an import is, others read in the row of its operation."""

from __future__ import annotations

import asyncio
from pathlib import Path

from appliance.clock import ManualClock
from appliance.ops.image_progress import WRITE_S, recorded
from appliance.storage.operations import Kind
from tests.support.store import NOW, fresh_store


async def test_the_row_follows_the_report(tmp_path: Path) -> None:
    timers, told = ManualClock(NOW), list[tuple[str, float]]()
    async with fresh_store(tmp_path) as store:
        async with store.write() as tx:
            work = await tx.operations.begin(Kind.DI_ADD, 1, owner="test", pid=1)

        async def reaches(progress: float) -> None:
            async with asyncio.timeout(20):
                while True:
                    await timers.advance(WRITE_S)
                    async with store.read() as tx:
                        (row,) = await tx.operations.find()
                    if row.progress == progress:
                        return

        async with recorded(store, work, lambda *what: told.append(what), timers) as report:
            for step, share, progress in (
                ("copying", 0.5, 0.25),
                ("copying", 1.0, 0.5),
                ("unpacking", 0.5, 0.75),
            ):
                report(step, share)
                await reaches(progress)
            report("copying", 0.1)
            report("unpacking", 0.9)
            await reaches(0.95)
    assert told == [
        ("copying", 0.5),
        ("copying", 1.0),
        ("unpacking", 0.5),
        ("copying", 0.1),
        ("unpacking", 0.9),
    ]
