"""Lets the user as whom QEMU runs reach the disks of its guests, and nobody else.

libvirtd starts QEMU as a user without rights (`libvirt-qemu` on Debian), and the storage is root's alone.
QEMU's group gets what it needs and no more: to read images, to write roots and homes, to pass through the
directories before them without seeing what else is there. libvirt, which would give the files themselves
away and take them back, is told to leave them (`kvm_domain`): of directories it knows nothing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from appliance.errors import VolumeError
from appliance.storage.paths import Paths
from appliance.storage.volumes import explained

READ, WRITE = stat.S_IRGRP, stat.S_IRGRP | stat.S_IWGRP
ROOT = 0

Owner = tuple[int, int]
"""A user and a group, by number."""


def admit(paths: Paths, owner: Owner, *, reads: Iterable[Path], writes: Iterable[Path]) -> None:
    """Let QEMU's group read some files and write others, and come to all of them.

    :raises VolumeError: a file cannot be given, or a directory that is not ours keeps QEMU out
    """
    if owner[0] == ROOT:
        return
    for files, bits in ((reads, READ), (writes, WRITE)):
        for file in files:
            with explained(f"the disk {file} cannot be given to QEMU"):
                _give(file, owner[1], bits)
                let_through(paths, owner, file)


def let_through(paths: Paths, owner: Owner, path: Path) -> None:
    """Let QEMU pass all directories on the way to a path; those of the storage are opened to its group.

    :raises OSError: a directory cannot be looked at or changed
    :raises VolumeError: one that is not ours keeps it out
    """
    if owner[0] == ROOT:
        return
    for folder in dict.fromkeys((*path.parents, *path.resolve().parents)):
        if _passes(folder.stat(), owner):
            continue
        if not _is_ours(paths, folder):
            raise VolumeError(
                f"QEMU, which runs as user {owner[0]}, may not pass the directory {folder}",
                hint=f"chmod o+x {folder}",
            )
        _give(folder, owner[1], stat.S_IXGRP)


def _is_ours(paths: Paths, folder: Path) -> bool:
    return any(folder.resolve().is_relative_to(place.resolve()) for place in (paths.root, *paths.storage))


def _passes(found: os.stat_result, owner: Owner) -> bool:
    uid, gid = owner
    if found.st_uid == uid:
        return bool(found.st_mode & stat.S_IXUSR)
    if found.st_gid == gid:
        return bool(found.st_mode & stat.S_IXGRP)
    return bool(found.st_mode & stat.S_IXOTH)


def _give(path: Path, gid: int, bits: int) -> None:
    """Give a group exactly these rights, and everybody else none."""
    found = path.stat()
    before = stat.S_IMODE(found.st_mode)
    owners = before & stat.S_IRWXU
    if found.st_gid != gid:
        path.chmod(owners)  # what one group had, the next one has not even for a moment
        os.chown(path, -1, gid)
        before = owners
    if before != owners | bits:
        path.chmod(owners | bits)
