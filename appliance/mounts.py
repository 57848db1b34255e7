"""A mount namespace of a thread's own, and of what that thread starts: mount_namespaces(7), mount(2)."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

CLONE_NEWNS = 0x00020000
NOSUID, NODEV, NOEXEC, BIND, REC, SLAVE = 0x2, 0x4, 0x8, 0x1000, 0x4000, 0x80000
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Mount:
    """Something to be seen at a place: a file system of a kind, or with `BIND` what is at a path."""

    what: str | Path
    where: Path
    kind: str = "none"
    flags: int = 0
    options: str = ""


def enter_view(mounts: Iterable[Mount]) -> None:
    """Let the calling thread see the host with these mounts besides, for good; places are made for them.

    What the host mounts or unmounts later is seen as well, and nothing of this is seen by the host.

    :raises OSError: the kernel refuses; the thread had better end
    """
    _checked(_LIBC.unshare(CLONE_NEWNS), "unshare")
    _mount(Mount("none", Path("/"), flags=REC | SLAVE))
    for mount in mounts:
        mount.where.mkdir(exist_ok=True)
        _mount(mount)


def _mount(mount: Mount) -> None:
    words = (os.fsencode(word) for word in (mount.what, mount.where, mount.kind))
    flags = ctypes.c_ulong(mount.flags)
    _checked(_LIBC.mount(*words, flags, mount.options.encode()), str(mount.where))


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
