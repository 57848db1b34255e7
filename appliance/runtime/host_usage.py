"""What this host uses now: processors, memory, load and the pool."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from appliance.threads import in_thread

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
IDLE_FIELDS = slice(3, 5)
"""Of the line `cpu` in /proc/stat: idle, and idle while something waits for a disk."""
ALL_FIELDS = slice(0, 8)
"""Without the time of guests, which the kernel has counted as the host's already (proc(5))."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostUsage:
    """One look at the host; `cpu_s` counts up, the rest is as it was."""

    cpu_s: float
    """Processor time used since the boot, all cores together; what a hypervisor withheld counts as used."""
    cores: int
    memory_bytes: int
    """Memory that is not to be had without hurting somebody."""
    memory_total_bytes: int
    load: float
    """Processes that run or want to, on the average of the last minute."""
    pool_bytes: int | None
    """What is taken of the pool; None: it cannot be told."""
    pool_total_bytes: int | None


def processors(stat: str) -> tuple[float, int]:
    """Processor time used since the boot, in seconds, and the number of cores, by /proc/stat."""
    lines = [line.split() for line in stat.splitlines() if line.startswith("cpu")]
    counted = [int(field) for field in lines[0][1:]]
    busy = sum(counted[ALL_FIELDS]) - sum(counted[IDLE_FIELDS])
    return busy / TICKS_PER_S, len(lines) - 1


def memory(meminfo: str) -> tuple[int, int]:
    """Memory that is taken, and all of it, in bytes, by /proc/meminfo."""
    found = {name: int(kib) * 1024 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB", meminfo, re.M)}
    return found["MemTotal"] - found["MemAvailable"], found["MemTotal"]


def pool_room(pool: Path) -> tuple[int | None, int | None]:
    """What is taken of a pool, and its size, in bytes; Nones if it cannot be told. May wait for a disk."""
    try:
        status = os.statvfs(pool)
    except OSError:
        return None, None
    total = status.f_blocks * status.f_frsize
    return total - status.f_bavail * status.f_frsize, total


async def look(pool: Path) -> HostUsage:
    """What the host with this pool uses now; in a thread, as a pool may keep waiting whoever asks it."""
    return await in_thread(_look, pool)


def _look(pool: Path) -> HostUsage:
    cpu_s, cores = processors(Path("/proc/stat").read_text())
    memory_bytes, memory_total_bytes = memory(Path("/proc/meminfo").read_text())
    taken, size = pool_room(pool)
    return HostUsage(
        cpu_s=cpu_s,
        cores=cores,
        memory_bytes=memory_bytes,
        memory_total_bytes=memory_total_bytes,
        load=os.getloadavg()[0],
        pool_bytes=taken,
        pool_total_bytes=size,
    )
