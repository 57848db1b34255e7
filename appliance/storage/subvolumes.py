"""Subvolumes, made whole or not at all: the one place where the btrfs library is called.

It answers questions. What waits for the disk goes by `btrfs_calls`, which lets other threads go on.
"""

from __future__ import annotations

import errno
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import btrfsutil

from appliance.model import Mark
from appliance.storage import btrfs_calls, marks


def create(path: Path, mark: Mark | None = None, *, group: int | None = None) -> None:
    """Make an empty subvolume at `path`, marked as somebody's, in a quota group if one is given.

    :raises OSError: it cannot be made; nothing stays behind
    """
    _make(path, lambda fresh: btrfs_calls.create(fresh, group=group), mark)


def snapshot(source: Path, path: Path, mark: Mark | None, *, group: int | None = None) -> None:
    """Make a writable copy of `source` at `path`, marked as somebody's, if it is somebody's.

    A copy of a subvolume that is in a quota group must enter the same `group`, or the pool loses count.

    :raises OSError: it cannot be made; nothing stays behind
    """
    _make(path, lambda fresh: btrfs_calls.snapshot(source, fresh, group=group), mark)


def preserve(source: Path, path: Path, *, group: int | None = None) -> None:
    """Make a read-only copy of `source` at `path`, all at once; it has the mark of `source`.

    Subvolumes that somebody made in `source` are empty directories in the copy. The `group` as in `snapshot`.

    :raises OSError: it cannot be made
    """
    btrfs_calls.snapshot(source, path, group=group, read_only=True)


def replace(path: Path, source: Path, change: Callable[[Path], object], *, group: int | None = None) -> None:
    """Let a writable copy of `source`, to which `change` is done, be at `path`, and delete what was there.

    Whoever looks finds the old one or the new one. Killed, this leaves one of them under a temporary name.

    :raises OSError: it cannot be done; the old one is still there
    """
    fresh = _temporary(path)
    try:
        btrfs_calls.snapshot(source, fresh, group=group)
        change(fresh)
        if path.exists():
            btrfs_calls.exchange(fresh, path)
        else:
            fresh.rename(path)
        btrfs_calls.sync(path)
    finally:
        with suppress(OSError):
            delete(fresh)


def is_as_in(path: Path, copy: Path) -> bool:
    """Whether nothing has changed in a subvolume since `copy` was made of it; waits for a commit.

    :raises OSError: one of them is none
    """
    commit(path)
    now, then = btrfsutil.subvolume_info(str(path)), btrfsutil.subvolume_info(str(copy))
    return bool(then.parent_uuid == now.uuid and now.generation <= then.otransid)


def has_inner(path: Path) -> bool:
    """Whether somebody has made subvolumes inside a subvolume.

    :raises OSError: it cannot be looked at
    """
    with btrfsutil.SubvolumeIterator(str(path)) as inner:
        return any(True for _ in inner)


def seal(path: Path) -> None:
    """Make a subvolume read-only.

    :raises OSError: it cannot be
    """
    btrfsutil.set_subvolume_read_only(str(path), True)


def delete(path: Path) -> None:
    """Delete a subvolume and those inside it, if it is there.

    :raises OSError: it cannot be deleted
    """
    if not path.is_symlink() and not path.exists():
        return
    try:
        btrfs_calls.destroy(path)
    except OSError as exc:
        if exc.errno != errno.ENOTEMPTY:
            raise
        with btrfsutil.SubvolumeIterator(str(path), post_order=True) as inner:
            names = [name for name, _ in inner]
        for name in names:
            btrfs_calls.destroy(path / name)
        btrfs_calls.destroy(path)


def is_top(path: Path) -> bool:
    """Whether `path` is a subvolume, and not a file or directory in one."""
    return path.is_dir() and not path.is_symlink() and bool(btrfsutil.is_subvolume(str(path)))


def id_of(path: Path) -> int:
    """The number of the subvolume in which `path` is.

    :raises OSError: it is on no btrfs
    """
    return int(btrfsutil.subvolume_id(str(path)))


def commit(path: Path) -> None:
    """Let everything written to the file system of `path` reach its disk, and be counted.

    :raises OSError: it cannot
    """
    btrfs_calls.sync(path)


def is_btrfs(path: Path) -> bool:
    """Whether a path is on a btrfs file system."""
    try:
        btrfsutil.subvolume_id(str(path))
    except OSError:
        return False
    return True


def _make(path: Path, make: Callable[[Path], object], mark: Mark | None) -> None:
    """Make a subvolume in a temporary place, mark it, and only then give it its name."""
    fresh = _temporary(path)
    try:
        make(fresh)
        fresh.chmod(0o755)
        if mark is not None:
            marks.set_mark(fresh, mark)
        fresh.rename(path)
    except BaseException:
        with suppress(OSError):
            delete(fresh)
        raise


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
