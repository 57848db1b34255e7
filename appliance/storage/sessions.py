"""The client session of each VM: who owns the row, and how ownership passes on.

Every change is one guarded UPDATE, so that a row has one owner at every commit, whoever else
writes. An order to end a session is the row's `user_cmd`; only the owner, or the HKD for owners
that died, sets a session to disconnected.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, or_, select, update

from appliance.model import DiId, HostId, SessionId, UserCmd, UserId, UserState, VmCmd, VmId, VmState
from appliance.storage import schema
from appliance.storage.connection import Connection

RUNTIME = schema.vm_runtimes.c


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRow:
    """What a session needs to know of its VM: the VM's state and its own standing."""

    vm_id: VmId
    vm_state: VmState
    vm_cmd: VmCmd | None
    run: int
    failure: str | None
    current_di_id: DiId | None
    vm_address: str | None
    vm_vma_port: int | None
    vm_x_port: int | None
    user_state: UserState
    user_cmd: UserCmd | None
    session: SessionId | None

    @property
    def is_placed(self) -> bool:
        """Whether it is known where the VM can be reached."""
        return None not in (self.vm_address, self.vm_vma_port, self.vm_x_port)

    def held_by(self, session: SessionId) -> bool:
        """Whether `session` owns the row and nobody asks it to leave."""
        return self.session == session and self.user_cmd is None


COLUMNS = (
    RUNTIME.vm_id,
    RUNTIME.vm_state,
    RUNTIME.vm_cmd,
    RUNTIME.run,
    RUNTIME.failure,
    RUNTIME.current_di_id,
    RUNTIME.vm_address,
    RUNTIME.vm_vma_port,
    RUNTIME.vm_x_port,
    RUNTIME.user_state,
    RUNTIME.user_cmd,
    RUNTIME.l7r_session.label("session"),
)


class Sessions:
    """The session part of `vm_runtimes`, in one transaction."""

    def __init__(self, connection: Connection, at: datetime) -> None:
        self._connection = connection
        self._at = at

    async def get(self, vm_id: VmId) -> SessionRow | None:
        """The row of one VM; None if there is no such VM."""
        return (await self.get_all([vm_id])).get(vm_id)

    async def get_all(self, vm_ids: Collection[VmId]) -> Mapping[VmId, SessionRow]:
        """The rows of several VMs, in one query; those that do not exist are left out."""
        query = select(*COLUMNS).where(RUNTIME.vm_id.in_(vm_ids))
        return {row.vm_id: _session_row(row) for row in await self._connection.execute(query)}

    async def of_users(self, user_ids: Collection[UserId]) -> list[VmId]:
        """The VMs in session that belong to these users, or that they look at."""
        query = (
            select(RUNTIME.vm_id)
            .join(schema.vms, schema.vms.c.id == RUNTIME.vm_id)
            .where(
                RUNTIME.user_state != UserState.DISCONNECTED,
                or_(RUNTIME.real_user_id.in_(user_ids), schema.vms.c.user_id.in_(user_ids)),
            )
            .order_by(RUNTIME.vm_id)
        )
        return [VmId(vm_id) for vm_id in await self._connection.scalars(query)]

    async def take(
        self, vm_id: VmId, session: SessionId, *, host_id: HostId, pid: int, user_id: UserId, user_ip: str
    ) -> bool:
        """Make `session` the owner of a row that nobody owns; false if somebody does."""
        return await self._change(
            RUNTIME.vm_id == vm_id,
            RUNTIME.user_state == UserState.DISCONNECTED,
            user_state=UserState.CONNECTING,
            user_state_ts=self._at,
            user_cmd=None,
            l7r_session=session,
            l7r_host_id=host_id,
            l7r_pid=pid,
            real_user_id=user_id,
            user_ip=user_ip,
        )

    async def abort(self, vm_id: VmId) -> bool:
        """Order whoever owns the row to leave; false if nobody does, or the order was given before."""
        return await self._change(
            RUNTIME.vm_id == vm_id,
            RUNTIME.user_state != UserState.DISCONNECTED,
            RUNTIME.user_cmd.is_(None),
            user_cmd=UserCmd.ABORT,
        )

    async def connected(self, vm_id: VmId, session: SessionId) -> bool:
        """Note that the desktop is about to be shown; false unless the row is still ours to use."""
        return await self._change(
            RUNTIME.vm_id == vm_id,
            RUNTIME.l7r_session == session,
            RUNTIME.user_state == UserState.CONNECTING,
            RUNTIME.user_cmd.is_(None),
            RUNTIME.vm_state == VmState.RUNNING,
            user_state=UserState.CONNECTED,
            user_state_ts=self._at,
        )

    async def release(self, vm_id: VmId, session: SessionId) -> bool:
        """Give the row back; false, and nothing is touched, if `session` does not own it."""
        return await self._change(
            RUNTIME.vm_id == vm_id,
            RUNTIME.l7r_session == session,
            user_state=UserState.DISCONNECTED,
            user_state_ts=self._at,
            user_cmd=None,
            l7r_session=None,
            l7r_host_id=None,
            l7r_pid=None,
            user_ip=None,
        )

    async def _change(self, *where: Any, **values: Any) -> bool:
        result = await self._connection.execute(update(schema.vm_runtimes).where(*where).values(**values))
        return result.rowcount == 1


def _session_row(row: Row[Any]) -> SessionRow:
    return SessionRow(**row._mapping)
