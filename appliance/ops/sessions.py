"""What a client's session does to the rows: one transaction each, committed by the caller."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from appliance.errors import ConflictError
from appliance.filters import Filter
from appliance.model import HostId, SessionId, StartedBy, User, UserId, VmId, VmState
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

    :raises ConflictError: no host may start the VM, or meanwhile the user was disabled or the VM given away;
        the row stays free
    """
    if not await _may_log_in(tx, claimant.user.id):
        raise ConflictError("the account is disabled")
    if any(vm.user_id != claimant.user.id for vm in await tx.vms.find(Filter.where(id=claimant.vm_id))):
        raise ConflictError("the desktop belongs to somebody else now")
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


async def end_of_users(tx: Tx, user_ids: Collection[UserId], *, by: str) -> int:
    """Order every session of these users to end, of their own desktops and of others'; how many there were.

    To be called in the transaction that disables or deletes them: no session begins after it.
    """
    present = await tx.sessions.of_users(user_ids)
    return await vms.disconnect(tx, present, by=by)


async def _may_log_in(tx: Tx, user_id: UserId) -> bool:
    return any(user.enabled for user in await tx.users.find(Filter.where(id=user_id)))
