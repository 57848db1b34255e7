"""What people do with OSFs: add, edit, delete."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from appliance.errors import ConflictError, NotFoundError, UsageError, few
from appliance.filters import Filter
from appliance.model import PLAIN_AGEING, AgeingPolicy, BackendKind, Osf
from appliance.storage.store import Tx

CARRIED = frozenset({"memory", "cpus", "backend"})
"""Columns of which hosts have only so much to give."""
RAM_UNIT = 1000 * 1024
"""Bytes in a unit of `hosts.usable_ram`: QVD counts in thousands of kB."""
MIB = 1 << 20


def memory_mib(usable_ram: float) -> float:
    """The memory of a host, in the unit of people."""
    return usable_ram * RAM_UNIT / MIB


def too_much(osf: Osf, *, has_mib: float, has_cpus: int) -> str | None:
    """Why a host with so much (0: unknown) cannot carry a VM of `osf`; a container takes what there is."""
    if osf.backend is not BackendKind.KVM:
        return None
    if 0 < has_mib < osf.memory_mib:
        return f"a VM of {osf.name} takes {osf.memory_mib} MiB of memory, of {has_mib:.0f} that a host has"
    if 0 < has_cpus < (osf.cpus or 0):
        return f"a VM of {osf.name} takes {osf.cpus:g} processors, of {has_cpus} that a host has"
    return None


async def _check_carried(tx: Tx, osfs: Sequence[Osf]) -> None:
    """Whether the largest host can carry VMs; the processors of others than this one are not known."""
    hosts = await tx.hosts.find()
    has_mib = max((memory_mib(host.usable_ram or 0) for host in hosts), default=0.0)
    has_cpus = (os.cpu_count() or 0) if len(hosts) == 1 else 0
    for osf in osfs:
        if reason := too_much(osf, has_mib=has_mib, has_cpus=has_cpus):
            raise ConflictError(reason, hint="choose less")


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
    io_weight: int | None = None,
    ageing: AgeingPolicy = PLAIN_AGEING,
    by: str,
) -> Osf:
    """A new OSF.

    :raises ConflictError: the name is taken, or no host can carry one of its VMs
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
        io_weight=io_weight,
        ageing=ageing,
    )
    await tx.log.append(by=by, what="osf add", object=f"osf {osf_id}", now=name)
    added = await tx.osfs.get(osf_id)
    await _check_carried(tx, [added])
    return added


async def edit(tx: Tx, osfs: Sequence[Osf], columns: Mapping[str, object], *, by: str) -> int:
    """Overwrite columns of OSFs, all or none; a VM follows at its next start. Returns how many.

    :raises ConflictError: the name is taken, the backend of an OSF with DIs would change, or no host can
        carry what VMs would get
    """
    if "name" in columns:
        if len(osfs) > 1:
            raise ConflictError(f"{len(osfs)} OSFs cannot share one name", hint="choose one with -f id=")
        if any(osf.name != columns["name"] for osf in osfs):
            await _check_name(tx, str(columns["name"]))
    if "backend" in columns:
        for osf in osfs:
            if osf.backend != columns["backend"] and await tx.images.find(
                Filter.where(osf_id=osf.id), trash=True
            ):
                raise ConflictError(
                    f"the backend of {osf.name} cannot change: it has DIs for {osf.backend}",
                    hint="make another OSF",
                )
    await tx.osfs.edit([osf.id for osf in osfs], columns)
    if CARRIED & columns.keys():
        await _check_carried(tx, [await tx.osfs.get(osf.id) for osf in osfs])
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
        if gone := await tx.images.find(Filter.where(osf_id=osf.id), trash=True):
            raise ConflictError(
                f"the OSF {osf.name} has DIs in the trash: {few([f'{di.id} ({di.version})' for di in gone])}",
                hint=f"qa di purge -f osf={osf.name}; nothing was deleted",
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
