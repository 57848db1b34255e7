"""Files without a name until they are whole: nothing stays of one that is given up.

Where a file system has none, they have a hidden name meanwhile, which stays if the writer is killed.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NEVER = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL})
"""How a file system says that each of its files has a name."""


@contextmanager
def unnamed(folder: Path) -> Iterator[int]:
    """A new file in `folder` that nobody can find; gone with its descriptor, unless it was given a name.

    :raises OSError: it cannot be made
    """
    hidden = None
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        if exc.errno not in NEVER:
            raise
        hidden = folder / f".{uuid.uuid4().hex}.part"
        descriptor = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
        if hidden is not None:
            hidden.unlink(missing_ok=True)


def path_of(descriptor: int) -> Path:
    """A path by which this process can open the file again."""
    return Path(f"/proc/self/fd/{descriptor}")


def give_name(descriptor: int, path: Path) -> None:
    """Let the file that is whole appear at `path`, on the disk when this returns.

    :raises FileExistsError: something is there already
    :raises OSError: it cannot be
    """
    os.fsync(descriptor)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Without a descriptor of a folder, `os.link` would link the link in /proc.
        os.link(path_of(descriptor), path.name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)
    finally:
        os.close(folder)
