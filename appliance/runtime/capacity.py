"""What this host has to give, in QVD's units (protocol.md 5.1 step 12): the load balancer weighs by these."""

from __future__ import annotations

import functools
import re
from pathlib import Path

USABLE_SHARE_OF_CPU = 0.8


def usable_cpu(cpuinfo: str) -> float:
    """0.8 of the sum of bogomips in /proc/cpuinfo."""
    return USABLE_SHARE_OF_CPU * sum(
        map(float, re.findall(r"^bogomips\s*:\s*([\d.]+)", cpuinfo, re.M | re.I))
    )


def usable_ram(meminfo: str) -> float:
    """MemTotal of /proc/meminfo, in thousands of kB."""
    total = re.search(r"^MemTotal:\s*(\d+) kB", meminfo, re.M)
    return int(total[1]) / 1000 if total else 0.0


@functools.cache
def measured() -> tuple[float, float]:
    """This host's usable CPU and RAM, as they were when this was first asked."""
    return usable_cpu(Path("/proc/cpuinfo").read_text()), usable_ram(Path("/proc/meminfo").read_text())
