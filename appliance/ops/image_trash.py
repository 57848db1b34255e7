"""How disk images go: to the trash, back from it, and from there for good.

In the trash an image keeps its row, its files and its version, and has no tags, so nothing boots it. To go
there and to come back is one transaction and touches no file. When its time is over, or somebody says so,
its row goes first and its files after; whoever is killed between the two is followed by `sweep_unfinished`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from appliance.config import IMAGE_TRASH_DAYS, VM_OVERLAY_PERSISTENT, Settings
from appliance.errors import ConflictError, few
from appliance.filters import Filter
from appliance.model import TAG_DEFAULT, TAG_HEAD, Di, DiId
from appliance.ops import images
from appliance.storage import operations
from appliance.storage.operations import Kind
from appliance.storage.paths import Paths
from appliance.storage.store import Store, Tx
from appliance.threads import in_thread


@dataclass(frozen=True, slots=True)
class Returned:
    """An image that came back from the trash."""

    di: Di
    lost: tuple[str, ...]
    """The moving tags that it had before, and has not now."""


async def retire(tx: Tx, settings: Settings, filter_: Filter, *, by: str) -> tuple[list[Di], datetime]:
    """Put the DIs that pass into the trash, all or none; returns which, and until when they can come back.

    `default` and `head` pass on to the newest DI that the OSF still has (trap T40).

    :raises ConflictError: something refers to one of them: a VM runs it, has a root that needs it, or
        follows a tag that only the administrator moves
    """
    dis = await tx.images.find(filter_)
    going = {di.id for di in dis}
    await _check_unused(tx, dis)
    await _check_no_base(tx, settings, dis)
    for di in dis:
        await _check_not_followed(tx, di, going)
    until = tx.at + timedelta(days=settings[IMAGE_TRASH_DAYS])
    for di in dis:
        former = await tx.images.moving_tags(di)
        await _pass_tags_on(tx, di, going, by=by)
        await tx.images.retire(di.id, until=until, former_tags=former)
        await tx.log.append(
            by=by, what="di del", object=f"di {di.id}", was=f"{di.osf} {di.version} sha256 {di.sha256}"
        )
    await images.images_changed(tx, by=by)
    return dis, until


async def bring_back(tx: Tx, filter_: Filter, *, by: str) -> list[Returned]:
    """Take what passes out of the trash, with its version.

    Its other tags have gone to other images, and stay there: only an OSF that has no image of the tags
    `head` or `default` gets those again, as by the first `di add`.
    """
    found = await in_trash(tx, filter_)
    await tx.images.bring_back([di.id for di in found])
    returned = []
    for di in found:
        await tx.images.point(di.osf_id, di.version, di.id, by=by, fixed=True)
        for name in (TAG_HEAD, TAG_DEFAULT):
            if not di.blocked and await tx.images.tag_target(di.osf_id, name) is None:
                await images.move_tag(tx, di.osf_id, di.osf, name, di.id, by=by)
        await tx.log.append(by=by, what="di undelete", object=f"di {di.id}", now=f"{di.osf} {di.version}")
        back = await tx.images.get(di.id)
        returned.append(Returned(back, tuple(tag for tag in di.former_tags if tag not in back.tags)))
    await images.images_changed(tx, by=by)
    return returned


async def in_trash(tx: Tx, filter_: Filter | None = None) -> list[Di]:
    """The DIs in the trash that pass."""
    return [di for di in await tx.images.find(filter_, trash=True) if di.retired is not None]


async def purge(store: Store, settings: Settings, ids: Collection[DiId], *, by: str) -> int:
    """Remove these DIs for good, as far as they are in the trash, with their files; returns how many.

    :raises ConflictError: a VM or a root still needs one of them, or somebody is at work on it
    :raises VolumeError: files cannot be removed; the next import tries again
    """
    paths = Paths(settings)
    async with store.write() as tx:
        dis = [di for di in await in_trash(tx) if di.id in ids]
        await _check_unused(tx, dis)
        await _check_no_base(tx, settings, dis)
        locks = []
        try:
            for di in dis:
                locks.append(_held(paths, di))
            begun = [await tx.operations.begin(Kind.DI_DEL, di.id, owner=by, pid=os.getpid()) for di in dis]
            await tx.images.delete([di.id for di in dis])
            for di in dis:
                await tx.log.append(
                    by=by, what="di purge", object=f"di {di.id}", was=f"{di.osf} {di.version}"
                )
        except BaseException:
            for di, lock in zip(dis, locks, strict=False):
                images.release(lock, paths.image_lock(di.id))
            raise
    work = list(zip(dis, begun, locks, strict=True))
    try:
        while work:
            di, operation, lock = work[0]
            await images.erase_files(paths, di.id)
            async with store.write() as tx:
                await tx.operations.end(operation, operations.DONE)
            images.release(lock, paths.image_lock(di.id))
            work.pop(0)
    finally:
        for di, _, lock in work:
            images.release(lock, paths.image_lock(di.id))
    return len(dis)


def _held(paths: Paths, di: Di) -> int:
    try:
        return images.hold(paths.image_lock(di.id))
    except BlockingIOError:
        raise ConflictError(f"somebody is at work on DI {di.id}", hint="try again") from None


async def _check_unused(tx: Tx, dis: Sequence[Di]) -> None:
    for di_id, number in await tx.images.in_use([di.id for di in dis]):
        running = await tx.vms.find(Filter.where(current_di_id=di_id))
        names = few([vm.name for vm in running])
        raise ConflictError(
            f"DI {di_id} is run by {number} VMs: {names}", hint="stop them first; nothing was deleted"
        )


async def _check_not_followed(tx: Tx, di: Di, going: set[DiId]) -> None:
    """Whether no VM would be left without an image, or get another one than its administrator chose.

    `head` chooses by itself, so it may pass on, as long as there is an image to which it can.
    """
    for name in di.tags:
        if name == TAG_HEAD and await tx.images.newest(di.osf_id, without=going) is not None:
            continue
        if followers := await tx.vms.find(Filter.where(osf_id=di.osf_id, di_tag=name)):
            raise ConflictError(
                f"DI {di.id} has the tag {name}, and {len(followers)} VMs follow it: "
                + few([vm.name for vm in followers]),
                hint="move the tag, or let them follow another one; nothing was deleted",
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


async def _pass_tags_on(tx: Tx, di: Di, going: set[DiId], *, by: str) -> None:
    for name in di.tags:
        if name == di.version:
            await tx.images.point(di.osf_id, name, None, by=by)
            continue
        heir = await tx.images.newest(di.osf_id, without=going) if name in (TAG_DEFAULT, TAG_HEAD) else None
        await images.move_tag(tx, di.osf_id, di.osf, name, heir, by=by)
