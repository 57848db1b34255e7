"""What follows when a run fails, and what ends it again: counts, blocks and alarms.

An image that failed twice in a row on a VM blocks that VM until the VM would boot another image, or has
booted this one after all, or somebody unblocks it; however many VMs it blocks, it is one alarm. What the
host lacks blocks nobody: the starts that wait for it share one alarm, which ends with the last of them.

Each function works inside the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from appliance.filters import Filter
from appliance.model import Alarm, AlarmKind, BlockCause, DiId, FailureCause, HookEvent, Vm, VmId, VmState
from appliance.ops import notices
from appliance.storage.runtimes import Was
from appliance.storage.store import Tx

IMAGE_FAILURES = 2
"""After so many failures in a row of one image on one VM, that VM is blocked."""
BY_HKD = "hkd"
REASON_CHARS = 1000
CONSOLE_CHARS = 32 * 1024


async def record(
    tx: Tx, vm_id: VmId, *, reason: str, console: str, cause: FailureCause, lacks: str | None = None
) -> None:
    """Keep why a run failed on its VM, and draw the consequences.

    `lacks` is the part of the host that is missing, if the host is the cause.
    """
    for vm in await tx.vms.find(Filter.where(id=vm_id)):
        said = "".join(char if char.isprintable() else " " for char in reason)[:REASON_CHARS]
        await tx.runtimes.record_failure(vm_id, said, console[-CONSOLE_CHARS:], cause, waits_for=lacks)
        if cause is FailureCause.IMAGE:
            await _hold_against_image(tx, vm, said)
        if lacks is not None:
            waiting = await tx.runtimes.waiting_for(lacks)
            text = f"{_vms(waiting, 'waits', 'wait')} for the host ({lacks}); last {vm.name}: {said}"
            await tx.alarms.raise_(AlarmKind.HOST, lacks, text)
        if cause is FailureCause.IMAGE or (lacks is not None and vm.runtime.waits_for != lacks):
            told = {**notices.of_vm(vm), "cause": cause, "reason": said, "waits_for": lacks}
            await notices.put(tx, HookEvent.START_FAILED, told)
        if vm.runtime.waits_for not in {None, lacks}:
            await _waited_no_more(tx, str(vm.runtime.waits_for))


async def overcome(tx: Tx, vm_id: VmId, was: Was, *, now: VmState) -> None:
    """A VM has come from what its row `was` to the state `now`: end what is over by that."""
    if was.waits_for is not None:
        await _waited_no_more(tx, was.waits_for)
    if now is VmState.RUNNING and was.vm_state is not VmState.RUNNING and was.current_di_id is not None:
        await tx.alarms.clear(AlarmKind.IMAGE, _object(was.current_di_id))
        if was.block_cause is BlockCause.IMAGE:
            await _log_unblocked(tx, [vm_id], by=BY_HKD)


async def images_changed(tx: Tx, *, by: str) -> None:
    """Tags have moved, or VMs follow others: lift the blocks and counts of images that are not booted next.

    To be called in the transaction that changed them.
    """
    await _log_unblocked(tx, await tx.runtimes.forget_other_images(), by=by)
    await end_image_alarms(tx)


async def end_image_alarms(tx: Tx) -> None:
    """Clear the alarms of images because of which no VM is blocked, or kept from moving, any more."""
    blocking = {*await tx.runtimes.blocking_images(), *await tx.ageing.holding_back()}
    await tx.alarms.clear_all(AlarmKind.IMAGE, but=[_object(di_id) for di_id in blocking])


async def clear_alarms(tx: Tx, alarms: Sequence[Alarm], *, by: str) -> int:
    """Somebody has looked after these alarms; returns how many were open."""
    for alarm in alarms:
        await tx.log.append(by=by, what="alarm clear", object=f"alarm {alarm.id}", was=alarm.text)
    return await tx.alarms.clear_these([alarm.id for alarm in alarms])


async def _hold_against_image(tx: Tx, vm: Vm, reason: str) -> None:
    """Count a failure of the VM's image, unless the VM would boot another one by now anyway."""
    runtime = vm.runtime
    di_id = runtime.current_di_id
    if di_id is None or di_id != vm.next_di_id:
        return
    number = runtime.failures + 1 if runtime.failed_di_id == di_id else 1
    await tx.runtimes.count_failures(vm.id, di_id, number)
    if number >= IMAGE_FAILURES:
        for blocked in await tx.runtimes.block([vm.id], BlockCause.IMAGE):
            await tx.log.append(by=BY_HKD, what="vm block", object=f"vm {blocked}", now=BlockCause.IMAGE)
    name = f"DI {di_id}, version {vm.di} of the OSF {vm.osf},"
    if held := await tx.runtimes.blocked_by(di_id):
        text = f"{name} does not boot and blocks {_vms(held)}: {reason}"
        await tx.alarms.raise_(AlarmKind.IMAGE, _object(di_id), text)
    elif kept := (await tx.ageing.holding_back()).get(di_id):
        text = f"{name} does not boot, and {_vms(kept)} with limits will not move to it: {reason}"
        await tx.alarms.raise_(AlarmKind.IMAGE, _object(di_id), text)


async def _waited_no_more(tx: Tx, part: str) -> None:
    if not await tx.runtimes.waiting_for(part):
        await tx.alarms.clear(AlarmKind.HOST, part)


async def _log_unblocked(tx: Tx, vm_ids: Collection[VmId], *, by: str) -> None:
    for vm_id in vm_ids:
        await tx.log.append(by=by, what="vm unblock", object=f"vm {vm_id}", was=BlockCause.IMAGE)


def _object(di_id: DiId) -> str:
    return f"di {di_id}"


def _vms(number: int, one: str = "", several: str = "") -> str:
    words = f"1 VM {one}" if number == 1 else f"{number} VMs {several}"
    return words.strip()
