"""Unpacks the archive of a disk image into a read-only subvolume, whole or not at all.

What kind of archive it is comes from its first bytes, not from its name. Owners are kept as numbers;
members that would leave the target are refused by tar.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from appliance import proc
from appliance.clock import SystemClock, Timers
from appliance.errors import ImageError, ToolError, VolumeError
from appliance.model import DiId
from appliance.storage import btrfs, openat, subvolumes
from appliance.storage.paths import Paths
from appliance.threads import in_thread

Progress = Callable[[float], None]
"""Told now and then how much of the archive has been read, from 0 to 1."""

UNPACK_S = 3600.0
LOOK_S = 0.25

MAGIC = (
    (0, b"\x1f\x8b", "--gzip"),
    (0, b"BZh", "--bzip2"),
    (0, b"\xfd7zXZ\x00", "--xz"),
    (0, b"\x28\xb5\x2f\xfd", "--zstd"),
    (257, b"ustar", ""),
)
TAR = ("tar", "--extract", "--numeric-owner", "--preserve-permissions", "--delay-directory-restore")
DECORATION = re.compile(r"^(.*stdin[^:]*: *|tar: )")
"""What tar and its decompressors say before what is wrong."""
ATTRIBUTES = ("--xattrs", "--xattrs-include=security.capability")


def compression(head: bytes) -> str:
    """The option by which tar reads an archive that begins like this; empty for a plain one.

    :raises ImageError: it is no archive that we know
    """
    for offset, magic, option in MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return option
    raise ImageError(
        "it is not a tar archive, plain or compressed with gzip, bzip2, xz or zstd",
    )


async def import_di(
    paths: Paths, di_id: DiId, archive: Path, progress: Progress, *, timers: Timers | None = None
) -> None:
    """Unpack an archive as `basefs/<di id>`; done already, it does nothing.

    :raises ImageError: the archive is damaged, or what it holds is no root of a container
    :raises VolumeError: the pool is full
    """
    base = paths.basefs(di_id)
    if await asyncio.to_thread(base.exists):
        return
    fresh = base.with_name(f".{di_id}.unpacking")
    await in_thread(btrfs.delete, fresh)
    await in_thread(subvolumes.create, fresh)
    try:
        name = archive.name.removeprefix(f"{di_id}-")
        await _unpack(archive, name, fresh, progress, timers or SystemClock())
        await in_thread(_finish, name, fresh, base)
    except BaseException:
        with suppress(VolumeError):
            btrfs.delete(fresh)
        raise


async def _unpack(archive: Path, name: str, target: Path, progress: Progress, timers: Timers) -> None:
    try:
        source = os.open(archive, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise ImageError(f"the archive {archive} cannot be read: {exc.strerror}") from exc
    try:
        try:
            option = compression(os.pread(source, 512, 0))
        except ImageError as exc:
            raise ImageError(f"the archive {name} is unusable: {exc}") from exc
        words = [*TAR, *ATTRIBUTES, *([option] if option else []), "--directory", str(target), "--file", "-"]
        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(_report(source, progress, timers), name=f"progress {name}")
            try:
                await proc.run(words, stdin=source, timeout_s=UNPACK_S)
            except ToolError as exc:
                failure: Exception | None = _failure(name, exc)
            else:
                failure = None
            watcher.cancel()
    finally:
        os.close(source)
    if failure:
        raise failure
    progress(1.0)


async def _report(source: int, progress: Progress, timers: Timers) -> None:
    """Our descriptor and tar's share one position, so it shows how far tar has read."""
    size = max(1, os.fstat(source).st_size)
    while True:
        progress(os.lseek(source, 0, os.SEEK_CUR) / size)
        await timers.sleep(LOOK_S)


def _failure(name: str, exc: ToolError) -> Exception:
    lines = [line.strip() for line in exc.stderr.splitlines()]
    said = [line for line in lines if line and "Exiting with failure" not in line]
    if any("No space left" in line or "quota exceeded" in line for line in said):
        return VolumeError(
            f"the storage pool is full: {name} does not fit",
            hint="delete old images or enlarge the pool",
        )
    reason = next((line for line in said if not line.startswith("tar: Child")), exc.message)
    return ImageError(
        f"the archive {name} is damaged: {DECORATION.sub('', reason)}", hint="copy or build it again"
    )


def _finish(name: str, fresh: Path, base: Path) -> None:
    try:
        openat.resolved(fresh, "/sbin/init")
    except OSError as exc:
        if (fresh / "rootfs").is_dir():
            raise ImageError(
                f"the archive {name} holds a root inside rootfs/ (an extended image)",
                hint="pack the contents of rootfs/ alone: tar -C rootfs -c .",
            ) from exc
        raise ImageError(f"the archive {name} holds no root: there is no /sbin/init") from exc
    try:
        subvolumes.seal(fresh)
        fresh.rename(base)
    except OSError as exc:
        raise VolumeError(f"{base} cannot be put in place: {exc.strerror}") from exc
