"""Carries disk images from one box to another: out into an archive with a manifest, and in again.

What comes in passes the same checks as any image, in the same way (`images.add`); the archive is only
where its file, its version, its notes and its OSF are taken from.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

from appliance.config import IMPORT_MAX_SIZE, Settings
from appliance.errors import (
    ApplianceError,
    ConflictError,
    ImageError,
    NotFoundError,
    PoolFullError,
    VolumeError,
)
from appliance.model import Di, DiId, Osf
from appliance.ops import image_add, image_archive, image_manifest, images, osfs
from appliance.ops.image_archive import Contents
from appliance.ops.image_manifest import Manifest
from appliance.ops.image_progress import Report
from appliance.storage.intake import CHUNK
from appliance.storage.paths import Paths
from appliance.storage.room import ROOM_LEFT
from appliance.storage.store import Store
from appliance.storage.unnamed import give_name, path_of, unnamed
from appliance.storage.volumes import explained

T = TypeVar("T")

UNFIT = re.compile(r"[^\w.+-]+")
"""What has no place in the name of a file that people carry about."""
SUFFIX = ".image.tar"


async def export(
    store: Store, settings: Settings, di_id: DiId, path: Path, *, by: str, report: Report
) -> Path:
    """Write a DI into a new archive at `path`, or in the folder at `path`; returns where it is.

    It appears there when it is whole and on the disk; until then, and whatever goes wrong, nothing does.

    :raises NotFoundError: there is no such DI, or no such folder
    :raises ConflictError: there is something at `path` already
    :raises ImageError: the image is not any more what was registered
    :raises VolumeError: the archive cannot be written
    """
    async with store.read() as tx:
        di = await tx.images.get(di_id)
        osf = await tx.osfs.get(di.osf_id)
    target = Path.cwd() / path
    if target.is_dir():
        target /= UNFIT.sub("_", f"{osf.name}-{di.version}").lstrip(".") + SUFFIX
    if not target.parent.is_dir():
        raise NotFoundError(f"there is no folder {target.parent}")
    manifest = image_manifest.manifest_of(di, osf)
    source = Paths(settings).images / di.path
    async with store.read() as tx:
        beginning = image_archive.head(manifest, tx.at)
    await _stoppable(lambda stop: _write(source, target, di, beginning, report, stop))
    async with store.write() as tx:
        await tx.log.append(by=by, what="di export", object=f"di {di.id}", now=str(target)[:1000])
    return target


async def bring_in(
    store: Store,
    settings: Settings,
    source: Path,
    *,
    osf: str | None,
    make_osf: bool,
    version: str | None,
    by: str,
    report: Report,
    note: image_add.Note = lambda _: None,
) -> Di:
    """Add the image of an archive that `export` has written, here or elsewhere.

    It is for the OSF of that name, or else for that of the manifest; with `make_osf`, one that is not there
    is made as the manifest says, and goes again if the image is refused. Notes are the manifest's, and the
    version, unless another is given. `note` is told what people should know.

    :raises ImageError: the archive is none of ours, is damaged, or its image is refused
    :raises NotFoundError: there is no such OSF
    :raises ConflictError: the OSF has another backend, or has the version
    :raises VolumeError: there is no room for it
    """
    with _opened(source) as stream:
        contents = await _stoppable(lambda stop: _look(stream, source.name, settings[IMPORT_MAX_SIZE]))
        manifest = contents.manifest
        wanted = version if version is not None else manifest.version
        target, made = await _osf(store, manifest, osf or manifest.osf, make=make_osf, by=by)
        try:
            async with store.read() as tx:
                await images.check_version(tx, target.id, wanted)
            staging = Paths(settings).staging
            with ExitStack() as held:
                with explained(f"{staging} cannot be written"):
                    descriptor = held.enter_context(unnamed(staging))
                await _stoppable(
                    lambda stop: _take_out(stream, source.name, contents, descriptor, staging, report, stop)
                )
                di, _ = await image_add.add(
                    store,
                    settings,
                    target,
                    path_of(descriptor),
                    name=manifest.file,
                    version=wanted,
                    notes=manifest.notes,
                    by=by,
                    report=report,
                    note=note,
                )
                return di
        except BaseException:
            if made:
                await asyncio.shield(_unmake(store, target, by=by))
            raise


async def _osf(store: Store, manifest: Manifest, name: str, *, make: bool, by: str) -> tuple[Osf, bool]:
    """The OSF that gets the image, and whether it was made for it."""
    async with store.write() as tx:
        osf = await tx.osfs.by_name(name)
        made = osf is None
        if osf is None:
            if not make:
                raise NotFoundError(
                    f"there is no OSF {name!r}", hint="name another with osf=, or have it made: make_osf=yes"
                )
            osf = await osfs.add(
                tx,
                name=name,
                backend=manifest.kind,
                ageing=image_manifest.ageing_of(manifest),
                by=by,
                **manifest.policy,
            )
        if osf.backend is not manifest.kind:
            raise ConflictError(
                f"the image is for {manifest.kind}, and the OSF {osf.name} for {osf.backend}",
                hint="choose an OSF of the same backend",
            )
    return osf, made


async def _unmake(store: Store, osf: Osf, *, by: str) -> None:
    """Let an OSF go that nobody has taken up meanwhile."""
    with suppress(ApplianceError):
        async with store.write() as tx:
            await osfs.delete(tx, [osf], by=by)


async def _stoppable(work: Callable[[threading.Event], T]) -> T:
    """The result of blocking `work`; a cancellation tells it to stop, and waits until it has."""
    stop = threading.Event()
    doing = asyncio.ensure_future(asyncio.to_thread(work, stop))
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([doing])
        doing.exception()  # nobody is left to be told
        raise


def _write(
    source: Path, target: Path, di: Di, beginning: bytes, report: Report, stop: threading.Event
) -> None:
    damaged = ImageError(
        f"DI {di.id} is damaged: {source} is not what was registered", hint="delete it, and add it again"
    )
    with _opened(source) as reader, explained(f"{target} cannot be written"):
        if os.fstat(reader.fileno()).st_size != di.size_bytes:
            raise damaged
        if target.exists() or target.is_symlink():
            raise _taken(target)
        _check_room(target.parent, di.size_bytes, target.name)
        with unnamed(target.parent) as descriptor, os.fdopen(descriptor, "wb", closefd=False) as writer:
            writer.write(beginning)
            if _copied(reader, writer, di.size_bytes, "exporting", report, stop) != di.sha256:
                raise damaged
            writer.write(image_archive.padding(di.size_bytes) + image_archive.END)
            writer.flush()
            if stop.is_set():
                return
            try:
                give_name(descriptor, target)
            except FileExistsError:
                raise _taken(target) from None


def _look(stream: BinaryIO, name: str, largest: int) -> Contents:
    try:
        contents = image_archive.read(stream)
    except OSError as exc:
        raise VolumeError(f"{name} cannot be read: {exc.strerror}") from exc
    except ImageError as exc:
        raise ImageError(f"{name} is no exported image: {exc.message}", hint=exc.hint) from exc
    if contents.manifest.size > largest:
        raise ImageError(
            f"the image in {name} has {contents.manifest.size >> 20} MiB, more than the {largest >> 20} MiB "
            f"of {IMPORT_MAX_SIZE.name}"
        )
    return contents


def _take_out(
    stream: BinaryIO,
    name: str,
    contents: Contents,
    descriptor: int,
    staging: Path,
    report: Report,
    stop: threading.Event,
) -> None:
    manifest = contents.manifest
    with explained(f"the image in {name} cannot be taken out to {staging}"):
        _check_room(staging, manifest.size, manifest.file)
        stream.seek(contents.offset)
        with os.fdopen(descriptor, "wb", closefd=False) as writer:
            digest = _copied(stream, writer, manifest.size, "taking out", report, stop)
            writer.truncate(manifest.size)
    if digest != manifest.sha256 and not stop.is_set():
        raise ImageError(
            f"{name} is damaged: its image is not the one of its manifest", hint="copy or export it again"
        )


def _copied(
    reader: BinaryIO, writer: BinaryIO, size: int, step: str, report: Report, stop: threading.Event
) -> str:
    """Copy so many bytes, leaving out holes; returns the SHA-256 of what there was."""
    digest, left = hashlib.sha256(), size
    while left and not stop.is_set() and (chunk := reader.read(min(CHUNK, left))):
        digest.update(chunk)
        if chunk == images.ZEROES:  # a raw disk is mostly holes
            writer.seek(len(chunk), os.SEEK_CUR)
        else:
            writer.write(chunk)
        left -= len(chunk)
        report(step, 1 - left / size)
    return digest.hexdigest()


def _check_room(folder: Path, size: int, name: str) -> None:
    free = shutil.disk_usage(folder).free
    if free < size + ROOM_LEFT:
        raise PoolFullError(
            f"{name} does not fit into {folder}: it has {size >> 20} MiB, {ROOM_LEFT >> 20} MiB are to stay "
            f"free, and there are {free >> 20} MiB",
            hint="make room, or choose another place",
        )


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as exc:
        raise VolumeError(f"{path} cannot be read: {exc.strerror}") from exc


def _taken(target: Path) -> ConflictError:
    return ConflictError(f"there is something at {target} already", hint="choose another path")
