"""Takes an image in: one reading that copies, hashes and unpacks, and goes on where a killed one ended."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.clock import SystemClock, Timers
from appliance.config import IMPORT_MAX_FILES, IMPORT_MAX_SIZE, Settings
from appliance.errors import ConflictError, ImageError, StoreError, VolumeError
from appliance.log import facts
from appliance.model import TAG_HEAD, BackendKind, Di, DiId, Osf, OsfId
from appliance.ops import expiry, image_part
from appliance.ops.image_progress import Report, recorded
from appliance.ops.images import (
    check_version,
    free_id,
    hold,
    register,
    release,
    sniff,
    sweep_unfinished,
    undo,
)
from appliance.storage import operations, room
from appliance.storage.ageing import NO_LIMITS, Limits
from appliance.storage.image_states import COPIED
from appliance.storage.intake import Copied, Intake, Origin, put_in_place
from appliance.storage.operations import Kind
from appliance.storage.paths import Paths, image_name
from appliance.storage.store import Store, Tx
from appliance.threads import in_thread, to_the_end

if TYPE_CHECKING:
    from appliance.storage.systemd_login import NoLogin

logger = logging.getLogger(__name__)

CANCEL_LOOK_S = 0.5
HEAD_BYTES = 512

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
    notes: str | None = None,
    name: str | None = None,
    note: Note = lambda _: None,
    timers: Timers | None = None,
    limits: Limits = NO_LIMITS,
) -> tuple[Di, int]:
    """Copy an image from `source` to the images, and register it as a new DI of `osf`, under its own `name`.

    An archive is unpacked; the disk of a virtual machine is looked over and stays as it is.

    Its version becomes a fixed tag, `head` moves to it, `default` only if the OSF has none. VMs that follow
    `head` get the limits; returns the DI, and how many they are. `note` is told what people should know.

    Whatever goes wrong, nothing stays behind. If we are killed, what was copied stays for a day, and the next
    import of this file into this OSF goes on behind it. (Unpacking begins anew: what tar and a decompressor
    have in mind dies with them.)

    :raises ImageError: it is no image for this OSF, damaged, or changes while it is read
    :raises VolumeError: there is no room for it
    :raises ConflictError: the version is taken, or somebody has cancelled the operation
    """
    paths, name = Paths(settings), name or source.name
    timers = timers or SystemClock()
    await sweep_unfinished(store, paths)
    origin, head = await asyncio.to_thread(_check_source, source, name, osf, paths, settings[IMPORT_MAX_SIZE])
    with ExitStack() as held:
        async with store.write() as tx:
            if version is not None:
                await check_version(tx, osf.id, version)
            di_id = await _broken_off(tx, paths, osf.id, origin, held)
            if di_id is None:
                di_id = await free_id(tx, paths, osf.id)
                _hold(paths, di_id, held)
            else:
                done = image_part.share_of(paths.image_part(di_id), origin)
                note(f"The import of {name} goes on at {done:.0%}.")
            plan = image_part.plan_for(osf.id, origin)
            operation = await tx.operations.begin(Kind.DI_ADD, di_id, owner=by, pid=os.getpid(), plan=plan)
            previous = await tx.images.newest(osf.id)
        intake = Intake(source, paths.image_part(di_id), origin)
        try:
            async with (
                _cancellable(store, operation, timers),
                recorded(store, operation, report, timers) as report,
            ):
                if osf.backend is BackendKind.LXC:
                    copied = await _take_in_unpacking(
                        paths, settings, di_id, intake, name, head, previous, report
                    )
                else:
                    copied = await _take_in_whole(store, operation, intake, report)
                if osf.backend is BackendKind.KVM:
                    await _inspect(paths.image_part(di_id), name, settings[IMPORT_MAX_SIZE], report)
                await in_thread(put_in_place, paths.image_part(di_id), paths.image(di_id, name))
                silent = (
                    await _look_for_login(paths.basefs(di_id)) if osf.backend is BackendKind.LXC else None
                )
            async with store.write() as tx:
                await register(tx, osf, di_id, name, copied, version=version, notes=notes, by=by)
                limited = await expiry.stamp_tag(tx, osf.id, TAG_HEAD, di_id, limits, by=by)
                await tx.operations.end(operation, operations.DONE)
                di = await tx.images.get(di_id)
        except BaseException as exc:
            await to_the_end(undo(store, paths, di_id, operation, exc))
            raise
    if silent is not None:
        note(
            "Warning: the image has no login on tty1, so the consoles of its desktops stay silent: "
            f"{silent.reason} ({silent.remedy})"
        )
    return di, limited


async def check(store: Store, settings: Settings, osf: Osf, source: Path, *, version: str | None) -> None:
    """Whether `add` would begin.

    :raises ImageError: it is no image for this OSF
    :raises VolumeError: there is no room for it
    :raises ConflictError: the version is taken
    """
    largest = settings[IMPORT_MAX_SIZE]
    await asyncio.to_thread(_check_source, source, source.name, osf, Paths(settings), largest)
    async with store.read() as tx:
        if version is not None:
            await check_version(tx, osf.id, version)


def _check_source(source: Path, name: str, osf: Osf, paths: Paths, largest: int) -> tuple[Origin, bytes]:
    """What the file is, and its first bytes, if it can be an image of the OSF and there is room for it.

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
    return origin, head


async def _take_in(intake: Intake, sink: int | None, progress: Callable[[float], None]) -> Copied:
    work = asyncio.ensure_future(asyncio.to_thread(intake.run, progress, sink))
    try:
        return await asyncio.shield(work)
    finally:
        intake.stop()
        await to_the_end(asyncio.wait([work]))


async def _take_in_whole(store: Store, operation: int, intake: Intake, report: Report) -> Copied:
    """Take a disk in as it is."""
    copied = await _take_in(intake, None, lambda share: report("copying", share))
    async with store.write() as tx:
        await tx.operations.progress(operation, COPIED)
    return copied


async def _take_in_unpacking(
    paths: Paths,
    settings: Settings,
    di_id: DiId,
    intake: Intake,
    name: str,
    head: bytes,
    previous: DiId | None,
    report: Report,
) -> Copied:
    """Take an archive in and unpack it on the way: exactly what is hashed is unpacked.

    Whoever unpacks sees a copy that ends early as a damaged archive: why it ended counts.
    """
    from appliance.storage.importer import Limits, Pipe, import_di, import_stream
    from appliance.storage.sharing import PreviousGoneError

    limits = Limits(settings[IMPORT_MAX_SIZE], settings[IMPORT_MAX_FILES])
    pipe = Pipe()

    async def taken() -> Copied:
        try:
            return await _take_in(intake, pipe.writer, lambda share: report("unpacking", share))
        finally:
            pipe.close_writer()

    taking = asyncio.ensure_future(taken())
    try:
        await import_stream(paths, di_id, name, head, pipe.reader, previous=previous, limits=limits)
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
        await to_the_end(asyncio.wait([taking]))
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


async def _look_for_login(base: Path) -> NoLogin | None:
    """Why nobody could log in at the console of a container, as far as its image tells.

    A guess that fails is no reason to refuse the image.
    """
    from appliance.storage import console_login

    try:
        return await in_thread(console_login.missing, base)
    except Exception:
        logger.exception("whether an image has a login on tty1 cannot be told", extra=facts(path=base))
        return None


def _hold(paths: Paths, di_id: DiId, held: ExitStack) -> None:
    """Take the lock of a DI for as long as `held` lasts.

    :raises BlockingIOError: another process has it
    :raises VolumeError: it cannot be made
    """
    lock = paths.image_lock(di_id)
    held.callback(release, hold(lock), lock)


async def _broken_off(tx: Tx, paths: Paths, osf_id: OsfId, origin: Origin, held: ExitStack) -> DiId | None:
    """A killed import of this very file into this OSF, whose image is now locked by us."""
    for operation in await tx.operations.unfinished(Kind.DI_ADD):
        di_id = DiId(operation.object_id)
        if (
            operation.cancel
            or operation.plan != image_part.plan_for(osf_id, origin)
            or not paths.image_part(di_id).exists()
        ):
            continue
        with suppress(BlockingIOError):
            _hold(paths, di_id, held)
            await tx.operations.end(operation.id, operations.KILLED)
            return di_id
    return None


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
        await to_the_end(asyncio.wait([watcher]))
