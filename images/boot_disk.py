"""A disk that a BIOS boots, laid down by hand: no loop device, no mount, no boot loader's installer.

    sector 0        GRUB's boot code and a partition table with one entry
    sector 1 …      GRUB's core image, which has its whole configuration inside
    1 MiB …         the root file system, to the end of the disk

GRUB's boot code looks for the core image at sector 1, and the core image for its rest behind itself: both are
true here as they come. All of this module is computation; what runs tools is in `build_kvm`.
"""

from __future__ import annotations

import struct

SECTOR = 512
START = 1024 * 1024
GRUB_MODULES = ("biosdisk", "part_msdos", "ext2", "linux", "minicmd")
GRUB_FORMAT = "i386-pc"
KERNEL_ARGUMENTS = (
    "root=/dev/vda1",
    "rw",
    "console=ttyS0,115200",
    "quiet",
    "net.ifnames=0",  # the one network card is eth0
    "panic=10",  # a guest that cannot go on starts again, and does not hang for ever
)
_BOOT_CODE = 440
_TABLE = 446
_LINUX = 0x83
_ACTIVE = 0x80
_NO_CHS = b"\xfe\xff\xff"  # "beyond what cylinders can tell": readers use the sector numbers


class LayoutError(ValueError):
    """The parts do not fit."""


def master_boot_record(boot_code: bytes, disk_bytes: int) -> bytes:
    """Sector 0: GRUB's boot code and one active Linux partition from 1 MiB to the end of the disk."""
    sectors = (disk_bytes - START) // SECTOR
    if disk_bytes % SECTOR or not 0 < sectors < 2**32:
        raise LayoutError(f"a disk of {disk_bytes} bytes cannot be described by a partition table of sectors")
    if len(boot_code) < _BOOT_CODE:
        raise LayoutError(f"GRUB's boot code has {len(boot_code)} bytes, too few")
    entry = (
        bytes([_ACTIVE]) + _NO_CHS + bytes([_LINUX]) + _NO_CHS + struct.pack("<II", START // SECTOR, sectors)
    )
    return boot_code[:_BOOT_CODE].ljust(_TABLE, b"\0") + entry + bytes(3 * 16) + b"\x55\xaa"


def head(boot_code: bytes, core: bytes, disk_bytes: int) -> bytes:
    """Everything before the root file system."""
    if SECTOR + len(core) > START:
        raise LayoutError(f"GRUB's core image of {len(core)} bytes does not fit before the first partition")
    return master_boot_record(boot_code, disk_bytes) + core


def grub_config(kernel: str, initrd: str) -> str:
    """What GRUB does at boot. It is read by the rescue parser: plain commands, one a line."""
    return f"set root=(hd0,msdos1)\nlinux {kernel} {' '.join(KERNEL_ARGUMENTS)}\ninitrd {initrd}\nboot\n"
