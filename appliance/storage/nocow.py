"""Keeps btrfs from copying each block of a disk image that a guest writes: such a file falls into pieces."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path

GET_FLAGS, SET_FLAGS = 0x80086601, 0x40086602
NO_COPY_ON_WRITE = 0x00800000
UNKNOWN = frozenset({errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL})
"""How a file system says that it has no such flag."""


def set_up(folder: Path) -> bool:
    """Let what is made in a directory from now on be written in place; false if its file system always does.

    :raises OSError: the directory cannot be opened or changed
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        (flags,) = struct.unpack("=L", fcntl.ioctl(descriptor, GET_FLAGS, bytes(8))[:4])
        if not flags & NO_COPY_ON_WRITE:
            fcntl.ioctl(descriptor, SET_FLAGS, struct.pack("=Q", flags | NO_COPY_ON_WRITE))
    except OSError as exc:
        if exc.errno not in UNKNOWN:
            raise
        return False
    finally:
        os.close(descriptor)
    return True


def is_set(path: Path) -> bool:
    """Whether a file or directory is written in place on a file system that would copy otherwise."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        (flags,) = struct.unpack("=L", fcntl.ioctl(descriptor, GET_FLAGS, bytes(8))[:4])
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return bool(flags & NO_COPY_ON_WRITE)
