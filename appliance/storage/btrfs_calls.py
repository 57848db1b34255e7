"""The calls of btrfs that may wait for a whole commit, made so that the other threads go on meanwhile.

The btrfs library keeps the interpreter's lock while it calls: on a busy disk, one snapshot would hold up
every session and every other VM. So does `fcntl.ioctl` with arguments of this size. The structures are
those of linux/btrfs.h.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SNAP_DESTROY, SNAP_CREATE_V2, SUBVOL_CREATE_V2 = 0x5000940F, 0x50009417, 0x50009418
SYNC = 0x9408
AT_FDCWD, RENAME_EXCHANGE = -100, 1 << 1
LONGEST_NAME_V1, LONGEST_NAME_V2 = 4087, 4039
READ_ONLY, INHERIT = 1 << 1, 1 << 2
_LIBC = ctypes.CDLL(None, use_errno=True)


class _Inherit(ctypes.Structure):
    """`btrfs_qgroup_inherit` with one group."""

    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("flags", "groups", "referenced_copies", "exclusive_copies")),
        ("limit", ctypes.c_uint64 * 5),
        ("group", ctypes.c_uint64),
    )


class _Arguments(ctypes.Structure):
    """`btrfs_ioctl_vol_args`."""

    _fields_ = (("fd", ctypes.c_int64), ("name", ctypes.c_char * (LONGEST_NAME_V1 + 1)))


class _Arguments2(ctypes.Structure):
    """`btrfs_ioctl_vol_args_v2`."""

    _fields_ = (
        ("fd", ctypes.c_int64),
        ("transaction", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
        ("inherit", ctypes.POINTER(_Inherit)),
        ("unused", ctypes.c_uint64 * 2),
        ("name", ctypes.c_char * (LONGEST_NAME_V2 + 1)),
    )


def create(path: Path, *, group: int | None = None) -> None:
    """Make an empty subvolume, in a quota group if one is given.

    :raises OSError: it cannot be made
    """
    _make(SUBVOL_CREATE_V2, 0, path, group)


def snapshot(source: Path, path: Path, *, group: int | None = None, read_only: bool = False) -> None:
    """Make a copy of a subvolume, writable or not, in a quota group if one is given.

    :raises OSError: it cannot be made
    """
    with _opened(source) as descriptor:
        _make(SNAP_CREATE_V2, descriptor, path, group, READ_ONLY if read_only else 0)


def exchange(one: Path, other: Path) -> None:
    """Let two subvolumes or files, both there, have each other's names, at one instant.

    :raises OSError: they cannot; nothing changes
    """
    paths = ctypes.c_char_p(os.fsencode(one)), ctypes.c_char_p(os.fsencode(other))
    if _LIBC.renameat2(AT_FDCWD, paths[0], AT_FDCWD, paths[1], RENAME_EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one), None, str(other))


def destroy(path: Path) -> None:
    """Delete a subvolume in which there is no other.

    :raises OSError: it cannot be deleted; ENOTEMPTY if there is another in it
    """
    name = _name(path, LONGEST_NAME_V1)
    with _opened(path.parent) as parent:
        _call(parent, SNAP_DESTROY, _Arguments(name=name), path)


def sync(path: Path) -> None:
    """Commit the file system of `path`.

    :raises OSError: it cannot be
    """
    with _opened(path) as descriptor:
        fcntl.ioctl(descriptor, SYNC)


def _make(request: int, source: int, path: Path, group: int | None, flags: int = 0) -> None:
    arguments = _Arguments2(fd=source, name=_name(path, LONGEST_NAME_V2), flags=flags)
    if group is not None:
        inherit = _Inherit(groups=1, group=group)
        arguments.flags |= INHERIT
        arguments.size = ctypes.sizeof(inherit)
        arguments.inherit = ctypes.pointer(inherit)
    with _opened(path.parent) as parent:
        _call(parent, request, arguments, path)


def _name(path: Path, longest: int) -> bytes:
    name = os.fsencode(path.name)
    assert 0 < len(name) <= longest, path
    return name


def _call(descriptor: int, request: int, arguments: ctypes.Structure, path: Path) -> None:
    if _LIBC.ioctl(descriptor, ctypes.c_ulong(request), ctypes.byref(arguments)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
