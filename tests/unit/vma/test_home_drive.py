"""What becomes of a home disk: above all, which disks are never formatted."""

from __future__ import annotations

import itertools
import struct

import pytest

from appliance.vma.home_drive import (
    ALIGNMENT,
    CHECK,
    DOS_LIMIT,
    FORMAT,
    GROW_FILE_SYSTEM,
    GROW_PARTITION,
    MOUNT,
    PARTITION,
    SECTOR,
    DriveError,
    Found,
    Partition,
    decide,
    describe,
    first_partition,
)

GIB = 2**21  # sectors


def disk(partition: Partition | None = None, **other: object) -> Found:
    found = Found(
        "/dev/vdb",
        GIB,
        "dos" if partition else "",
        "",
        partition is None,
        partition,
        int(partition is not None),
    )
    return found._replace(**other)  # type: ignore[arg-type]


def home(
    sectors: int = GIB - ALIGNMENT, kind: str = "ext4", usage: str = "filesystem", **other: object
) -> Partition:
    made = Partition(ALIGNMENT, sectors, kind, usage, sectors * SECTOR)
    return made._replace(**other)  # type: ignore[arg-type]


def test_a_blank_disk_is_made_a_home() -> None:
    assert decide(disk()) == (PARTITION, FORMAT, MOUNT)


def test_a_known_disk_is_mounted() -> None:
    assert decide(disk(home())) == (MOUNT,)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (disk(content="ext4", zeros=False), "holds ext4 and has no partition"),
        (disk(content="LVM2_member", zeros=False), "holds LVM2_member"),
        (disk(zeros=False), "is not blank"),
        (disk(table="gpt", zeros=False), "without a first partition"),
        (disk(table="dos", zeros=False), "without a first partition"),
        (disk(home(kind="", usage="")), "holds no file system that is known"),
        (disk(home(kind="swap", usage="other")), "holds swap"),
        (disk(home(kind="crypto_LUKS", usage="crypto")), "holds crypto_LUKS"),
        (disk(sectors=8 * ALIGNMENT), "too small"),
    ],
)
def test_what_is_not_ours_is_left_as_it_is(found: Found, reason: str) -> None:
    with pytest.raises(DriveError, match=reason):
        decide(found)


def test_only_a_disk_without_anything_is_ever_formatted() -> None:
    partitions = [None, home(), home(kind="", usage=""), home(kind="swap", usage="other"), home(kind="xfs")]
    for table, content, zeros, partition in itertools.product(
        ["", "dos", "gpt"], ["", "ext4", "swap"], [False, True], partitions
    ):
        found = Found("/dev/vdb", GIB, table, content, zeros, partition, int(partition is not None))
        try:
            steps = decide(found)
        except DriveError:
            continue
        blank = not table and not content and zeros
        assert (FORMAT in steps) == blank
        assert (PARTITION in steps) == blank
        assert MOUNT in steps


def test_a_grown_disk_gives_its_room_to_the_homes() -> None:
    assert decide(disk(home(GIB // 2))) == (GROW_PARTITION, MOUNT, GROW_FILE_SYSTEM)


def test_an_interrupted_growth_is_finished() -> None:
    assert decide(disk(home(size=GIB // 2 * SECTOR))) == (MOUNT, GROW_FILE_SYSTEM)


def test_a_home_that_was_not_unmounted_is_checked_first() -> None:
    assert decide(disk(home(clean=False))) == (CHECK, MOUNT)
    assert decide(disk(home(GIB // 2, clean=False))) == (GROW_PARTITION, CHECK, MOUNT, GROW_FILE_SYSTEM)


def test_other_partitions_are_not_overrun() -> None:
    assert decide(disk(home(GIB // 2), partitions=2)) == (MOUNT,)


def test_another_file_system_is_mounted_and_not_resized() -> None:
    assert decide(disk(home(kind="xfs"))) == (MOUNT,)
    assert decide(disk(home(GIB // 2, kind="btrfs"))) == (GROW_PARTITION, MOUNT)


def test_a_table_grows_no_further_than_it_can_describe() -> None:
    full = home(DOS_LIMIT - ALIGNMENT)
    assert decide(disk(full, sectors=2 * DOS_LIMIT)) == (MOUNT,)
    assert GROW_PARTITION in decide(disk(full, sectors=2 * DOS_LIMIT, table="gpt"))


def test_a_gpt_s_copy_at_the_end_is_no_room() -> None:
    assert decide(disk(home(GIB - 2 * ALIGNMENT), table="gpt")) == (MOUNT,)


def superblock(blocks: int, shift: int, state: int, incompatible: int) -> bytes:
    data = bytearray(1024)
    struct.pack_into("<I", data, 4, blocks & 0xFFFFFFFF)
    struct.pack_into("<I", data, 24, shift)
    struct.pack_into("<H", data, 58, state)
    struct.pack_into("<I", data, 96, incompatible)
    struct.pack_into("<I", data, 0x150, blocks >> 32)
    return bytes(data)


@pytest.mark.parametrize(
    ("blocks", "shift", "state", "incompatible", "expected"),
    [
        (1000, 0, 1, 0, (1000 << 10, True)),
        (1000, 2, 1, 0x2C0, (1000 << 12, True)),
        (2**33, 2, 1, 0x80, (2**45, True)),
        (2**33 + 7, 2, 1, 0, (7 << 12, True)),
        (1, 2, 1, 0x4, (4096, False)),
        (1, 2, 3, 0, (4096, False)),
        (1, 2, 0, 0, (4096, False)),
    ],
)
def test_a_superblock_tells_size_and_state(
    blocks: int, shift: int, state: int, incompatible: int, expected: tuple[int, bool]
) -> None:
    assert describe(superblock(blocks, shift, state, incompatible)) == expected


def test_partitions_are_named_as_the_kernel_names_them() -> None:
    assert first_partition("/dev/vdb") == "/dev/vdb1"
    assert first_partition("/dev/nvme0n1") == "/dev/nvme0n1p1"
