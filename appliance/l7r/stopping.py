"""`stop_vm`: a user's wish to have a desktop stopped, and the wait until it has (protocol.md 1.8)."""

from __future__ import annotations

from collections.abc import Callable

from appliance import config
from appliance.errors import ProtocolError
from appliance.l7r.services import Services
from appliance.l7r.session import REMIND_S
from appliance.model import Vm, VmState
from appliance.ops import vms


async def stop_and_wait(
    services: Services, vm: Vm, *, by: str, tell: Callable[[str], None], left: Callable[[], bool]
) -> None:
    """Return once the VM is stopped; `tell` is given a line for the client at first, and one in a long wait.

    A client that has `left` is not waited for; its wish remains.

    :raises ProtocolError: 503, it is a zombie; 408, it does not stop in time
    """
    settings = services.settings()
    limit_s, poll_s = settings[config.L7R_TIMEOUT_VM_STOP], settings[config.L7R_POLL_VM]
    texts = ["Still stopping the desktop", "Stopping the desktop"]
    begun = services.clock.monotonic()
    with services.feed.watch(vm.id) as news:
        if vm.runtime.vm_state is not VmState.ZOMBIE:
            async with services.store.write() as tx:
                await vms.stop(tx, [vm.id], by=by)
            services.bell()
        while not left():
            row = await services.rows.read(vm.id)
            if row is None or (row.vm_state is VmState.STOPPED and row.vm_cmd is None):
                return
            if row.vm_state is VmState.ZOMBIE:
                raise ProtocolError(
                    503, "the desktop could not be stopped cleanly; an administrator must look at it"
                )
            waited = services.clock.monotonic() - begun
            if waited >= limit_s:
                raise ProtocolError(408, f"the desktop did not stop within {limit_s:g} s")
            if texts and waited >= REMIND_S * (2 - len(texts)):
                tell(texts.pop())
            await news.changed(min(poll_s, limit_s - waited))
