"""The second disk of a virtual machine, on which the homes live (protocol.md 4.6, step 1).

A blank disk gets one partition with a file system; a known one is checked, grown with its disk, and mounted.
What must never happen: that a disk which holds anything is formatted. Hence a disk counts as blank only if no
tool knows its content *and* its first MiB is all zeros, and the partition table is written last: until then
the partition exists in the kernel alone, so a guest that is killed half-way finds a blank disk again, and
never a partition of which nobody knows whether it was ever used.

`decide` is pure; the rest looks and carries out.
"""

from __future__ import annotations

import os
import stat
import struct
from typing import Mapping, NamedTuple, Optional, Tuple

from appliance.vma import tools
from appliance.vma.files import read, say

SECTOR = 512
ALIGNMENT = 2048  # sectors; what sfdisk leaves before the first partition
DOS_LIMIT = 2**32 - 1  # sectors that a table of type dos can describe
MOUNT_OPTIONS = "nosuid,nodev,discard"  # discard: what users delete, the host gets back

PARTITION = "partition"
FORMAT = "format"
GROW_PARTITION = "grow partition"
CHECK = "check"
GROW_FILE_SYSTEM = "grow file system"
MOUNT = "mount"


class DriveError(Exception):
    """The homes cannot be mounted: one line says why, and that nothing was destroyed."""


class Partition(NamedTuple):
    """The first partition, in sectors, and what it holds."""

    start: int
    sectors: int
    kind: str  # as blkid names it: ext4, swap, crypto_LUKS …; empty: nothing that is known
    usage: str  # `filesystem` if it can be mounted
    size: int = 0  # bytes of the file system, where that can be told
    clean: bool = True


class Found(NamedTuple):
    """What is known of the disk; sizes in sectors."""

    drive: str
    sectors: int
    table: str  # type of the partition table, empty if there is none
    content: str  # a file system or the like on the disk itself
    zeros: bool  # whether its first MiB is blank
    partition: Optional[Partition]
    partitions: int


def decide(found: Found) -> Tuple[str, ...]:
    """What to do, in order. Raises DriveError where the disk is not one of ours, and leaves it alone."""
    if not found.table:
        if found.content or not found.zeros:
            held = f"holds {found.content}" if found.content else "is not blank"
            raise DriveError(f"{found.drive} {held} and has no partition: it is left as it is")
        if found.sectors < 16 * ALIGNMENT:
            raise DriveError(f"{found.drive} is too small for homes")
        return PARTITION, FORMAT, MOUNT
    home = found.partition
    if home is None:
        raise DriveError(f"{found.drive} has a table of type {found.table} without a first partition")
    if home.usage != "filesystem":
        held = f"holds {home.kind}" if home.kind else "holds no file system that is known"
        raise DriveError(f"the first partition of {found.drive} {held}: it is left as it is")
    steps = []
    grows = found.partitions == 1 and _room(found, home) >= ALIGNMENT
    if grows:
        steps.append(GROW_PARTITION)
    if _is_ext(home.kind):
        if not home.clean:
            steps.append(CHECK)
        steps.append(MOUNT)
        if grows or home.sectors * SECTOR - home.size >= ALIGNMENT * SECTOR:
            steps.append(GROW_FILE_SYSTEM)
    else:
        steps.append(MOUNT)
    return tuple(steps)


def _room(found: Found, home: Partition) -> int:
    """Sectors behind the partition that its table can describe; a gpt keeps its copy at the end."""
    limit = min(found.sectors, DOS_LIMIT) if found.table == "dos" else found.sectors - ALIGNMENT
    return limit - home.start - home.sectors


def _is_ext(kind: str) -> bool:
    return kind in ("ext2", "ext3", "ext4")


def describe(superblock: bytes) -> Tuple[int, bool]:
    """Size in bytes, and whether all is well, of an ext file system by its superblock."""
    blocks, shift = struct.unpack_from("<I16xI", superblock, 4)
    (state,) = struct.unpack_from("<H", superblock, 58)
    (incompatible,) = struct.unpack_from("<I", superblock, 96)
    if incompatible & 0x80:  # 64bit
        blocks |= struct.unpack_from("<I", superblock, 0x150)[0] << 32
    unplayed = incompatible & 0x4  # the journal was not emptied: it was not unmounted
    return blocks << (10 + shift), state & 3 == 1 and not unplayed


# -- effects -----------------------------------------------------------------------------------------------


def mount(drive: str, place: str, kind: str) -> None:
    """Mount the drive's first partition on `place`. No such drive, or something mounted there: nothing.

    Raises DriveError or ToolError.
    """
    if not drive or not is_block(drive) or os.path.ismount(place):
        return
    os.makedirs(place, exist_ok=True)
    found = look(drive)
    partition = first_partition(drive)
    for step in decide(found):
        _STEPS[step](found, partition, kind, place)


def is_block(path: str) -> bool:
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except OSError:
        return False


def first_partition(drive: str) -> str:
    return drive + ("p1" if drive[-1].isdigit() else "1")


def look(drive: str) -> Found:
    """What the disk holds now. A partition that only the kernel knows of, of an earlier attempt, is none."""
    whole = _probe(drive)
    name = os.path.basename(os.path.realpath(drive))
    directory = f"/sys/class/block/{name}"
    sectors = _number(f"{directory}/size")
    table = whole.get("PTTYPE", "")
    parts = [part for part in os.listdir(directory) if os.path.exists(f"{directory}/{part}/partition")]
    partition = first_partition(drive)
    home = None
    if table and is_block(partition):
        home = _look_into(partition, f"{directory}/{os.path.basename(first_partition(name))}")
    return Found(drive, sectors, table, whole.get("TYPE", ""), _begins_with_zeros(drive), home, len(parts))


def _look_into(partition: str, directory: str) -> Partition:
    held = _probe(partition)
    kind, size, clean = held.get("TYPE", ""), 0, True
    if _is_ext(kind):
        with open(partition, "rb") as file:
            file.seek(1024)
            size, clean = describe(file.read(1024))
    start, sectors = _number(f"{directory}/start"), _number(f"{directory}/size")
    return Partition(start, sectors, kind, held.get("USAGE", ""), size, clean)


def _probe(device: str) -> Mapping[str, str]:
    """What blkid reads from the device itself; it must be able to tell, so two meanings are an error."""
    status, text = tools.run(["blkid", "-p", "-o", "export", device], allowed=(0, 2, 8))
    if status == 8:
        raise DriveError(f"{device} holds more than one thing at once: it is left as it is")
    pairs = (line.partition("=") for line in text.splitlines())
    return {name: value for name, _, value in pairs}


def _begins_with_zeros(drive: str) -> bool:
    with open(drive, "rb") as file:
        data = file.read(ALIGNMENT * SECTOR)
    return not data.strip(b"\0")


def _number(path: str) -> int:
    text = read(path).strip()
    if not text.isdecimal():
        raise DriveError(f"{path} cannot be read")
    return int(text)


def _table_of(found: Found) -> str:
    return "dos" if found.sectors <= DOS_LIMIT else "gpt"


def _partition(found: Found, partition: str, kind: str, place: str) -> None:
    """Tell the kernel alone of the partition: the table comes when there is something in it."""
    if is_block(partition):
        tools.run(["delpart", found.drive, "1"])
    length = found.sectors - ALIGNMENT * (1 if _table_of(found) == "dos" else 2)
    tools.run(["addpart", found.drive, "1", str(ALIGNMENT), str(length)])


def _format(found: Found, partition: str, kind: str, place: str) -> None:
    say(f"{found.drive} is blank: it becomes the disk of the homes")
    # A home disk keeps nothing back for root; it is blank, so there is nothing to ask about.
    options = ["-q", "-F", "-m", "0"] if _is_ext(kind) else []
    tools.run([f"mkfs.{kind}", *options, partition])
    os.sync()
    table = f"label: {_table_of(found)}\nstart={ALIGNMENT}, size={_sectors_of(partition)}, type=linux\n"
    tools.run(["sfdisk", "--quiet", "--force", "--no-reread", "--no-tell-kernel", found.drive], table)


def _sectors_of(partition: str) -> int:
    return _number(f"/sys/class/block/{os.path.basename(os.path.realpath(partition))}/size")


def _grow_partition(found: Found, partition: str, kind: str, place: str) -> None:
    say(f"{found.drive} has grown to {found.sectors // ALIGNMENT} MiB: the homes get the room")
    try:
        tools.run(["sfdisk", "--quiet", "--no-reread", "-N", "1", found.drive], ",+\n")
        tools.run(["partx", "--update", found.drive])
    except tools.ToolError as exc:
        say(f"the partition of the homes stays as it is: {exc}")


def _check(found: Found, partition: str, kind: str, place: str) -> None:
    try:
        status, _ = tools.run(["e2fsck", "-p", partition], allowed=(0, 1, 2))
    except tools.ToolError as exc:
        raise DriveError(f"the homes are damaged: {exc}; repair them with e2fsck {partition}") from exc
    if status:
        say(f"e2fsck has repaired {partition}")


def _mount(found: Found, partition: str, kind: str, place: str) -> None:
    tools.run(["mount", "-o", MOUNT_OPTIONS, partition, place])


def _grow_file_system(found: Found, partition: str, kind: str, place: str) -> None:
    """While mounted: so it needs no check before. Homes that are too small are better than none."""
    try:
        tools.run(["resize2fs", partition])
    except tools.ToolError as exc:
        say(f"the file system of the homes does not grow: {exc}")


_STEPS = {
    PARTITION: _partition,
    FORMAT: _format,
    GROW_PARTITION: _grow_partition,
    CHECK: _check,
    MOUNT: _mount,
    GROW_FILE_SYSTEM: _grow_file_system,
}
