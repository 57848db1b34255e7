"""Duplicates a disk image for another OSF: a DI with tags and an end of its own, and no room of its own.

Its file shares blocks with the other one's, its unpacked root is a snapshot. Neither is ever changed, and
each stays when the other goes.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from appliance.config import Settings
from appliance.errors import ConflictError, VolumeError
from appliance.model import BackendKind, Di, DiId, Osf, OsfId
from appliance.ops import images
from appliance.ops.image_progress import plan_for
from appliance.storage import operations, shared_file
from appliance.storage.intake import Copied, put_in_place
from appliance.storage.operations import Kind
from appliance.storage.paths import Paths
from appliance.storage.shared_file import Shared
from appliance.storage.store import Store, Tx
from appliance.threads import in_thread


async def duplicate(
    store: Store, settings: Settings, source_id: DiId, osf: Osf | None, *, version: str | None, by: str
) -> tuple[Di, Shared]:
    """A new DI of `osf` (None: of the same one) from a DI; and how their files share what they hold.

    It has the version of the other one where that is free, and its notes. For tags it is as if added:
    `head` moves to it, `default` only if the OSF has none. Whatever goes wrong, nothing stays behind.

    :raises NotFoundError: there is no such DI, or it is in the trash
    :raises ConflictError: the OSF has another backend, or has the version
    :raises VolumeError: the pool cannot, or the other one's files are gone
    """
    paths = Paths(settings)
    await images.sweep_unfinished(store, paths)
    async with store.write() as tx:
        source = await tx.images.get(source_id)
        origin = await tx.osfs.get(source.osf_id)
        target = osf or origin
        if target.backend is not origin.backend:
            raise ConflictError(
                f"DI {source.id} is for {origin.backend}, and the OSF {target.name} for {target.backend}",
                hint="choose an OSF of the same backend",
            )
        version = await _version(tx, source, target.id, version)
        di_id = await images.free_id(tx, paths, target.id)
        lock = images.hold(paths.image_lock(di_id))
        operation = await tx.operations.begin(
            Kind.DI_DUPLICATE, di_id, owner=by, pid=os.getpid(), plan=plan_for(target.id)
        )
    name = source.path.removeprefix(f"{source.id}-")
    try:
        shared = await in_thread(_share, paths, source, di_id, name)
        if target.backend is BackendKind.LXC:
            await in_thread(_snapshot, paths, source.id, di_id)
        async with store.write() as tx:
            registered = await images.register(
                tx,
                target,
                di_id,
                name,
                Copied(source.sha256, source.size_bytes),
                version=version,
                notes=source.notes,
                by=by,
            )
            await tx.log.append(
                by=by,
                what="di duplicate",
                object=f"di {di_id}",
                was=f"di {source.id}: {source.osf} {source.version}",
                now=f"{target.name} {registered}",
            )
            await tx.operations.end(operation, operations.DONE)
            di = await tx.images.get(di_id)
    except BaseException as exc:
        await asyncio.shield(images.undo(store, paths, di_id, operation, exc))
        raise
    finally:
        images.release(lock, paths.image_lock(di_id))
    return di, shared


async def _version(tx: Tx, source: Di, osf_id: OsfId, wanted: str | None) -> str | None:
    """The version that the copy gets; None: the next of today."""
    if wanted is not None:
        await images.check_version(tx, osf_id, wanted)
        return wanted
    return None if source.version in await tx.images.taken_names(osf_id) else source.version


def _share(paths: Paths, source: Di, di_id: DiId, name: str) -> Shared:
    part = paths.image_part(di_id)
    shared = shared_file.share(_existing(paths.images / source.path, source.id), part)
    put_in_place(part, paths.image(di_id, name))
    return shared


def _snapshot(paths: Paths, source_id: DiId, di_id: DiId) -> None:
    from appliance.storage.btrfs import duplicate_di

    duplicate_di(paths, _existing(paths.basefs(source_id), source_id), di_id)


def _existing(path: Path, di_id: DiId) -> Path:
    if not path.exists():
        raise VolumeError(f"DI {di_id} cannot be duplicated: {path} is gone", hint="add the image again")
    return path
