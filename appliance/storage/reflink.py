"""Copies of files that share their blocks until one of the two is changed, where the file system can."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

CLONE = 0x40049409
"""FICLONE of linux/fs.h."""
CANNOT = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS})
"""How a file system says that it cannot, or not between these two."""


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
        except OSError as exc:
            path.unlink()
            if exc.errno not in CANNOT:
                raise
            return False
        finally:
            os.close(descriptor)
    return True
