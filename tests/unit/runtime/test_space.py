"""When the room that is left is worth an alarm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from appliance.runtime.space import Disk, Room, backing_file, complaint, measure
from appliance.values import Portion

GIB = 1 << 30
LEAST = Portion(0.10, 0)
ROOM = Room(path=Path("/pool"), size=100 * GIB, free=50 * GIB, writable=True)


def disk(*, free: int, owed: int) -> Disk:
    return Disk(path=Path("/var/pool.btrfs"), free=free, owed=owed)


def test_enough_room_is_not_spoken_of() -> None:
    assert complaint(ROOM, LEAST, raised=False) is None


def test_a_pool_below_its_threshold_is_told_with_numbers() -> None:
    low = replace(ROOM, free=9 * GIB)
    assert complaint(low, LEAST, raised=False) == (
        "the pool at /pool is nearly full: 9216 of 102400 MiB are free"
    )


def test_what_guests_cannot_have_is_not_free_for_them() -> None:
    room = replace(ROOM, free=14 * GIB)
    said = complaint(room, LEAST, reserve=5 * GIB, raised=False)
    assert said is not None
    assert said.endswith("14336 of 102400 MiB are free, 5120 of them for the host alone")


def test_an_alarm_ends_a_little_above_where_it_begins() -> None:
    between = replace(ROOM, free=10 * GIB + GIB // 2)
    assert complaint(between, LEAST, raised=False) is None
    assert complaint(between, LEAST, raised=True) is not None


def test_a_sparse_file_may_not_ask_for_more_than_its_disk_has() -> None:
    short = replace(ROOM, disk=disk(free=GIB, owed=60 * GIB))
    said = complaint(short, LEAST, raised=False)
    assert said is not None
    assert "1024 MiB are free, and /var/pool.btrfs may need 61440 MiB more" in said


def test_a_file_that_has_all_its_blocks_asks_for_nothing() -> None:
    assert complaint(replace(ROOM, disk=disk(free=0, owed=0)), LEAST, raised=False) is None


def test_a_pool_turned_read_only_comes_first() -> None:
    said = complaint(replace(ROOM, writable=False, free=0), LEAST, raised=False)
    assert said == "the pool at /pool cannot be written"


def test_a_real_disk_has_no_file_below(tmp_path: Path) -> None:
    room = measure(tmp_path)
    assert 0 < room.free <= room.size
    assert room.writable
    assert backing_file(Path("/proc")) is None
