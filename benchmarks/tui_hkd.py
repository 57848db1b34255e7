"""The part of an HKD that a TUI sees, for benchmarks: commits planned changes, and tells what guests use.

Run as `python -m benchmarks.tui_hkd PLAN`. It says `ready`, begins at a line on its standard input, and ends
with it. At the end it writes when each change was committed beside the plan. Without a `control` in its plan
it only commits.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

from appliance.clock import SystemClock
from appliance.control import ControlServer
from appliance.model import Usage, VmId
from appliance.runtime.host_usage import HostUsage
from appliance.runtime.samples import Samples


async def serve(plan: dict[str, Any], log: Path) -> None:
    """Do what is planned."""
    clock, dice, used = SystemClock(), random.Random(1), 0.0
    database = sqlite3.connect(plan["database"], isolation_level=None)
    database.execute("PRAGMA synchronous = FULL")
    database.execute("PRAGMA busy_timeout = 5000")
    running = [VmId(vm_id) for vm_id in plan["running"]]

    async def sample(vm_id: VmId) -> Usage:
        nonlocal used
        used += dice.random() * 1e-4
        return Usage(cpu_s=used, memory_bytes=2**29 + dice.randrange(2**28), disk_bytes=None)

    async def host() -> HostUsage:
        return HostUsage(
            cpu_s=used,
            cores=16,
            memory_bytes=2**36,
            memory_total_bytes=2**37,
            pool_bytes=2**39,
            pool_total_bytes=2**40,
            load=3.0,
        )

    async with asyncio.TaskGroup() as tasks, contextlib.AsyncExitStack() as stack:
        if plan["control"] is not None:
            samples = Samples(lambda: running, sample, host, clock)
            server = ControlServer(Path(plan["control"]), {"samples": samples.serve}, tasks)
            await stack.enter_async_context(server)
        print("ready", flush=True)
        lines = await _standard_input()
        if await lines.readline():
            committing = tasks.create_task(_commit(database, plan["changes"], log))
            await lines.read()
            committing.cancel()
    database.close()


async def _commit(database: sqlite3.Connection, changes: list[Any], log: Path) -> None:
    begun, done = time.monotonic(), []
    try:
        for at_s, vm_id, values in changes:
            await asyncio.sleep(max(0.0, begun + at_s - time.monotonic()))
            names = ", ".join(f"{name} = ?" for name in values)
            database.execute("BEGIN IMMEDIATE")
            database.execute(f"UPDATE vm_runtimes SET {names} WHERE vm_id = ?", (*values.values(), vm_id))
            database.execute("COMMIT")
            done.append((time.monotonic(), vm_id, values))
    finally:
        log.write_text(json.dumps(done))


async def _standard_input() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    return reader


if __name__ == "__main__":
    file = Path(sys.argv[1])
    asyncio.run(serve(json.loads(file.read_text()), file.with_suffix(".done")))
