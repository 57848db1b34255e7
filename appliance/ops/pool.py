"""The btrfs pool: a file system in a file, for hosts whose storage is on none."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from appliance import config, proc
from appliance.config import Settings
from appliance.errors import ConfigError, HostError, ToolError, VolumeError
from appliance.storage.subvolumes import is_btrfs

SIZE = re.compile(r"(\d+)([KMGT]?)", re.IGNORECASE)
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
SMALLEST = 256 * 2**20
"""What mkfs.btrfs needs for a pool worth the name."""
BTRFS_MAGIC = (0x10040, b"_BHRfS_M")


def is_needed(settings: Settings) -> bool:
    """Whether `path.storage.root` is on no btrfs, so that a pool must be mounted there."""
    existing = settings[config.PATH_STORAGE_ROOT]
    while not existing.exists():
        existing = existing.parent
    return not is_btrfs(existing)


def describe(settings: Settings) -> str:
    """What `make` would do, for the question before it."""
    file, root = settings[config.POOL_FILE], settings[config.PATH_STORAGE_ROOT]
    if file.exists():
        return f"mount the btrfs pool {file} at {root}"
    return f"make a btrfs pool of {settings[config.POOL_SIZE]} in {file} and mount it at {root}"


async def make(settings: Settings) -> None:
    """Make the pool unless it is there already, and mount it at `path.storage.root`.

    :raises VolumeError: a file or directory in its place would be lost or hidden
    :raises HostError: it cannot be made or mounted
    """
    file, root = settings[config.POOL_FILE], settings[config.PATH_STORAGE_ROOT]
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if next(root.iterdir(), None) is not None:
        raise VolumeError(
            f"{root} is not empty, and a pool mounted there would hide what it holds",
            hint="move it away, or mount a btrfs file system there yourself",
        )
    made = not file.exists()
    if made:
        await _format(file, size_bytes(settings))
    elif not _holds_btrfs(file):
        raise VolumeError(f"{file} holds no btrfs file system", hint="move it away, or set storage.pool.file")
    try:
        await proc.run(["mount", "-o", "loop,noatime", file, root])
    except ToolError as exc:
        if made:
            _discard(file)
        raise HostError(f"the pool {file} cannot be mounted at {root}: {exc}") from exc


def size_bytes(settings: Settings) -> int:
    """`storage.pool.size` in bytes.

    :raises ConfigError: it is no size, or too small
    """
    text = settings[config.POOL_SIZE]
    match = SIZE.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"storage.pool.size = {text} is no size", hint="write 20G, for instance")
    size = int(match.group(1)) * UNITS[match.group(2).upper()]
    if size < SMALLEST:
        raise ConfigError(f"storage.pool.size = {text} is too small", hint=f"{SMALLEST // 2**20}M or more")
    return size


async def _format(file: Path, size: int) -> None:
    """Make the pool beside its place; it gets its name when it is whole."""
    fresh = file.with_name(f"{file.name}.new")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh.unlink(missing_ok=True)
        free = shutil.disk_usage(file.parent).free
        if free < size:
            raise HostError(
                f"a pool of {size >> 20} MiB does not fit: {file.parent} has {free >> 20} MiB free",
                hint="free some, or set storage.pool.size or storage.pool.file",
            )
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise HostError(f"the pool {file} cannot be made: {exc.strerror}") from exc
    try:
        os.ftruncate(descriptor, size)
        await proc.run(["mkfs.btrfs", "--quiet", "--label", "qvd", fresh])
        fresh.rename(file)
    except BaseException as exc:
        _discard(fresh)
        if isinstance(exc, OSError):
            raise HostError(f"the pool {file} cannot be made: {exc.strerror}") from exc
        raise
    finally:
        os.close(descriptor)


def _discard(file: Path) -> None:
    file.unlink(missing_ok=True)


def _holds_btrfs(file: Path) -> bool:
    offset, magic = BTRFS_MAGIC
    with file.open("rb") as stream:
        stream.seek(offset)
        return stream.read(len(magic)) == magic
