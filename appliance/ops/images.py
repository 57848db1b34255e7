"""What people do with disk images: add, tag, untag. How images go is in `image_trash`.

An image becomes visible as a row only when its file is in place and unpacked. Until then an
`operations` row and a locked file tell of it; the lock dies with its holder, so whoever comes next
(`sweep_unfinished`) knows what was left behind and removes it. Only the copy of a killed import stays for a
day, its row with it (`image_part`).
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from datetime import date
from pathlib import Path

from appliance.config import Settings
from appliance.errors import (
    ApplianceError,
    ConflictError,
    ImageError,
    NotFoundError,
    UsageError,
    VolumeError,
)
from appliance.filters import Filter
from appliance.model import TAG_DEFAULT, TAG_HEAD, Di, DiId, HookEvent, Osf, OsfId
from appliance.ops import expiry, failures, image_part, notices
from appliance.storage import operations, room
from appliance.storage.ageing import NO_LIMITS, Limits
from appliance.storage.intake import Copied
from appliance.storage.paths import Paths, image_name
from appliance.storage.store import Store, Tx
from appliance.threads import in_thread

CHUNK = 1024 * 1024
ZEROES = bytes(CHUNK)
CANCEL_LOOK_S = 0.5
VERSIONS_A_DAY = 1000
HEAD_BYTES = 512

FOREIGN = (
    (0, b"QFI\xfb", "a qcow2 image for virtual machines"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"hsqs", "a squashfs image"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"!<arch>\n", "an ar archive or a Debian package"),
    (0, b"KDMV", "a VMDK image"),
    (0, b"vhdxfile", "a VHDX image"),
    (64, b"\x7f\x10\xda\xbe", "a VDI image"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (0, b"070701", "a cpio archive"),
    (0, b"\x04\x22\x4d\x18", "compressed with lz4"),
    (0, b"LZIP", "compressed with lzip"),
    (510, b"\x55\xaa", "a raw disk image"),
)
"""What people mistake for a root archive: by offset and first bytes."""


async def free_id(tx: Tx, paths: Paths, osf_id: OsfId) -> DiId:
    """A number for a new image: never given, and without files, as another database may have left them."""
    while True:
        di_id = await tx.images.reserve_id(osf_id)
        if not paths.basefs(di_id).exists() and not any(paths.images.glob(f"{di_id}-*")):
            return di_id


async def sweep_unfinished(store: Store, paths: Paths) -> list[DiId]:
    """Remove what killed `add`s and `delete`s left behind; those under way are left alone.

    The copy of a killed `add` stays for a day, with its row, unless it was cancelled or its file changed.

    :raises VolumeError: something cannot be removed
    """
    async with store.read() as tx:
        found = await tx.operations.unfinished(*operations.ON_IMAGES)
    swept = []
    for operation in found:
        di_id = DiId(operation.object_id)
        lock = paths.image_lock(di_id)
        try:
            descriptor = hold(lock)
        except BlockingIOError:
            continue
        try:
            async with store.read() as tx:
                ended, now = await tx.operations.has_ended(operation.id), tx.at
            waits = not ended and await in_thread(image_part.waits, paths, operation, now)
            if waits:
                await erase_files(paths, di_id, but=paths.image_part(di_id))
                async with store.write() as tx:
                    await tx.operations.progress(
                        operation.id, await in_thread(image_part.share, paths, operation)
                    )
            elif not ended:
                await erase_files(paths, di_id)
                async with store.write() as tx:
                    await tx.operations.end(operation.id, operations.KILLED)
                swept.append(di_id)
        finally:
            release(descriptor, lock)
    await _drop_idle_locks(store, paths)
    return swept


async def sweep_stray(store: Store, paths: Paths, di_id: DiId) -> bool:
    """Remove the files of an image that has no row, unless somebody is at work on it; whether they are gone.

    :raises VolumeError: they cannot be removed
    """
    lock = paths.image_lock(di_id)
    try:
        descriptor = hold(lock)
    except BlockingIOError:
        return False
    try:
        async with store.read() as tx:
            unfinished = await tx.operations.unfinished(*operations.ON_IMAGES)
            known = await tx.images.find(Filter.where(id=di_id), trash=True)
            if known or di_id in {one.object_id for one in unfinished}:
                return False
        await erase_files(paths, di_id)
        return True
    finally:
        release(descriptor, lock)


async def tag(
    tx: Tx, di: Di, name: str, *, by: str, limits: Limits = NO_LIMITS, undoes: int | None = None
) -> int:
    """Let a tag point at a DI; VMs that follow it boot this DI from their next start.

    Those that run another one get the limits; returns how many. Limits of those that run it are lifted.
    `undoes` is the earlier move that this one takes back.

    :raises ConflictError: the tag is fixed within the OSF, or the DI is blocked
    """
    checked_tag(name)
    if di.blocked:
        raise ConflictError(
            f"DI {di.id} is blocked, and what follows {name} could not start",
            hint=f"qa di unblock -f id={di.id}",
        )
    if (gone := await tx.images.version_in_trash(di.osf_id, name)) is not None:
        raise ConflictError(
            f"the tag {name} is the version of DI {gone}, which is in the trash",
            hint=f"qa di undelete -f id={gone}, or qa di purge -f id={gone}",
        )
    target = await tx.images.tag_target(di.osf_id, name)
    if target is not None and target[1]:
        raise ConflictError(f"the tag {name} of the OSF {di.osf} is fixed at DI {target[0]}")
    was = await move_tag(tx, di.osf_id, di.osf, name, di.id, by=by, undoes=undoes)
    await images_changed(tx, by=by)
    await tx.log.append(
        by=by,
        what="di tag",
        object=f"osf {di.osf_id} tag {name}"[:128],
        was=None if was is None else f"di {was}",
        now=f"di {di.id}",
    )
    return await expiry.stamp_tag(tx, di.osf_id, name, di.id, limits, by=by)


async def move_tag(
    tx: Tx, osf_id: OsfId, osf: str, name: str, di_id: DiId | None, *, by: str, undoes: int | None = None
) -> DiId | None:
    """Let a tag that is free to move point at a DI, or with None at nothing; returns where it pointed before.

    Its history and its hook are told.
    """
    was = await tx.images.point(osf_id, name, di_id, by=by, undoes=undoes)
    await notices.tag_moved(tx, osf_id, osf, name, was, di_id, by=by)
    return was


async def untag(
    tx: Tx, di: Di, name: str, *, by: str, limits: Limits = NO_LIMITS, undoes: int | None = None
) -> int:
    """Take a tag from a DI. VMs that follow the tag and run the DI get the limits; returns how many.

    `undoes` is the earlier move that this one takes back.

    :raises NotFoundError: the DI does not have it
    :raises ConflictError: the tag is fixed
    """
    target = await tx.images.tag_target(di.osf_id, name)
    if target is None or target[0] != di.id:
        raise NotFoundError(f"DI {di.id} has no tag {name!r}", hint=f"it has {', '.join(di.tags) or 'none'}")
    if target[1]:
        raise ConflictError(f"the tag {name} is fixed at DI {di.id}", hint="it goes when the DI is deleted")
    await move_tag(tx, di.osf_id, di.osf, name, None, by=by, undoes=undoes)
    await images_changed(tx, by=by)
    await tx.log.append(by=by, what="di untag", object=f"osf {di.osf_id} tag {name}"[:128], was=f"di {di.id}")
    return await expiry.stamp_untagged(tx, di.osf_id, name, di.id, limits, by=by)


def source_file(settings: Settings, path: str) -> Path:
    """The file that `path=` names: absolute, or in the staging directory, or where we are.

    :raises NotFoundError: there is none
    """
    staging = Paths(settings).staging
    candidates = [staging / path, Path.cwd() / path]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise NotFoundError(f"there is no file {path}", hint=f"put it into {staging}, or give its full path")


def sniff(head: bytes, name: str) -> None:
    """Refuse, by its first bytes, what is no archive of a root.

    :raises ImageError: saying what it seems to be
    """
    for offset, magic, kind in FOREIGN:
        if head[offset : offset + len(magic)] == magic:
            raise ImageError(
                f"{name} is {kind}, and containers boot from a tar archive of their root",
                hint="plain, or compressed with gzip, bzip2, xz or zstd",
            )
    try:
        room.compression(head)
    except ImageError as exc:
        raise ImageError(f"{name} is unusable: {exc.message}") from exc


def checked_tag(name: str) -> str:
    """A name as it can be a tag or a version.

    :raises UsageError: it cannot
    """
    if not name.strip() or name != name.strip() or len(name) > 64 or "," in name or not name.isprintable():
        raise UsageError(
            f"{name!r} cannot be a tag or version", hint="1 to 64 printable characters without a comma"
        )
    return name


def next_version(today: date, taken: set[str]) -> str:
    """The first free version of a day: YYYY-MM-DD-NNN.

    :raises ConflictError: all of them are taken
    """
    for number in range(VERSIONS_A_DAY):
        version = f"{today:%Y-%m-%d}-{number:03}"
        if version not in taken:
            return version
    raise ConflictError(f"all {VERSIONS_A_DAY} versions of {today} are taken", hint="give version=")


async def images_changed(tx: Tx, *, by: str) -> None:
    """Tags have moved: end what was held against images, and limits, that are about others now."""
    await failures.images_changed(tx, by=by)
    await expiry.settle(tx, by=by)


async def check_version(tx: Tx, osf_id: OsfId, version: str) -> None:
    """Whether a new image of an OSF may have this version.

    :raises UsageError: it is no version
    :raises ConflictError: the OSF has it, as version or tag, if only in the trash
    """
    checked_tag(version)
    if version in (TAG_DEFAULT, TAG_HEAD):
        raise UsageError(f"version={version}: {version} is a tag that moves, and cannot be a version")
    if version in await tx.images.taken_names(osf_id):
        raise ConflictError(f"version={version}: the OSF has a version or tag of this name")


async def register(
    tx: Tx,
    osf: Osf,
    di_id: DiId,
    name: str,
    copied: Copied,
    *,
    version: str | None,
    notes: str | None,
    by: str,
) -> str:
    """Give an image that is whole its row and its tags; returns its version.

    :raises ConflictError: the version is taken
    """
    if version is None:
        version = next_version(tx.at.astimezone().date(), await tx.images.taken_names(osf.id))
    else:
        await check_version(tx, osf.id, version)
    path = image_name(di_id, name)
    await tx.images.add(
        di_id,
        osf.id,
        version=version,
        path=path,
        sha256=copied.sha256,
        size_bytes=copied.size,
        notes=notes,
    )
    await tx.images.point(osf.id, version, di_id, by=by, fixed=True)
    made = {"id": di_id, "version": version, "path": path, "sha256": copied.sha256, "size_bytes": copied.size}
    ready = {"by": by, "osf": {"id": osf.id, "name": osf.name}, "di": made}
    await notices.put(tx, HookEvent.IMAGE_READY, ready)
    await move_tag(tx, osf.id, osf.name, TAG_HEAD, di_id, by=by)
    if await tx.images.tag_target(osf.id, TAG_DEFAULT) is None:
        await move_tag(tx, osf.id, osf.name, TAG_DEFAULT, di_id, by=by)
    await images_changed(tx, by=by)
    await tx.log.append(by=by, what="di add", object=f"di {di_id}", now=f"{version} sha256 {copied.sha256}")
    return version


async def undo(store: Store, paths: Paths, di_id: DiId, operation: int, cause: BaseException) -> None:
    """Remove what work that failed has made of an image, and say how the work ended."""
    try:
        await erase_files(paths, di_id)
        async with store.write() as tx:
            await tx.operations.end(operation, str(cause) or type(cause).__name__)
    except (ApplianceError, OSError) as exc:
        cause.add_note(f"and DI {di_id} was not cleaned up: {exc}; the next di add tries again")


async def erase_files(paths: Paths, di_id: DiId, *, but: Path | None = None) -> None:
    """Remove everything that belongs to a DI that has no row, whatever there is of it, but one file."""
    if paths.all_basefs.is_dir() and any(paths.all_basefs.glob(f"*{di_id}*")):
        from appliance.storage.btrfs import erase_di

        await erase_di(paths, di_id)
    for left in {paths.image_part(di_id), *paths.images.glob(f"{di_id}-*")} - {but}:
        try:
            left.unlink(missing_ok=True)
        except OSError as exc:
            raise VolumeError(f"{left} cannot be removed: {exc.strerror}", hint="remove it by hand") from exc


def hold(lock: Path) -> int:
    """Take the lock of a DI.

    :raises BlockingIOError: another process has it
    :raises VolumeError: it cannot be made
    """
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise VolumeError(
            f"{lock.parent} cannot be written: {exc.strerror}", hint="run qa admin init as root"
        ) from exc
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


async def _drop_idle_locks(store: Store, paths: Paths) -> None:
    """Remove the locks of those who were killed before the row of their work was there, or after its end."""
    pattern = paths.image_lock(DiId(0)).name.replace("0", "*")
    if any(paths.images.glob(pattern)):
        async with store.write():  # in which everybody takes theirs
            for lock in paths.images.glob(pattern):
                with suppress(BlockingIOError):
                    release(hold(lock), lock)


def release(descriptor: int, lock: Path) -> None:
    """Give the lock of a DI back."""
    lock.unlink(missing_ok=True)
    os.close(descriptor)
