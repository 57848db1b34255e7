"""What people do with disk images: add, tag, untag. How images go is in `image_trash`.

An image becomes visible as a row only when its file is in place and unpacked. Until then an
`operations` row and a locked file tell of it; the lock dies with its holder, so whoever comes next
(`sweep_unfinished`) knows what was left behind and removes it.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from appliance.clock import SystemClock, Timers
from appliance.config import IMPORT_MAX_FILES, IMPORT_MAX_SIZE, Settings
from appliance.errors import (
    ApplianceError,
    ConflictError,
    ImageError,
    NotFoundError,
    StoreError,
    UsageError,
    VolumeError,
)
from appliance.filters import Filter
from appliance.model import TAG_DEFAULT, TAG_HEAD, BackendKind, Di, DiId, Osf, OsfId
from appliance.ops import expiry, failures
from appliance.ops.image_progress import Report, plan_for, recorded
from appliance.storage import operations, room
from appliance.storage.ageing import NO_LIMITS, Limits
from appliance.storage.image_states import COPIED
from appliance.storage.operations import Kind
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
    (510, b"\x55\xaa", "a raw disk image"),
)
"""What people mistake for a root archive: by offset and first bytes."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What the file of an image holds."""

    sha256: str
    size: int
    """Bytes."""


async def add(
    store: Store,
    settings: Settings,
    osf: Osf,
    source: Path,
    *,
    version: str | None,
    by: str,
    report: Report,
    notes: str | None = None,
    name: str | None = None,
    timers: Timers | None = None,
    limits: Limits = NO_LIMITS,
) -> tuple[Di, int]:
    """Copy an image from `source` to the images, and register it as a new DI of `osf`, under its own `name`.

    An archive is unpacked; the disk of a virtual machine is looked over and stays as it is.

    Its version becomes a fixed tag, `head` moves to it, `default` only if the OSF has none. VMs that follow
    `head` get the limits; returns the DI, and how many they are. Whatever goes wrong, nothing stays behind.

    :raises ImageError: it is no image for this OSF, or damaged
    :raises VolumeError: there is no room for it
    :raises ConflictError: the version is taken, or somebody has cancelled the operation
    """
    paths, name = Paths(settings), name or source.name
    timers = timers or SystemClock()
    await sweep_unfinished(store, paths)
    await asyncio.to_thread(_check_source, source, name, osf, paths, settings[IMPORT_MAX_SIZE])
    async with store.write() as tx:
        if version is not None:
            await check_version(tx, osf.id, version)
        di_id = await free_id(tx, paths, osf.id)
        lock = hold(paths.image_lock(di_id))
        operation = await tx.operations.begin(
            Kind.DI_ADD, di_id, owner=by, pid=os.getpid(), plan=plan_for(osf.id)
        )
    image = paths.image(di_id, name)
    try:
        async with (
            _cancellable(store, operation, timers),
            recorded(store, operation, report, timers) as report,
        ):
            copied = await _copy_in_thread(source, paths.image_part(di_id), report)
            await in_thread(put_in_place, paths.image_part(di_id), image)
            async with store.write() as tx:
                await tx.operations.progress(operation, COPIED)
            await _make_ready(paths, settings, osf, di_id, image, name, report)
        async with store.write() as tx:
            await register(tx, osf.id, di_id, name, copied, version=version, notes=notes, by=by)
            limited = await expiry.stamp_tag(tx, osf.id, TAG_HEAD, di_id, limits, by=by)
            await tx.operations.end(operation, operations.DONE)
            di = await tx.images.get(di_id)
    except BaseException as exc:
        await asyncio.shield(undo(store, paths, di_id, operation, exc))
        raise
    finally:
        release(lock, paths.image_lock(di_id))
    return di, limited


async def free_id(tx: Tx, paths: Paths, osf_id: OsfId) -> DiId:
    """A number for a new image: never given, and without files, as another database may have left them."""
    while True:
        di_id = await tx.images.reserve_id(osf_id)
        if not paths.basefs(di_id).exists() and not any(paths.images.glob(f"{di_id}-*")):
            return di_id


async def sweep_unfinished(store: Store, paths: Paths) -> list[DiId]:
    """Remove what killed `add`s and `delete`s left behind; those under way are left alone.

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
                ended = await tx.operations.has_ended(operation.id)
            if not ended:
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
            if await tx.images.find(Filter.where(id=di_id), trash=True):
                return False
        await erase_files(paths, di_id)
        return True
    finally:
        release(descriptor, lock)


async def tag(tx: Tx, di: Di, name: str, *, by: str, limits: Limits = NO_LIMITS) -> int:
    """Let a tag point at a DI; VMs that follow it boot this DI from their next start.

    Those that run another one get the limits; returns how many. Limits of those that run it are lifted.

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
    was = await tx.images.point(di.osf_id, name, di.id, by=by)
    await images_changed(tx, by=by)
    await tx.log.append(
        by=by,
        what="di tag",
        object=f"osf {di.osf_id} tag {name}"[:128],
        was=None if was is None else f"di {was}",
        now=f"di {di.id}",
    )
    return await expiry.stamp_tag(tx, di.osf_id, name, di.id, limits, by=by)


async def untag(tx: Tx, di: Di, name: str, *, by: str, limits: Limits = NO_LIMITS) -> int:
    """Take a tag from a DI. VMs that follow the tag and run the DI get the limits; returns how many.

    :raises NotFoundError: the DI does not have it
    :raises ConflictError: the tag is fixed
    """
    target = await tx.images.tag_target(di.osf_id, name)
    if target is None or target[0] != di.id:
        raise NotFoundError(f"DI {di.id} has no tag {name!r}", hint=f"it has {', '.join(di.tags) or 'none'}")
    if target[1]:
        raise ConflictError(f"the tag {name} is fixed at DI {di.id}", hint="it goes when the DI is deleted")
    await tx.images.point(di.osf_id, name, None, by=by)
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
    osf_id: OsfId,
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
        version = next_version(tx.at.astimezone().date(), await tx.images.taken_names(osf_id))
    else:
        await check_version(tx, osf_id, version)
    await tx.images.add(
        di_id,
        osf_id,
        version=version,
        path=image_name(di_id, name),
        sha256=copied.sha256,
        size_bytes=copied.size,
        notes=notes,
    )
    await tx.images.point(osf_id, version, di_id, by=by, fixed=True)
    await tx.images.point(osf_id, TAG_HEAD, di_id, by=by)
    if await tx.images.tag_target(osf_id, TAG_DEFAULT) is None:
        await tx.images.point(osf_id, TAG_DEFAULT, di_id, by=by)
    await images_changed(tx, by=by)
    await tx.log.append(by=by, what="di add", object=f"di {di_id}", now=f"{version} sha256 {copied.sha256}")
    return version


def _check_source(source: Path, name: str, osf: Osf, paths: Paths, largest: int) -> None:
    try:
        with source.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
    except OSError as exc:
        raise ImageError(f"{exc.filename} cannot be read: {exc.strerror}") from exc
    if osf.backend is BackendKind.KVM:
        from appliance.storage import disk_image

        disk_image.judge(source, name, largest=largest)
    if osf.backend is BackendKind.LXC:
        sniff(head, name)
    if not image_name(DiId(0), name).isprintable():
        raise ImageError(f"the name {name!r} cannot be kept", hint="rename the file")
    try:
        bases = paths.all_basefs if osf.backend is BackendKind.LXC else None
        room.check(source, name, images=paths.images, bases=bases)
    except OSError as exc:
        raise VolumeError(f"{exc.filename} cannot be used: {exc.strerror}", hint="run qa admin init") from exc


async def _copy_in_thread(source: Path, part: Path, report: Report) -> Copied:
    stop = threading.Event()
    work = asyncio.ensure_future(asyncio.to_thread(_copy, source, part, report, stop))
    try:
        return await asyncio.shield(work)
    finally:
        stop.set()
        await asyncio.wait([work])


def _copy(source: Path, part: Path, report: Report, stop: threading.Event) -> Copied:
    digest = hashlib.sha256()
    copied = 0
    try:
        with source.open("rb") as reader, part.open("wb") as writer:
            size = max(1, os.fstat(reader.fileno()).st_size)
            while (chunk := reader.read(CHUNK)) and not stop.is_set():
                digest.update(chunk)
                if chunk == ZEROES:  # a raw disk is mostly holes
                    writer.seek(len(chunk), os.SEEK_CUR)
                else:
                    writer.write(chunk)
                copied += len(chunk)
                report("copying", min(1.0, copied / size))
            writer.truncate(copied)
            writer.flush()
            os.fsync(writer.fileno())
    except OSError as exc:
        raise VolumeError(f"{source} cannot be copied to {part.parent}: {exc.strerror}") from exc
    return Copied(digest.hexdigest(), copied)


def put_in_place(part: Path, image: Path) -> None:
    """Give a file that is whole, and may not change any more, its name.

    :raises VolumeError: it cannot be
    """
    try:
        part.chmod(0o400)
        part.rename(image)
        directory = os.open(image.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as exc:
        raise VolumeError(f"{image} cannot be put in place: {exc.strerror}") from exc


async def _make_ready(
    paths: Paths, settings: Settings, osf: Osf, di_id: DiId, image: Path, name: str, report: Report
) -> None:
    """Unpack an archive, or look a disk over, as it is now that nobody else can change it."""
    if osf.backend is BackendKind.LXC:
        from appliance.storage.importer import Limits, import_di

        limits = Limits(settings[IMPORT_MAX_SIZE], settings[IMPORT_MAX_FILES])
        await import_di(paths, di_id, image, lambda share: report("unpacking", share), limits=limits)
    elif osf.backend is BackendKind.KVM:
        from appliance.storage.disk_image import inspect

        report("checking", 0.0)
        await inspect(image, name, largest=settings[IMPORT_MAX_SIZE])
        report("checking", 1.0)


@asynccontextmanager
async def _cancellable(store: Store, operation: int, timers: Timers) -> AsyncIterator[None]:
    """Give up what is done inside when somebody cancels the operation.

    :raises ConflictError: somebody has
    """
    work = asyncio.current_task()
    assert work is not None
    wanted = False

    async def watch() -> None:
        nonlocal wanted
        while not wanted:
            await timers.sleep(CANCEL_LOOK_S)
            with suppress(StoreError):
                async with store.read() as tx:
                    wanted = await tx.operations.wanted_cancelled(operation)
        work.cancel()

    watcher = asyncio.ensure_future(watch())
    try:
        yield
    except asyncio.CancelledError:
        if wanted and work.uncancel() == 0:
            raise ConflictError("the import was cancelled", hint="nothing of it is left") from None
        raise
    finally:
        watcher.cancel()
        await asyncio.wait([watcher])


async def undo(store: Store, paths: Paths, di_id: DiId, operation: int, cause: BaseException) -> None:
    """Remove what work that failed has made of an image, and say how the work ended."""
    try:
        await erase_files(paths, di_id)
        async with store.write() as tx:
            await tx.operations.end(operation, str(cause) or type(cause).__name__)
    except (ApplianceError, OSError) as exc:
        cause.add_note(f"and DI {di_id} was not cleaned up: {exc}; the next di add tries again")


async def erase_files(paths: Paths, di_id: DiId) -> None:
    """Remove everything that belongs to a DI that has no row, whatever there is of it."""
    if paths.all_basefs.is_dir() and any(paths.all_basefs.glob(f"*{di_id}*")):
        from appliance.storage.btrfs import erase_di

        await erase_di(paths, di_id)
    for left in (paths.image_part(di_id), *paths.images.glob(f"{di_id}-*")):
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
