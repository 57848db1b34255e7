"""Roots and homes as they lie on the pool: subvolumes of containers, files of virtual machines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance.errors import PoolFullError, VolumeError


def delete(path: Path) -> None:
    """Delete a subvolume with those inside it, or a file, if it is there.

    :raises VolumeError: it cannot be deleted
    """
    with explained(f"{path} cannot be deleted"):
        if path.is_file() and not path.is_symlink():
            path.unlink(missing_ok=True)
        else:
            from appliance.storage import subvolumes  # qa loads the btrfs library only where it needs it

            subvolumes.delete(path)


@contextmanager
def explained(failure: str) -> Iterator[None]:
    """Tell an `OSError` as a `VolumeError`, in words if the pool is full."""
    try:
        yield
    except OSError as exc:
        number = exc.errno or 0
        if number in PoolFullError.numbers:
            raise PoolFullError.of(failure) from exc
        raise VolumeError(f"{failure}: {os.strerror(number)}") from exc
