"""What subvolumes use and may use: quota groups of btrfs, by ioctl(2).

Two kinds exist. Full qgroups (every kernel) count what a subvolume refers to, shared or not; simple
quotas (Linux 6.7, only for a pool made with them) count what a subvolume itself has written. Groups of
level 1 hold many subvolumes; a snapshot can enter one without a scan of the whole pool since 6.9.

A full qgroup may become *inconsistent*: the kernel then stops counting, and with that stops limiting,
until a rescan. Big subvolumes that are deleted do that unless the kernel is told to take its time.
"""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import re
import struct
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

SYSFS = Path("/sys/fs/btrfs")
FS_INFO, FS_INFO_SIZE, FSID = 0x8400941F, 1024, slice(16, 32)
QUOTA_CTL, ENABLE, DISABLE, ENABLE_SIMPLE = 0xC0109428, 1, 2, 4
QGROUP_ASSIGN, QGROUP_CREATE, QGROUP_LIMIT = 0x40189429, 0x4010942A, 0x8030942B
RESCAN, RESCAN_WAIT, RESCAN_SIZE = 0x4040942C, 0x942E, 64
TREE_SEARCH, SEARCH_SIZE, SEARCH_KEY = 0xD0009411, 4096, struct.Struct("=7Q4I4Q")
ITEM_HEADER = struct.Struct("=3Q2I")
ROOT_TREE, QUOTA_TREE = 1, 8
ROOT_ITEM, QGROUP_INFO, QGROUP_LIMIT_ITEM, QGROUP_RELATION = 132, 242, 244, 246
FIRST_SUBVOLUME = 256
LEVEL_SHIFT = 48
MOST_ITEMS = 64
"""How many items one search returns at most."""
MAX_RFER = 1
UNLIMITED = (1 << 64) - 1
NEVER_HASTY = "8"
"""The height of a tree that no subvolume has: none is dropped without being counted."""
GROUPED_SINCE = (6, 9)


class Mode(StrEnum):
    """How a pool counts."""

    NONE = "none"
    QGROUP = "qgroup"
    SIMPLE = "squota"


@dataclass(frozen=True, slots=True)
class Use:
    """What a group refers to, and what nobody else does, in bytes, as of the last commit."""

    referenced: int
    exclusive: int


def mode(pool: Path) -> Mode:
    """How the pool counts now.

    :raises OSError: it is no btrfs
    """
    folder = _sysfs(pool)
    try:
        return Mode((folder / "mode").read_text().strip())
    except (OSError, ValueError):
        return Mode.QGROUP if _flag(folder / "enabled") else Mode.NONE


def enable(pool: Path, *, simple: bool) -> None:
    """Let the pool count, from now on; full qgroups are scanned for what is there, and that is waited for.

    :raises OSError: it cannot
    """
    with _opened(pool) as descriptor:
        command = ENABLE_SIMPLE if simple else ENABLE
        fcntl.ioctl(descriptor, QUOTA_CTL, bytearray(struct.pack("=QQ", command, 0)))
        if not simple:
            fcntl.ioctl(descriptor, RESCAN_WAIT)


def is_consistent(pool: Path) -> bool:
    """Whether what the pool counts can be believed, and so limits hold.

    :raises OSError: it is no btrfs
    """
    return not _flag(_sysfs(pool) / "inconsistent")


def stay_consistent(pool: Path) -> None:
    """Let deleted subvolumes be counted, however long that takes. It lasts until the pool is unmounted.

    :raises OSError: it is no btrfs
    """
    with suppress(FileNotFoundError):
        (_sysfs(pool) / "drop_subtree_threshold").write_text(NEVER_HASTY)


def rescan(pool: Path) -> None:
    """Begin to count anew; returns at once, also if that is under way.

    :raises OSError: it cannot
    """
    with _opened(pool) as descriptor:
        try:
            fcntl.ioctl(descriptor, RESCAN, bytes(RESCAN_SIZE))
        except OSError as exc:
            if exc.errno != errno.EINPROGRESS:
                raise


def await_rescan(pool: Path) -> None:
    """Wait for a scan to end, if one is under way."""
    with _opened(pool) as descriptor:
        fcntl.ioctl(descriptor, RESCAN_WAIT)


def limit(where: Path, size: int | None, *, group: int = 0) -> None:
    """Let a subvolume, or a group of the pool at `where`, refer to `size` bytes at most; None: to any.

    :raises OSError: it cannot, or the pool does not count
    """
    most = UNLIMITED if size is None else size
    with _opened(where) as descriptor:
        fcntl.ioctl(descriptor, QGROUP_LIMIT, struct.pack("=6Q", group, MAX_RFER, most, 0, 0, 0))


def use(pool: Path, group: int) -> Use | None:
    """What a group, or the subvolume with this id, uses; None if nothing is known of it."""
    for _, _, _, data in _items(pool, QUOTA_TREE, (0, 0), (QGROUP_INFO, QGROUP_INFO), (group, group)):
        _, referenced, _, exclusive, _ = struct.unpack_from("=5Q", data)
        return Use(referenced, exclusive)
    return None


def limit_of(pool: Path, group: int) -> int | None:
    """How many bytes a group may refer to; None if it has no limit."""
    kinds = (QGROUP_LIMIT_ITEM, QGROUP_LIMIT_ITEM)
    for _, _, _, data in _items(pool, QUOTA_TREE, (0, 0), kinds, (group, group)):
        flags, most, *_ = struct.unpack_from("=5Q", data)
        return most if flags & MAX_RFER else None
    return None


def knows_simple() -> bool:
    """Whether this kernel has simple quotas."""
    return (SYSFS / "features" / "simple_quota").exists()


def can_group(how: Mode) -> bool:
    """Whether snapshots can enter a group at no cost on this kernel."""
    found = re.match(r"(\d+)\.(\d+)", platform.release())
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    return how is Mode.SIMPLE or (how is Mode.QGROUP and version >= GROUPED_SINCE)


def group_id(number: int) -> int:
    """The id of the group `number` of level 1, whether it is there or not."""
    return 1 << LEVEL_SHIFT | number


def make_group(pool: Path, number: int) -> int:
    """The id of the group `number` of level 1, made if it is not there.

    :raises OSError: it cannot be made
    """
    group = group_id(number)
    if use(pool, group) is None:
        with _opened(pool) as descriptor, suppress(FileExistsError):
            fcntl.ioctl(descriptor, QGROUP_CREATE, struct.pack("=QQ", 1, group))
    return group


def members(pool: Path, group: int) -> set[int]:
    """The ids of the subvolumes in a group of level 1."""
    found = _items(pool, QUOTA_TREE, (group, group), (QGROUP_RELATION, QGROUP_RELATION), (0, UNLIMITED))
    return {other for _, _, other, _ in found}


def join(pool: Path, subvolume: int, group: int) -> None:
    """Put a subvolume into a group; nothing if it is in it. One that shares data makes counts inconsistent.

    :raises OSError: it cannot
    """
    with _opened(pool) as descriptor, suppress(FileExistsError):
        fcntl.ioctl(descriptor, QGROUP_ASSIGN, struct.pack("=3Q", 1, subvolume, group))


def orphans(pool: Path) -> list[int]:
    """Groups of level 0 whose subvolume is gone: older kernels leave them behind."""
    kinds = (ROOT_ITEM, ROOT_ITEM)
    subvolumes = {
        number
        for number, _, _, _ in _items(pool, ROOT_TREE, (FIRST_SUBVOLUME, UNLIMITED), kinds, (0, UNLIMITED))
    }
    groups = _items(pool, QUOTA_TREE, (0, 0), (QGROUP_INFO, QGROUP_INFO), (FIRST_SUBVOLUME, UNLIMITED))
    return [group for _, _, group, _ in groups if not group >> LEVEL_SHIFT and group not in subvolumes]


def remove_group(pool: Path, group: int) -> bool:
    """Remove a group; false if it still has members or counts something."""
    with _opened(pool) as descriptor:
        try:
            fcntl.ioctl(descriptor, QGROUP_CREATE, struct.pack("=QQ", 0, group))
        except OSError as exc:
            if exc.errno not in (errno.EBUSY, errno.ENOENT):
                raise
            return False
    return True


def _items(
    pool: Path, tree: int, objects: tuple[int, int], kinds: tuple[int, int], offsets: tuple[int, int]
) -> Iterator[tuple[int, int, int, bytes]]:
    """Object id, kind, offset and content of the items of a tree within bounds, if there is one."""
    first, last = (objects[0], kinds[0], offsets[0]), (objects[1], kinds[1], offsets[1])
    with _opened(pool) as descriptor:
        while True:
            buffer = bytearray(SEARCH_SIZE)
            bounds = (first[0], last[0], first[2], last[2], 0, UNLIMITED, first[1], last[1])
            SEARCH_KEY.pack_into(buffer, 0, tree, *bounds, MOST_ITEMS, 0, 0, 0, 0, 0)
            try:
                fcntl.ioctl(descriptor, TREE_SEARCH, buffer)
            except FileNotFoundError:
                return
            number = SEARCH_KEY.unpack_from(buffer)[9]
            if not number:
                return
            place = SEARCH_KEY.size
            for _ in range(number):
                _, owner, offset, kind, size = ITEM_HEADER.unpack_from(buffer, place)
                place += ITEM_HEADER.size
                # A search goes by keys as wholes: what lies between may be of another kind.
                if kinds[0] <= kind <= kinds[1] and offsets[0] <= offset <= offsets[1]:
                    yield owner, kind, offset, bytes(buffer[place : place + size])
                place += size
            first = _after(owner, kind, offset)
            if first > last:
                return


def _after(owner: int, kind: int, offset: int) -> tuple[int, int, int]:
    """The key that follows in a tree."""
    if offset < UNLIMITED:
        return owner, kind, offset + 1
    return owner, kind + 1, 0


def _sysfs(pool: Path) -> Path:
    buffer = bytearray(FS_INFO_SIZE)
    with _opened(pool) as descriptor:
        fcntl.ioctl(descriptor, FS_INFO, buffer)
    return SYSFS / str(uuid.UUID(bytes=bytes(buffer[FSID]))) / "qgroups"


def _flag(file: Path) -> bool:
    with suppress(OSError):
        return file.read_text().strip() == "1"
    return False


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
