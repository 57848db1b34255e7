"""Passes a home from one account to another, on disk: its directory and the owner of what is in it.

A home is the guest's: its root may have made anything there, links to wherever included. So nothing is
opened by a path of more than one name, no link is followed, and only what belongs to the old ids changes
hands. All of it may be done again after a crash half-way. The caller holds the lock of the VM's root, so
no guest changes the home meanwhile.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from appliance.errors import ConflictError, VolumeError

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Account:
    """Who somebody is inside a guest."""

    login: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Passed:
    """What `pass_on` did."""

    changed: int
    """How many files have another owner now."""
    kept: int
    """How many could not change hands, as they are in a read-only snapshot that the user made."""


def check_free(home: Path, old: Account, new: Account) -> None:
    """Whether the home of `old` can become that of `new`.

    :raises ConflictError: both have something there
    """
    if old.login != new.login and _lexists(home / old.login) and _lexists(home / new.login):
        raise ConflictError(
            f"{home} holds both {old.login} and {new.login}",
            hint="move the latter away, or merge them by hand",
        )


def pass_on(home: Path, old: Account, new: Account) -> Passed:
    """Make the home of `old` in the volume `home` that of `new`; done already, nothing changes.

    :raises ConflictError: both have something there
    :raises VolumeError: it cannot be done; done again it goes on where it stopped
    """
    check_free(home, old, new)
    with _explained(home):
        passed = Passed(0, 0)
        if (old.uid, old.gid) != (new.uid, new.gid):
            passed = _change_owner(home, old, new)
        if old.login != new.login and _lexists(home / old.login):
            (home / old.login).rename(home / new.login)
        _sync(home)
    return passed


def _change_owner(home: Path, old: Account, new: Account) -> Passed:
    changed = kept = 0
    for folder, name, found in _everything(home):
        uid = new.uid if found.st_uid == old.uid else -1
        gid = new.gid if found.st_gid == old.gid else -1
        if (uid, gid) == (-1, -1):
            continue
        try:
            os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)
        except OSError as exc:
            if exc.errno != errno.EROFS:
                raise
            kept += 1
        else:
            changed += 1
    return Passed(changed, kept)


def _everything(top: Path) -> Iterator[tuple[int, str, os.stat_result]]:
    """Everything below `top`: a descriptor of its directory, its name there, and what it is.

    One descriptor is open at a time, however deep the guest has nested its directories: the way back
    is `..`, and it must lead where we came from.
    """
    folder = os.open(top, FOLDER)
    try:
        above: list[tuple[tuple[int, int], list[str]]] = []
        here = _names(folder)
        while True:
            if here:
                name = here.pop()
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                yield folder, name, found
                if stat.S_ISDIR(found.st_mode):
                    inner = os.open(name, FOLDER, dir_fd=folder)
                    above.append((_identity(folder), here))
                    folder, before = inner, folder
                    os.close(before)
                    here = _names(folder)
            elif above:
                came_from, here = above.pop()
                outer = os.open("..", FOLDER, dir_fd=folder)
                folder, before = outer, folder
                os.close(before)
                if _identity(folder) != came_from:
                    raise VolumeError(f"directories below {top} are being moved", hint="try again")
            else:
                return
    finally:
        os.close(folder)


def _names(folder: int) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def _lexists(path: Path) -> bool:
    return path.is_symlink() or path.exists()


def _sync(home: Path) -> None:
    descriptor = os.open(home, FOLDER)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _explained(home: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise VolumeError(
            f"the home {home} cannot change hands: {exc.strerror}", hint="mend that and give the same command"
        ) from exc
