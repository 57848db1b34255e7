"""The lock of a VM's root: who holds it may do to root and home what no guest may see being done.

A guest's keeper holds it for as long as anything of the guest lives (ADR 3); otherwise it is free.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from appliance.errors import BackendError


class HeldError(BackendError):
    """Somebody else holds the lock."""


@contextmanager
def locked(lock: Path) -> Iterator[int]:
    """Hold the lock of a root; whoever inherits the descriptor goes on holding it.

    :raises HeldError: a guest runs on that root
    :raises BackendError: the lock cannot be opened
    """
    while True:
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as exc:
            raise BackendError(f"cannot open the lock {lock}: {exc.strerror}") from exc
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                raise HeldError(
                    f"a guest already runs on the root that {lock} guards", hint="stop it first"
                ) from exc
            if _is_still(lock, descriptor):
                yield descriptor
                return
        finally:
            os.close(descriptor)


def is_locked(lock: Path) -> bool:
    """Whether a guest, or somebody about to start one, holds the root."""
    try:
        with locked(lock):
            return False
    except BackendError:
        return True


def _is_still(lock: Path, descriptor: int) -> bool:
    with suppress(FileNotFoundError):
        return lock.stat().st_ino == os.fstat(descriptor).st_ino
    return False
