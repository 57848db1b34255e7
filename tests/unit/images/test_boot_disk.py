"""The first sectors of a disk that boots, byte by byte."""

from __future__ import annotations

import struct

import pytest

from images.boot_disk import SECTOR, START, LayoutError, grub_config, head, master_boot_record

BOOT_CODE = bytes(range(256)) * 2


def test_the_table_has_one_active_partition_to_the_end_of_the_disk() -> None:
    size = 64 * 1024 * 1024
    record = master_boot_record(BOOT_CODE, size)
    assert len(record) == SECTOR
    assert record[510:] == b"\x55\xaa"
    entry = record[446:462]
    assert entry[0] == 0x80
    assert entry[4] == 0x83
    first, count = struct.unpack("<II", entry[8:])
    assert first * SECTOR == START
    assert (first + count) * SECTOR == size
    assert record[462:510] == bytes(48)


def test_the_boot_code_ends_before_the_table() -> None:
    record = master_boot_record(BOOT_CODE, 2 * START)
    assert record[:440] == BOOT_CODE[:440]
    assert record[440:446] == bytes(6)


def test_the_core_image_follows_the_first_sector() -> None:
    assert head(BOOT_CODE, b"core", 2 * START)[SECTOR:] == b"core"


@pytest.mark.parametrize("size", [0, START, START + 100, 2**32 * SECTOR + START])
def test_a_disk_without_room_is_refused(size: int) -> None:
    with pytest.raises(LayoutError):
        master_boot_record(BOOT_CODE, size)


def test_a_core_image_that_reaches_into_the_partition_is_refused() -> None:
    assert len(head(BOOT_CODE, bytes(START - SECTOR), 2 * START)) == START
    with pytest.raises(LayoutError, match="does not fit"):
        head(BOOT_CODE, bytes(START - SECTOR + 1), 2 * START)


def test_short_boot_code_is_refused() -> None:
    with pytest.raises(LayoutError, match="boot code"):
        master_boot_record(bytes(100), 2 * START)


def test_grub_s_configuration_needs_no_parser() -> None:
    assert grub_config("/boot/vmlinuz-1", "/boot/initrd").splitlines() == [
        "set root=(hd0,msdos1)",
        "linux /boot/vmlinuz-1 root=/dev/vda1 rw console=ttyS0,115200 quiet net.ifnames=0 panic=10",
        "initrd /boot/initrd",
        "boot",
    ]
