"""What people do with disk images: add, tag, untag, delete.

An image becomes visible as a row only when its file is in place and unpacked. Until then an
`operations` row and a locked file tell of it; the lock dies with its holder, so whoever comes next
(`sweep_unfinished`) knows what was left behind and removes it. Only the copy of a killed import stays for a
day, its row with it: the next import of the very same file goes on with it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import date, datetime, timedelta
from pathlib import Path

from appliance.clock import SystemClock, Timers
from appliance.config import IMPORT_MAX_FILES, IMPORT_MAX_SIZE, VM_OVERLAY_PERSISTENT, Settings
from appliance.errors import (
    ApplianceError,
    ConflictError,
    ImageError,
    NotFoundError,
    StoreError,
    UsageError,
    VolumeError,
    few,
)
from appliance.filters import Filter
from appliance.model import TAG_DEFAULT, TAG_HEAD, BackendKind, Di, DiId, Osf, OsfId
from appliance.ops import failures
from appliance.storage import operations, room
from appliance.storage.intake import Copied, Intake, Origin, put_in_place
from appliance.storage.operations import Kind, Operation
from appliance.storage.paths import Paths, image_name
from appliance.storage.store import Store, Tx
from appliance.threads import in_thread

CANCEL_LOOK_S = 0.5
VERSIONS_A_DAY = 1000
HEAD_BYTES = 512
PART_KEPT = timedelta(days=1)
"""How long the copy of a killed import waits for somebody to go on with it."""

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

Report = Callable[[str, float], None]
"""Told what is being done, and how far it is, from 0 to 1."""


Note = Callable[[str], None]
"""Told what people should know, in a line."""


async def add(
    store: Store,
    settings: Settings,
    osf: Osf,
    source: Path,
    *,
    version: str | None,
    by: str,
    report: Report,
    note: Note = lambda _: None,
    timers: Timers | None = None,
) -> Di:
    """Copy an image from `source` to the images, and register it as a new DI of `osf`.

    An archive is unpacked; the disk of a virtual machine is looked over and stays as it is.

    Its version becomes a fixed tag, `head` moves to it, `default` only if the OSF has none. Whatever
    goes wrong, nothing stays behind. If we are killed, what was copied stays for a day, and the next import
    of this file into this OSF goes on behind it. (Unpacking begins anew: what tar and a decompressor have in
    mind dies with them.)

    :raises ImageError: it is no image for this OSF, damaged, or changes while it is read
    :raises VolumeError: there is no room for it
    :raises ConflictError: the version is taken, or somebody has cancelled the operation
    """
    paths = Paths(settings)
    await sweep_unfinished(store, paths)
    origin = await asyncio.to_thread(_check_source, source, osf, paths, settings[IMPORT_MAX_SIZE])
    async with store.write() as tx:
        if version is not None:
            await _check_version(tx, osf.id, version)
        broken_off = await _broken_off(tx, paths, osf.id, origin)
        if broken_off is None:
            di_id = await free_id(tx, paths, osf.id)
            lock = _hold(paths.image_lock(di_id))
        else:
            di_id, lock = broken_off
            note(f"The import of {source.name} goes on at {_share(paths.image_part(di_id), origin):.0%}.")
        plan = _plan(osf.id, origin)
        operation = await tx.operations.begin(Kind.DI_ADD, di_id, owner=by, pid=os.getpid(), plan=plan)
        previous = await tx.images.newest(osf.id)
    intake = Intake(source, paths.image_part(di_id), origin)
    try:
        async with _cancellable(store, operation, timers or SystemClock()):
            if osf.backend is BackendKind.LXC:
                copied = await _take_in_unpacking(paths, settings, di_id, intake, source, previous, report)
            else:
                copied = await _take_in(intake, None, lambda share: report("copying", share))
                async with store.write() as tx:
                    await tx.operations.progress(operation, 0.5)
                if osf.backend is BackendKind.KVM:
                    await _inspect(paths.image_part(di_id), source.name, settings[IMPORT_MAX_SIZE], report)
            await in_thread(put_in_place, paths.image_part(di_id), paths.image(di_id, source.name))
        async with store.write() as tx:
            await _register(tx, osf.id, di_id, source.name, copied, version=version, by=by)
            await tx.operations.end(operation, operations.DONE)
            di = await tx.images.get(di_id)
    except BaseException as exc:
        await asyncio.shield(_undo(store, paths, di_id, operation, exc))
        raise
    finally:
        _release(lock, paths.image_lock(di_id))
    return di


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
            descriptor = _hold(lock)
        except BlockingIOError:
            continue
        try:
            async with store.read() as tx:
                ended, now = await tx.operations.has_ended(operation.id), tx.at
            waits = not ended and await in_thread(_waits, paths, operation, now)
            if waits:
                await _erase_files(paths, di_id, but=paths.image_part(di_id))
                async with store.write() as tx:
                    await tx.operations.progress(
                        operation.id, await in_thread(_waiting_share, paths, operation)
                    )
            elif not ended:
                await _erase_files(paths, di_id)
                async with store.write() as tx:
                    await tx.operations.end(operation.id, operations.KILLED)
                swept.append(di_id)
        finally:
            _release(descriptor, lock)
    await _drop_idle_locks(store, paths)
    return swept


async def sweep_stray(store: Store, paths: Paths, di_id: DiId) -> bool:
    """Remove the files of an image that has no row, unless somebody is at work on it; whether they are gone.

    :raises VolumeError: they cannot be removed
    """
    lock = paths.image_lock(di_id)
    try:
        descriptor = _hold(lock)
    except BlockingIOError:
        return False
    try:
        async with store.read() as tx:
            unfinished = await tx.operations.unfinished(*operations.ON_IMAGES)
            if await tx.images.find(Filter.where(id=di_id)) or di_id in {one.object_id for one in unfinished}:
                return False
        await _erase_files(paths, di_id)
        return True
    finally:
        _release(descriptor, lock)


async def tag(tx: Tx, di: Di, name: str, *, by: str) -> None:
    """Let a tag point at a DI; VMs that follow it boot this DI from their next start.

    :raises ConflictError: the tag is fixed within the OSF
    """
    checked_tag(name)
    target = await tx.images.tag_target(di.osf_id, name)
    if target is not None and target[1]:
        raise ConflictError(f"the tag {name} of the OSF {di.osf} is fixed at DI {target[0]}")
    was = await tx.images.point(di.osf_id, name, di.id, by=by)
    await failures.images_changed(tx, by=by)
    await tx.log.append(
        by=by,
        what="di tag",
        object=f"osf {di.osf_id} tag {name}"[:128],
        was=None if was is None else f"di {was}",
        now=f"di {di.id}",
    )


async def untag(tx: Tx, di: Di, name: str, *, by: str) -> None:
    """Take a tag from a DI.

    :raises NotFoundError: the DI does not have it
    :raises ConflictError: the tag is fixed
    """
    target = await tx.images.tag_target(di.osf_id, name)
    if target is None or target[0] != di.id:
        raise NotFoundError(f"DI {di.id} has no tag {name!r}", hint=f"it has {', '.join(di.tags) or 'none'}")
    if target[1]:
        raise ConflictError(f"the tag {name} is fixed at DI {di.id}", hint="it goes when the DI is deleted")
    await tx.images.point(di.osf_id, name, None, by=by)
    await failures.images_changed(tx, by=by)
    await tx.log.append(by=by, what="di untag", object=f"osf {di.osf_id} tag {name}"[:128], was=f"di {di.id}")


async def delete(store: Store, settings: Settings, filter_: Filter, *, by: str) -> int:
    """Delete the DIs that pass, all or none, with their files; returns how many.

    `default` and `head` pass on to the newest DI that the OSF still has (trap T40).

    :raises ConflictError: a VM runs one of them, or has a root that needs it
    """
    paths = Paths(settings)
    async with store.write() as tx:
        dis = await tx.images.find(filter_)
        await _check_unused(tx, dis)
        await _check_no_base(tx, settings, dis)
        for di in dis:
            await _pass_tags_on(tx, di, {gone.id for gone in dis}, by=by)
        begun = [await tx.operations.begin(Kind.DI_DEL, di.id, owner=by, pid=os.getpid()) for di in dis]
        locks = [_hold(paths.image_lock(di.id)) for di in dis]
        await tx.images.delete([di.id for di in dis])
        await failures.images_changed(tx, by=by)
        for di in dis:
            await tx.log.append(
                by=by, what="di del", object=f"di {di.id}", was=f"{di.osf} {di.version} sha256 {di.sha256}"
            )
    for di, operation, lock in zip(dis, begun, locks, strict=True):
        try:
            await _erase_files(paths, di.id)
            async with store.write() as tx:
                await tx.operations.end(operation, operations.DONE)
        finally:
            _release(lock, paths.image_lock(di.id))
    return len(dis)


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


async def _check_version(tx: Tx, osf_id: OsfId, version: str) -> None:
    checked_tag(version)
    if version in (TAG_DEFAULT, TAG_HEAD):
        raise UsageError(f"version={version}: {version} is a tag that moves, and cannot be a version")
    if version in await tx.images.taken_names(osf_id):
        raise ConflictError(f"version={version}: the OSF has a version or tag of this name")


async def _register(
    tx: Tx, osf_id: OsfId, di_id: DiId, name: str, copied: Copied, *, version: str | None, by: str
) -> None:
    if version is None:
        version = next_version(tx.at.astimezone().date(), await tx.images.taken_names(osf_id))
    else:
        await _check_version(tx, osf_id, version)
    await tx.images.add(
        di_id,
        osf_id,
        version=version,
        path=image_name(di_id, name),
        sha256=copied.sha256,
        size_bytes=copied.size,
    )
    await tx.images.point(osf_id, version, di_id, by=by, fixed=True)
    await tx.images.point(osf_id, TAG_HEAD, di_id, by=by)
    if await tx.images.tag_target(osf_id, TAG_DEFAULT) is None:
        await tx.images.point(osf_id, TAG_DEFAULT, di_id, by=by)
    await failures.images_changed(tx, by=by)
    await tx.log.append(by=by, what="di add", object=f"di {di_id}", now=f"{version} sha256 {copied.sha256}")


async def _check_unused(tx: Tx, dis: Sequence[Di]) -> None:
    for di_id, number in await tx.images.in_use([di.id for di in dis]):
        running = await tx.vms.find(Filter.where(current_di_id=di_id))
        names = few([vm.name for vm in running])
        raise ConflictError(
            f"DI {di_id} is run by {number} VMs: {names}", hint="stop them first; nothing was deleted"
        )


async def _check_no_base(tx: Tx, settings: Settings, dis: Sequence[Di]) -> None:
    """Whether no root of a virtual machine at rest would lose the image under it."""
    paths = Paths(settings)
    if not paths.overlays.is_dir():
        return
    from appliance.storage.qcow2 import bases_in_use

    for di_id, roots in (await in_thread(bases_in_use, paths, [di.id for di in dis])).items():
        kept = [t.id for t in await tx.kept.find() if Path(t.path) in roots and not t.is_given_up]
        if kept:
            numbers = ",".join(map(str, kept))
            raise ConflictError(
                f"DI {di_id} is under {len(kept)} roots that were put aside",
                hint=f"qa kept del -f 'id in ({numbers})'; nothing was deleted",
            )
        if settings[VM_OVERLAY_PERSISTENT]:
            raise ConflictError(
                f"DI {di_id} is under {len(roots)} roots that survive restarts: "
                + few([root.name for root in roots]),
                hint="start their VMs from another image first; nothing was deleted",
            )


async def _pass_tags_on(tx: Tx, di: Di, gone: set[DiId], *, by: str) -> None:
    for name in di.tags:
        heir = await tx.images.newest(di.osf_id, without=gone) if name in (TAG_DEFAULT, TAG_HEAD) else None
        await tx.images.point(di.osf_id, name, heir, by=by)


def _check_source(source: Path, osf: Osf, paths: Paths, largest: int) -> Origin:
    """What the file is, if it can be an image of the OSF and there is room for it.

    :raises ImageError: it cannot
    :raises VolumeError: there is no room
    """
    try:
        origin = Origin.of(source)
        with source.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
    except OSError as exc:
        raise ImageError(f"{exc.filename} cannot be read: {exc.strerror}") from exc
    if osf.backend is BackendKind.KVM:
        from appliance.storage import disk_image

        disk_image.judge(source, source.name, largest=largest)
    if osf.backend is BackendKind.LXC:
        sniff(head, source.name)
    if not image_name(DiId(0), source.name).isprintable():
        raise ImageError(f"the name {source.name!r} cannot be kept", hint="rename the file")
    try:
        bases = paths.all_basefs if osf.backend is BackendKind.LXC else None
        room.check(source, source.name, images=paths.images, bases=bases)
    except OSError as exc:
        raise VolumeError(f"{exc.filename} cannot be used: {exc.strerror}", hint="run qa admin init") from exc
    return origin


async def _take_in(intake: Intake, sink: int | None, progress: Callable[[float], None]) -> Copied:
    work = asyncio.ensure_future(asyncio.to_thread(intake.run, progress, sink))
    try:
        return await asyncio.shield(work)
    finally:
        intake.stop()
        await asyncio.wait([work])


async def _take_in_unpacking(
    paths: Paths,
    settings: Settings,
    di_id: DiId,
    intake: Intake,
    source: Path,
    previous: DiId | None,
    report: Report,
) -> Copied:
    """Take an archive in and unpack it on the way: exactly what is hashed is unpacked.

    Whoever unpacks sees a copy that ends early as a damaged archive: why it ended counts.
    """
    from appliance.storage.importer import Limits, Pipe, import_di, import_stream
    from appliance.storage.sharing import PreviousGoneError

    limits = Limits(settings[IMPORT_MAX_SIZE], settings[IMPORT_MAX_FILES])
    head = await in_thread(_head, source)
    pipe = Pipe()

    async def taken() -> Copied:
        try:
            return await _take_in(intake, pipe.writer, lambda share: report("unpacking", share))
        finally:
            pipe.close_writer()

    taking = asyncio.ensure_future(taken())
    try:
        await import_stream(paths, di_id, source.name, head, pipe.reader, previous=previous, limits=limits)
        pipe.close_reader()
        return await taking
    except PreviousGoneError:
        pipe.close_reader()
        copied = await taking
        await import_di(paths, di_id, paths.image_part(di_id), lambda _: None, limits=limits)
        return copied
    except BaseException as exc:
        pipe.close_reader()
        intake.stop()
        await asyncio.wait([taking])
        reason = taking.exception()
        if reason and isinstance(exc, ImageError):
            raise reason from exc
        raise
    finally:
        pipe.close_reader()


async def _inspect(image: Path, name: str, largest: int, report: Report) -> None:
    """Look a disk over, as it is now that nobody else can change it."""
    from appliance.storage.disk_image import inspect

    report("checking", 0.0)
    await inspect(image, name, largest=largest)
    report("checking", 1.0)


def _head(source: Path) -> bytes:
    with source.open("rb") as stream:
        return stream.read(HEAD_BYTES)


async def _broken_off(tx: Tx, paths: Paths, osf_id: OsfId, origin: Origin) -> tuple[DiId, int] | None:
    """A killed import of this very file into this OSF, and the lock of its image, now ours."""
    for operation in await tx.operations.unfinished(Kind.DI_ADD):
        di_id = DiId(operation.object_id)
        if (
            operation.cancel
            or operation.plan != _plan(osf_id, origin)
            or not paths.image_part(di_id).exists()
        ):
            continue
        with suppress(BlockingIOError):
            lock = _hold(paths.image_lock(di_id))
            await tx.operations.end(operation.id, operations.KILLED)
            return di_id, lock
    return None


def _plan(osf_id: OsfId, origin: Origin) -> str:
    return f"{osf_id} {origin.written()}"


def _origin(operation: Operation) -> Origin | None:
    return Origin.read((operation.plan or "").partition(" ")[2])


def _waits(paths: Paths, operation: Operation, now: datetime) -> bool:
    """Whether what a killed import has copied is kept for the next."""
    origin = _origin(operation)
    return (
        operation.kind is Kind.DI_ADD
        and not operation.cancel
        and now < operation.begun + PART_KEPT
        and origin is not None
        and _share(paths.image_part(DiId(operation.object_id)), origin) > 0
        and origin.still_stands
    )


def _waiting_share(paths: Paths, operation: Operation) -> float:
    origin = _origin(operation)
    assert origin is not None
    return _share(paths.image_part(DiId(operation.object_id)), origin)


def _share(part: Path, origin: Origin) -> float:
    """How much of a file its copy holds, from 0 to 1."""
    with suppress(OSError):
        return min(1.0, part.stat().st_size / max(1, origin.size))
    return 0.0


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


async def _undo(store: Store, paths: Paths, di_id: DiId, operation: int, cause: BaseException) -> None:
    try:
        await _erase_files(paths, di_id)
        async with store.write() as tx:
            await tx.operations.end(operation, str(cause) or type(cause).__name__)
    except (ApplianceError, OSError) as exc:
        cause.add_note(f"and DI {di_id} was not cleaned up: {exc}; the next di add tries again")


async def _erase_files(paths: Paths, di_id: DiId, *, but: Path | None = None) -> None:
    """Remove everything that belongs to a DI that has no row, whatever there is of it, but one file."""
    if paths.all_basefs.is_dir() and any(paths.all_basefs.glob(f"*{di_id}*")):
        from appliance.storage.btrfs import erase_di

        await erase_di(paths, di_id)
    for left in {paths.image_part(di_id), *paths.images.glob(f"{di_id}-*")} - {but}:
        try:
            left.unlink(missing_ok=True)
        except OSError as exc:
            raise VolumeError(f"{left} cannot be removed: {exc.strerror}", hint="remove it by hand") from exc


def _hold(lock: Path) -> int:
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
                    _release(_hold(lock), lock)


def _release(descriptor: int, lock: Path) -> None:
    lock.unlink(missing_ok=True)
    os.close(descriptor)
