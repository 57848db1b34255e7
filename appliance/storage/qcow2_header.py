"""What a disk image is by its first bytes, and whether a virtual machine may have it as its disk. Pure.

Whoever makes an image decides what its header says, and QEMU does what that says: it opens the files and
hosts that the header names. So a header is read here before any program of QEMU sees it, and one that
names anything but itself is refused. The first bytes of a raw image are its own boot code; one that looks
like another format is refused, for whoever guesses formats would take it for that.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum

from appliance.errors import ImageError

HEAD = 1 << 16
"""Bytes from the beginning of a file that are enough to judge it."""
BOOT_SECTORS = 34
BOOT_BYTES = BOOT_SECTORS * 512
"""Bytes from the beginning of a guest's disk that say how it boots: boot record and partition tables."""

MAGIC = b"QFI\xfb"
SHORT, LONG = 72, 104
"""Length of a header of version 2, and the shortest of version 3."""
LEAST_CLUSTER_BITS, MOST_CLUSTER_BITS = 9, 21
DIRTY, CORRUPT, DATA_FILE, COMPRESSION_TYPE, EXTENDED_L2 = 1, 2, 4, 8, 16
FIELDS = struct.Struct(">4sIQIIQIIQQI")
"""Magic, version, place and length of the backing file's name, cluster bits, virtual size, encryption;
number of entries and place of the table of tables, place and clusters of that of the counts."""
SIZE_AT = 24
INCOMPATIBLE_AT, LENGTH_AT = 72, 100
EXTENSION = struct.Struct(">II")
END, BACKING_FORMAT, DATA_FILE_NAME, ENCRYPTION_HEADER = 0, 0xE2792ACA, 0x44415441, 0x0537BE77
REFUSED = {
    BACKING_FORMAT: "it names the format of a backing file",
    DATA_FILE_NAME: "it names an external data file",
    ENCRYPTION_HEADER: "it is encrypted",
}

FOREIGN = (
    (0, b"KDMV", "a VMDK image"),
    (0, b"COWD", "a VMDK image"),
    (0, b"# Disk DescriptorFile", "the description of a VMDK image"),
    (0, b"conectix", "a VHD image"),
    (0, b"vhdxfile", "a VHDX image"),
    (0x40, b"\x7f\x10\xda\xbe", "a VDI image"),
    (0, b"QED\0", "a QED image"),
    (0, b"WithoutFreeSpace", "a Parallels image"),
    (0, b"WithouFreSpacExt", "a Parallels image"),
    (0, b"Bochs Virtual HD Image", "a Bochs image"),
    (0, b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop", "a cloop image"),
    (0, b"LUKS\xba\xbe", "encrypted"),
    (0, b"\x1f\x8b", "compressed with gzip"),
    (0, b"BZh", "compressed with bzip2"),
    (0, b"\xfd7zXZ\0", "compressed with xz"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"hsqs", "a squashfs image"),
    (257, b"ustar", "a tar archive"),
)
"""What people mistake for a disk, and what QEMU would take it for: by offset and first bytes."""

BOOT_MAGIC_AT, BOOT_MAGIC = 510, b"\x55\xaa"
BOOT_CODE = 440
SECTOR = 512
GPT_MAGIC = b"EFI PART"
GPT = struct.Struct("<QII")
"""Where the partitions' entries are, how many and how long, at byte 72 of a GPT header."""
GPT_AT = 72
SHORTEST_ENTRY = 128
ESP = bytes.fromhex("28732ac11ff8d211ba4b00a0c93ec93b")
"""The type of an EFI system partition, as it is stored."""


class DiskFormat(StrEnum):
    """How the bytes of a guest's disk are laid out in a file; in QEMU's words."""

    QCOW2 = "qcow2"
    RAW = "raw"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A file that a virtual machine may have as its disk."""

    format: DiskFormat
    size: int
    """Bytes of the disk that the guest sees."""


def format_of(head: bytes) -> DiskFormat:
    """How a file that begins like this is laid out, if it is no other format.

    :raises ImageError: saying what it is
    """
    if head.startswith(MAGIC):
        return DiskFormat.QCOW2
    for offset, magic, kind in FOREIGN:
        if head[offset : offset + len(magic)] == magic:
            raise ImageError(
                f"it is {kind}, and virtual machines boot from a qcow2 or raw image",
                hint="qemu-img convert -O qcow2 makes one of other disks; decompress what is compressed",
            )
    return DiskFormat.RAW


def judge(head: bytes, *, file_size: int, largest: int) -> Verdict:
    """What a file is whose first `HEAD` bytes these are; a disk of at most `largest` bytes is taken.

    :raises ImageError: no virtual machine may have it, with the reason
    """
    disk_format = format_of(head)
    size = file_size if disk_format is DiskFormat.RAW else _judged(head, file_size)
    if size == 0:
        raise ImageError("it is empty")
    if size > largest:
        raise ImageError(
            f"its disk has {_gib(size)} GiB, and an image may have {_gib(largest)}",
            hint="storage.import.max_size is the bound",
        )
    return Verdict(disk_format, size)


def virtual_size(head: bytes) -> int:
    """The bytes of the disk in a qcow2 file of ours.

    :raises ImageError: it is no qcow2 file
    """
    if len(head) < SHORT or not head.startswith(MAGIC):
        raise ImageError("it is no qcow2 file any more")
    return int.from_bytes(head[SIZE_AT : SIZE_AT + 8], "big")


def check_boot(disk: bytes) -> None:
    """Whether a guest's disk, of which these are the first `BOOT_BYTES`, can boot.

    :raises ImageError: it cannot, with the reason
    """
    hint = "install a boot loader into the image"
    if disk[BOOT_MAGIC_AT:SECTOR] != BOOT_MAGIC:
        raise ImageError("it cannot boot: its disk has no boot record", hint=hint)
    if not any(disk[:BOOT_CODE]):
        if _has_esp(disk):
            raise ImageError(
                "it cannot boot: it does so by UEFI only, and virtual machines do by BIOS",
                hint="install a boot loader for BIOS beside that for UEFI: grub-install --target=i386-pc",
            )
        raise ImageError("it cannot boot: its boot record holds no code", hint=hint)


def _judged(head: bytes, file_size: int) -> int:
    """The bytes of the disk in a stranger's qcow2 file."""
    if len(head) < SHORT:
        raise ImageError("it is cut off within its header")
    _, version, backing_at, backing_length, cluster_bits, size, encryption, *tables = FIELDS.unpack_from(head)
    if version not in (2, 3):
        raise ImageError(f"it is of version {version} of qcow2, and 2 and 3 are known")
    if backing_at or backing_length:
        raise ImageError(
            "it has a backing file, which would be a file of this host",
            hint="qemu-img convert -O qcow2 makes a whole image of it where its backing file is",
        )
    if encryption:
        raise ImageError("it is encrypted")
    if not LEAST_CLUSTER_BITS <= cluster_bits <= MOST_CLUSTER_BITS:
        raise ImageError("its header is damaged: there are no clusters of that size")
    length = SHORT
    if version == 3:
        length = _check_long(head)
    _check_extensions(head[: 1 << cluster_bits], length)
    entries, tables_at, counts_at, counts = tables
    if max(tables_at + entries * 8, counts_at + (counts << cluster_bits)) > file_size:
        raise ImageError("it is cut off: its tables are beyond its end", hint="copy it again")
    return int(size)


def _check_long(head: bytes) -> int:
    """Judge what only version 3 says; returns the header's length."""
    if len(head) < LONG:
        raise ImageError("it is cut off within its header")
    (features,) = struct.unpack_from(">Q", head, INCOMPATIBLE_AT)
    (length,) = struct.unpack_from(">I", head, LENGTH_AT)
    if features & DATA_FILE:
        raise ImageError(
            "it keeps its data in an external file, which would be a file of this host",
            hint="qemu-img convert -O qcow2 makes a whole image of it where that file is",
        )
    if features & CORRUPT:
        raise ImageError("it is marked as corrupt", hint="qemu-img check -r all may mend it")
    if features & DIRTY:
        raise ImageError("it was not closed properly", hint="qemu-img check -r all mends it")
    if unknown := features & ~(COMPRESSION_TYPE | EXTENDED_L2):
        raise ImageError(f"it needs features of qcow2 that are not known here: {unknown:#x}")
    if length < LONG or length % 8 or length > len(head):
        raise ImageError("its header is damaged: it has no such length")
    return int(length)


def _check_extensions(head: bytes, place: int) -> None:
    """Refuse extensions of the header that name other files, or keys."""
    while place + EXTENSION.size <= len(head):
        kind, length = EXTENSION.unpack_from(head, place)
        if kind == END:
            return
        if kind in REFUSED:
            raise ImageError(REFUSED[kind])
        place += EXTENSION.size + (length + 7) // 8 * 8
    if place > len(head):
        raise ImageError("its header is damaged: an extension has no end")


def _has_esp(disk: bytes) -> bool:
    """Whether there is a GPT with an EFI system partition."""
    header = disk[SECTOR : 2 * SECTOR]
    if len(header) < SECTOR or not header.startswith(GPT_MAGIC):
        return False
    sector, number, length = GPT.unpack_from(header, GPT_AT)
    if length < SHORTEST_ENTRY or sector >= BOOT_SECTORS:
        return False
    first = sector * SECTOR
    last = min(first + number * length, len(disk) - len(ESP) + 1)
    return any(disk[place : place + len(ESP)] == ESP for place in range(first, last, length))


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.4g}"
