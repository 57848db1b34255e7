"""What moving a tag, with limits, over 10,000 running desktops costs, against one bare UPDATE of their rows.

Both sides write the same two columns of the same rows of the same file, and commit. Ours does all the rest,
too: the tag and its history, what is held against images, limits that are void, the audit log, the notice.
Turn and turn about; the tag goes back and forth, so that each move concerns everybody.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

from sqlalchemy import insert

from appliance.clock import SystemClock
from appliance.model import BackendKind, DiId, Limit, StartedBy, VmState
from appliance.ops import images
from appliance.storage.migrate import upgrade
from appliance.storage.schema import vm_runtimes, vms
from appliance.storage.store import Store
from benchmarks.report import result, spread
from scripts.trial import ROOT

VMS = int(os.environ.get("BENCH_VMS", "10000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "15"))
TARGET = 5.0
OLD, NEW, ELSEWHERE = DiId(1), DiId(2), DiId(3)
BARE = """
UPDATE vm_runtimes SET vm_expiration_soft = ?, vm_expiration_hard = ?
WHERE vm_id IN (SELECT id FROM vms WHERE osf_id = 1 AND di_tag = 'default')
"""


def main() -> int:
    """Make a database, measure on it, remove it."""
    with tempfile.TemporaryDirectory(prefix="qvd-bench-") as directory:
        lines = asyncio.run(measure(Path(directory) / "qvd.db"))
    text = "\n".join(lines) + "\n"
    print(text, end="")
    report = ROOT / "bench" / "tag_move.txt"
    report.parent.mkdir(exist_ok=True)
    report.write_text(text)
    return 0


async def measure(file: Path) -> list[str]:
    """Both sides, and their ratio."""
    url = f"sqlite:///{file}"
    upgrade(url)
    store = await Store.open(url, SystemClock())
    try:
        await populate(store)
        bare = sqlite3.connect(file, isolation_level=None)
        bare.execute("PRAGMA synchronous = FULL")
        ours: list[float] = []
        theirs: list[float] = []
        for turn in range(ROUNDS + 1):
            sides: list[tuple[list[float], Callable[..., Awaitable[int]], tuple[object, ...]]]
            sides = [(ours, move, (store, turn)), (theirs, update, (bare,))]
            for taken, side, words in sides if turn % 2 else sides[::-1]:
                begun = time.monotonic()
                touched = await side(*words)
                taken.append(time.monotonic() - begun)
                assert touched == VMS, f"{touched} of {VMS}"
        bare.close()
    finally:
        await store.close()
    ratios = [mine / other for mine, other in zip(ours[1:], theirs[1:], strict=True)]
    return [
        f"A tag move with limits over {VMS} running desktops ({ROUNDS} each):",
        spread("  ours", ours[1:]),
        spread("  one bare UPDATE", theirs[1:]),
        result("tag.move", statistics.median(ratios), TARGET),
    ]


async def move(store: Store, turn: int) -> int:
    """Move the tag between two images that nobody runs, as `qa di tag` does."""
    async with store.write() as tx:
        di = await tx.images.get((NEW, ELSEWHERE)[turn % 2])
        limits = {Limit.SOFT: tx.at, Limit.HARD: tx.at + timedelta(days=7, seconds=turn)}
        return await images.tag(tx, di, "default", by="qa:bench", limits=limits)


async def update(bare: sqlite3.Connection) -> int:
    """The bare UPDATE: nothing else is to be done meanwhile."""
    now = time.time_ns()
    bare.execute("BEGIN IMMEDIATE")
    touched = bare.execute(BARE, (f"2035-01-31 18:00:00.{now % 10**6:06}",) * 2).rowcount
    bare.execute("COMMIT")
    return touched


async def populate(store: Store) -> None:
    """Desktops that run the first of three images of their OSF."""
    async with store.write() as tx:
        host = await tx.hosts.add("bench", "127.0.0.1")
        user = (await tx.users.add("alice", None)).id
        osf = await tx.osfs.add(
            name="office",
            memory_mib=512,
            cpus=None,
            use_overlay=True,
            user_storage_mib=None,
            backend=BackendKind.LXC,
        )
        for di_id in (OLD, NEW, ELSEWHERE):
            assert await tx.images.reserve_id(osf) == di_id
            name = f"v{di_id}"
            await tx.images.add(di_id, osf, version=name, path=f"{name}.tar", sha256="", size_bytes=1)
        await tx.images.point(osf, "default", OLD, by="bench")
        numbers = range(1, VMS + 1)
        owned = {"user_id": user, "osf_id": osf, "di_tag": "default"}
        rows = [{"id": n, "uuid": f"{n:036}", "name": f"d{n}", "subid_slot": n, **owned} for n in numbers]
        running = {
            "host_id": host,
            "vm_state": VmState.RUNNING,
            "vm_phase": "running/monitoring",
            "current_di_id": OLD,
            "vm_address": "10.9.0.9",
            "vm_vma_port": 3030,
            "vm_x_port": 4100,
            "started_by": StartedBy.COMMAND,
            "run": 1,
        }
        await tx.connection.execute(insert(vms), rows)
        await tx.connection.execute(insert(vm_runtimes), [{"vm_id": n, **running} for n in numbers])


if __name__ == "__main__":
    sys.exit(main())
