"""What a client's session does to the rows: one transaction each, committed by the caller."""

from __future__ import annotations

from dataclasses import dataclass

from appliance.model import HostId, SessionId, StartedBy, User, VmId, VmState
from appliance.ops import vms
from appliance.storage.sessions import SessionRow
from appliance.storage.store import Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimant:
    """Who wants a desktop, through which node and process."""

    session: SessionId
    vm_id: VmId
    user: User
    user_ip: str
    host_id: HostId
    pid: int


async def take_over(tx: Tx, claimant: Claimant) -> SessionRow | None:
    """Make the claimant the owner of the row and, if the VM is stopped, wish it started (trap T6).

    None: somebody else owns it, and has been ordered to leave.

    :raises ConflictError: no host may start the VM; the row stays free
    """
    taken = await tx.sessions.take(
        claimant.vm_id,
        claimant.session,
        host_id=claimant.host_id,
        pid=claimant.pid,
        user_id=claimant.user.id,
        user_ip=claimant.user_ip,
    )
    if not taken:
        await tx.sessions.abort(claimant.vm_id)
        return None
    row = await tx.sessions.get(claimant.vm_id)
    if row is not None and row.vm_state is VmState.STOPPED:
        return await wish_start(tx, claimant)
    return row


async def wish_start(tx: Tx, claimant: Claimant) -> SessionRow | None:
    """Wish the claimant's VM started; the row as it is then, None if there is no such VM.

    :raises ConflictError: no host may start it
    """
    await vms.start(tx, [claimant.vm_id], by=claimant.user.login, started_by=StartedBy.CLIENT)
    return await tx.sessions.get(claimant.vm_id)
