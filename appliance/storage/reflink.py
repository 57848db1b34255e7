"""Copies of files that share their blocks until one of the two is changed, where the file system can."""

from __future__ import annotations

import errno
import fcntl
import os
from enum import StrEnum
from pathlib import Path

from appliance.storage.volumes import explained

CLONE = 0x40049409
"""FICLONE of linux/fs.h."""
CANNOT = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS})
"""How a file system says that it cannot, or not between these two."""


class Shared(StrEnum):
    """How two files share what they hold."""

    BLOCKS = "blocks"
    """Each is a file of its own; btrfs and XFS can."""
    FILE = "file"
    """They are one file with two names: for what nobody ever writes again."""


def copy(source: Path, path: Path) -> bool:
    """Make `path` a copy of `source` with its time of change; false, and no file, if blocks cannot be shared.

    :raises OSError: there is such a file, or it cannot be made
    """
    with source.open("rb") as original:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.ioctl(descriptor, CLONE, original.fileno())
            found = os.fstat(original.fileno())
            os.utime(descriptor, ns=(found.st_atime_ns, found.st_mtime_ns))
            os.fsync(descriptor)
        except OSError as exc:
            path.unlink()
            if exc.errno not in CANNOT:
                raise
            return False
        finally:
            os.close(descriptor)
    return True


def share(source: Path, path: Path) -> Shared:
    """Let `path` hold what `source` holds, which must not change any more; it must be new.

    :raises VolumeError: it cannot be made; nothing stays behind
    """
    with explained(f"{path} cannot be made from {source}"):
        if copy(source, path):
            return Shared.BLOCKS
        path.hardlink_to(source)
        return Shared.FILE
