"""Rows as the storage layer returns them, made by hand."""

from __future__ import annotations

from appliance.model import BackendKind, DiId, HostId, OsfId, UserId, UserState, Vm, VmRuntime, VmState
from appliance.runtime.machine import VmMachine
from tests.support.machines import GUEST, VM_ID


def vm_row(saved: VmMachine) -> Vm:
    """The VM whose row shows the machine `saved`."""
    state = saved.phase.vm_state
    runs = state is not VmState.STOPPED and saved.guest is not None
    return Vm(
        id=VM_ID,
        uuid="u-7",
        name="desk7",
        user_id=UserId(1),
        user="alice",
        osf_id=OsfId(1),
        osf="desktop",
        backend=BackendKind.LXC,
        di_tag="default",
        ip=str(GUEST.address.ip),
        subid_slot=0,
        runtime=VmRuntime(
            vm_state=state,
            vm_state_ts=None,
            vm_phase=saved.phase,
            vm_cmd=None,
            restart=saved.restart,
            started_by=saved.started_by,
            run=saved.run,
            host_id=HostId(1),
            current_di_id=DiId(3) if runs else None,
            user_state=UserState.DISCONNECTED,
            user_state_ts=None,
            user_cmd=None,
            l7r_host_id=None,
            l7r_session=None,
            real_user_id=None,
            vm_address=None,
            vm_vma_port=None,
            vm_x_port=None,
            blocked=False,
            block_cause=None,
            failure=None,
            failure_console=None,
            failure_cause=None,
            failed_at=None,
            failed_di_id=None,
            failures=0,
            waits_for=None,
            vm_expiration_soft=None,
            vm_expiration_hard=None,
            expire_asked=0,
            expire_answered=0,
            expire_next_ts=None,
            expire_postponed=0,
            expire_warned=False,
            expire_untold=False,
            expire_unseen=False,
        ),
    )
