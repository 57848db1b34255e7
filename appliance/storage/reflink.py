"""A second name for what a file holds, without a second time its room."""

from __future__ import annotations

import errno
import fcntl
import os
from enum import StrEnum
from pathlib import Path

from appliance.storage.volumes import explained

FICLONE = 0x40049409
NEVER = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EXDEV})
"""How a file system says that it shares no blocks."""


class Shared(StrEnum):
    """How two files share what they hold."""

    BLOCKS = "blocks"
    """Each is a file of its own; btrfs and XFS can."""
    FILE = "file"
    """They are one file with two names: for what nobody ever writes again."""


def share(source: Path, path: Path) -> Shared:
    """Let `path` hold what `source` holds, which must not change any more; it must be new.

    :raises VolumeError: it cannot be made; nothing stays behind
    """
    with explained(f"{path} cannot be made from {source}"):
        if _clone(source, path):
            return Shared.BLOCKS
        path.hardlink_to(source)
        return Shared.FILE


def _clone(source: Path, path: Path) -> bool:
    with source.open("rb") as reader:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.ioctl(descriptor, FICLONE, reader.fileno())
            os.fsync(descriptor)
        except OSError as exc:
            path.unlink()
            if exc.errno in NEVER:
                return False
            raise
        finally:
            os.close(descriptor)
    return True
