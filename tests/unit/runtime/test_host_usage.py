"""What the host uses, read from the kernel's own words."""

from __future__ import annotations

from pathlib import Path

from appliance.runtime import host_usage

STAT = """\
cpu  1000 200 300 9000 400 0 50 25 700 10
cpu0 500 100 150 4500 200 0 25 13 350 5
cpu1 500 100 150 4500 200 0 25 12 350 5
intr 1 2 3
"""
MEMINFO = """\
MemTotal:        4030212 kB
MemFree:          200000 kB
MemAvailable:    3000000 kB
HugePages_Total:       0
"""


def test_waiting_for_a_disk_is_idle_and_guests_count_once() -> None:
    assert host_usage.processors(STAT) == ((1000 + 200 + 300 + 50 + 25) / host_usage.TICKS_PER_S, 2)


def test_memory_that_can_be_had_is_not_taken() -> None:
    assert host_usage.memory(MEMINFO) == ((4030212 - 3000000) * 1024, 4030212 * 1024)


def test_a_pool_that_is_not_there_has_no_figures(tmp_path: Path) -> None:
    assert host_usage.pool_room(tmp_path / "none") == (None, None)


async def test_this_host_has_believable_figures(tmp_path: Path) -> None:
    use = await host_usage.look(tmp_path)
    assert use.cpu_s > 0
    assert use.cores >= 1
    assert 0 < use.memory_bytes < use.memory_total_bytes
    assert use.pool_bytes is not None
    assert use.pool_total_bytes is not None
    assert 0 <= use.pool_bytes <= use.pool_total_bytes
