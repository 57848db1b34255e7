"""What people do with OSFs: add, edit, delete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from appliance.errors import ConflictError, NotFoundError, UsageError, few
from appliance.filters import Filter
from appliance.model import BackendKind, Osf
from appliance.storage.store import Tx


async def add(
    tx: Tx,
    *,
    name: str,
    memory_mib: int,
    use_overlay: bool,
    backend: BackendKind,
    cpus: float | None = None,
    user_storage_mib: int | None = None,
    processes: int | None = None,
    root_mib: int | None = None,
    by: str,
) -> Osf:
    """A new OSF.

    :raises ConflictError: the name is taken
    """
    await _check_name(tx, name)
    osf_id = await tx.osfs.add(
        name=name,
        memory_mib=memory_mib,
        cpus=cpus,
        use_overlay=use_overlay,
        user_storage_mib=user_storage_mib,
        backend=backend,
        processes=processes,
        root_mib=root_mib,
    )
    await tx.log.append(by=by, what="osf add", object=f"osf {osf_id}", now=name)
    return await tx.osfs.get(osf_id)


async def edit(tx: Tx, osfs: Sequence[Osf], columns: Mapping[str, object], *, by: str) -> int:
    """Overwrite columns of OSFs, all or none; a VM follows at its next start. Returns how many.

    :raises ConflictError: the name is taken, or the backend of an OSF with DIs would change
    """
    if "name" in columns:
        if len(osfs) > 1:
            raise ConflictError(f"{len(osfs)} OSFs cannot share one name", hint="choose one with -f id=")
        if any(osf.name != columns["name"] for osf in osfs):
            await _check_name(tx, str(columns["name"]))
    if "backend" in columns:
        for osf in osfs:
            if osf.backend != columns["backend"] and await tx.images.find(Filter.where(osf_id=osf.id)):
                raise ConflictError(
                    f"the backend of {osf.name} cannot change: it has DIs for {osf.backend}",
                    hint="make another OSF",
                )
    await tx.osfs.edit([osf.id for osf in osfs], columns)
    for osf in osfs:
        for key, value in columns.items():
            await tx.log.append(by=by, what=f"osf edit {key}", object=f"osf {osf.id}", now=str(value))
    return len(osfs)


async def delete(tx: Tx, osfs: Sequence[Osf], *, by: str) -> int:
    """Delete OSFs, all or none.

    :raises ConflictError: one of them has VMs or DIs
    """
    for osf in osfs:
        vms = [vm.name for vm in await tx.vms.find(Filter.where(osf_id=osf.id))]
        dis = [f"{di.id} ({di.version})" for di in await tx.images.find(Filter.where(osf_id=osf.id))]
        for noun, found in (("VMs", vms), ("DIs", dis)):
            if found:
                raise ConflictError(
                    f"the OSF {osf.name} has the {noun} {few(found)}",
                    hint="delete them first; nothing was deleted",
                )
    await tx.osfs.delete([osf.id for osf in osfs])
    for osf in osfs:
        await tx.log.append(by=by, what="osf del", object=f"osf {osf.id}", was=osf.name)
    return len(osfs)


async def named(tx: Tx, name: str) -> Osf:
    """The OSF of this name.

    :raises NotFoundError: there is none
    """
    osf = await tx.osfs.by_name(name)
    if osf is None:
        raise NotFoundError(f"there is no OSF {name!r}")
    return osf


async def _check_name(tx: Tx, name: str) -> None:
    if not name.strip() or len(name) > 64:
        raise UsageError(f"name={name}: an OSF's name has 1 to 64 characters")
    if await tx.osfs.by_name(name) is not None:
        raise ConflictError(f"name={name}: there is an OSF of this name")
