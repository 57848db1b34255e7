"""Limits for running VMs: to be asked, or made, to restart into another image (protocol.md 5.8).

Only VMs that run another image than they would boot next have limits. Each function works inside the
caller's transaction, after tags or VMs were changed, so that what is true and what is limited agree at
every commit.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from appliance.model import TAG_HEAD, AgeingVm, DiId, Limit, OsfId, VmId
from appliance.storage.ageing import Limits
from appliance.storage.store import Tx


async def stamp_tag(tx: Tx, osf_id: OsfId, tag: str, di_id: DiId, limits: Limits, *, by: str) -> int:
    """Limit the VMs that follow a tag which now points at a DI, and run another; returns how many."""
    stamped = await tx.ageing.stamp_followers(osf_id, tag, limits, but=di_id)
    return await _noted(tx, stamped, f"osf {osf_id} tag {tag}", limits, by=by)


async def stamp_untagged(tx: Tx, osf_id: OsfId, tag: str, di_id: DiId, limits: Limits, *, by: str) -> int:
    """Limit the VMs that follow a tag which a DI has lost, and run that DI; returns how many."""
    stamped = await tx.ageing.stamp_followers(osf_id, tag, limits, running=di_id)
    return await _noted(tx, stamped, f"osf {osf_id} tag {tag}", limits, by=by)


async def stamp_vms(tx: Tx, vm_ids: Collection[VmId], limits: Limits, *, by: str) -> int:
    """Limit those of these VMs that run another image than they would boot; returns how many."""
    stamped = await tx.ageing.stamp(vm_ids, limits)
    return await _noted(tx, stamped, f"{len(vm_ids)} vms", limits, by=by)


async def settle(tx: Tx, *, by: str) -> int:
    """Lift the limits of VMs that run what they would boot by now: a tag came back. Returns how many."""
    lifted = await tx.ageing.settle()
    if lifted:
        await tx.log.append(by=by, what="expire lift", object=f"{lifted} vms", now="the running image is due")
    return lifted


async def concerned(tx: Tx, osf_id: OsfId, tag: str) -> Sequence[AgeingVm]:
    """The VMs in use that follow a tag and run another image than it points at."""
    return [vm for vm in await tx.ageing.in_use(osf_id, tag) if vm.differs]


async def up_to_date(tx: Tx, osf_id: OsfId, tag: str) -> Sequence[AgeingVm]:
    """The VMs in use that follow a tag and run what it points at: nobody limits them."""
    return [vm for vm in await tx.ageing.in_use(osf_id, tag) if not vm.differs]


async def concerned_by_head(tx: Tx, osf_id: OsfId, limits: Limits) -> Sequence[AgeingVm]:
    """The VMs in use that another image added to their OSF concerns, as they would be after that."""
    return [
        replace(
            vm,
            next_di_id=None,
            vm_expiration_soft=limits.get(Limit.SOFT, vm.vm_expiration_soft),
            vm_expiration_hard=limits.get(Limit.HARD, vm.vm_expiration_hard),
        )
        for vm in await tx.ageing.in_use(osf_id, TAG_HEAD)
    ]


async def _noted(tx: Tx, stamped: int, whom: str, limits: Limits, *, by: str) -> int:
    if stamped:
        said = ", ".join(f"{limit} {_shown(limits, limit)}" for limit in limits)
        await tx.log.append(by=by, what="expire", object=whom[:128], now=f"{said} for {stamped} VMs")
    return stamped


def _shown(limits: Limits, limit: Limit) -> str:
    at = limits[limit]
    return "lifted" if at is None else at.isoformat()
