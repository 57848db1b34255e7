"""Repository of `vms` with their runtime rows: reading them, and the wishes that people write into them.

What the HKD itself writes is in `runtimes.py`, what the L7R writes in `sessions.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    null,
    or_,
    select,
    update,
)

from appliance.errors import NotFoundError
from appliance.filters import Filter
from appliance.model import (
    HostState,
    OsfId,
    StartedBy,
    UserCmd,
    UserId,
    UserState,
    Vm,
    VmCmd,
    VmId,
    VmRuntime,
    VmState,
)
from appliance.storage.connection import Connection
from appliance.storage.schema import (
    di_tags,
    dis,
    host_runtimes,
    hosts,
    osfs,
    tag_history,
    users,
    vm_counters,
    vm_properties,
    vm_runtimes,
    vms,
)
from appliance.storage.where import Keys, property_of, where

_host = hosts.alias("host")
_l7r_host = hosts.alias("l7r_host")
_real_user = users.alias("real_user")
_running = dis.alias("running")
_next = dis.alias("next")
_assigned = vm_runtimes.alias("assigned")

KEYS: Keys = {
    **{column.name: column for column in vms.c},
    **{column.name: column for column in vm_runtimes.c},
    "vm": vms.c.name,
    "user": users.c.login,
    "real_user": _real_user.c.login,
    "osf": osfs.c.name,
    "backend": osfs.c.backend,
    "host": _host.c.name,
    "l7r_host": _l7r_host.c.name,
    "state": vm_runtimes.c.vm_state,
    "di": _running.c.version,
    "next_di": _next.c.version,
}

ENDING = (VmState.STOPPING, VmState.ZOMBIE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """How often a VM was started, and how often its VMA answered then (protocol.md 5.10)."""

    attempts: int
    ok: int


class Vms:
    """The desktops."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def get(self, vm_id: VmId) -> Vm:
        """One VM.

        :raises NotFoundError: there is none with this id
        """
        row = (await self._connection.execute(_BY_ID, {"vm": vm_id})).one_or_none()
        if row is None:
            raise NotFoundError(f"there is no VM with id {vm_id}")
        return _vm(row)

    async def find(self, filter_: Filter | None = None) -> list[Vm]:
        """The VMs that pass, by id, in one query; a tag without a DI leaves `next_di` empty (trap T44)."""
        passes = where(filter_, KEYS, property_of(vm_properties, vms.c.id))
        rows = await self._connection.execute(_SELECT.where(passes).order_by(vms.c.id))
        return [_vm(row) for row in rows]

    async def ids(self, filter_: Filter, among: Collection[int] | None = None) -> set[int]:
        """The ids of the VMs that pass; with `among`, of these only."""
        passes = where(filter_, KEYS, property_of(vm_properties, vms.c.id))
        chosen = _SELECT.with_only_columns(vms.c.id, maintain_column_froms=True).where(passes)
        if among is not None:
            chosen = chosen.where(vms.c.id.in_(among))
        return set(await self._connection.scalars(chosen))

    async def by_name(self, name: str) -> Vm | None:
        """The VM of this name, if there is one."""
        row = (await self._connection.execute(_SELECT.where(vms.c.name == name))).one_or_none()
        return None if row is None else _vm(row)

    async def add(
        self, *, uuid: str, name: str, user_id: UserId, osf_id: OsfId, di_tag: str, ip: str, subid_slot: int
    ) -> VmId:
        """A new VM with its runtime and counter rows; name, address and slot must be free."""
        row = insert(vms).values(
            uuid=uuid,
            name=name,
            user_id=user_id,
            osf_id=osf_id,
            di_tag=di_tag,
            ip=ip,
            subid_slot=subid_slot,
        )
        vm_id = VmId((await self._connection.execute(row.returning(vms.c.id))).scalar_one())
        await self._connection.execute(insert(vm_runtimes).values(vm_id=vm_id))
        await self._connection.execute(insert(vm_counters).values(vm_id=vm_id))
        return vm_id

    async def edit(self, ids: Collection[VmId], columns: Mapping[str, object]) -> int:
        """Overwrite columns of `vms`; returns how many rows there were."""
        return (
            await self._connection.execute(update(vms).where(vms.c.id.in_(ids)).values(**columns))
        ).rowcount

    async def delete(self, ids: Collection[VmId]) -> int:
        """Remove VMs with their runtime rows; returns how many."""
        return (await self._connection.execute(delete(vms).where(vms.c.id.in_(ids)))).rowcount

    async def counters(self, ids: Collection[VmId]) -> dict[VmId, Runs]:
        """How often these VMs were started."""
        rows = await self._connection.execute(select(vm_counters).where(vm_counters.c.vm_id.in_(ids)))
        return {VmId(row.vm_id): Runs(attempts=row.run_attempts, ok=row.run_ok) for row in rows}

    async def addresses(self) -> dict[str, str]:
        """Every address that is given away, with the name of its VM."""
        rows = await self._connection.execute(select(vms.c.ip, vms.c.name).where(vms.c.ip.is_not(None)))
        return {row.ip: row.name for row in rows}

    async def subid_slots(self) -> set[int]:
        """Every range of host ids that is given away."""
        return set(await self._connection.scalars(select(vms.c.subid_slot)))

    async def wish_start(self, ids: Collection[VmId], started_by: StartedBy) -> list[VmId]:
        """Ask for stopped VMs to be started, each on the least loaded host; returns which were asked for.

        Host and wish are one UPDATE (trap T6), and a stopped VM forgets where it ran before (trap T7).
        VMs whose start is wished already, and all if no host could take one, are left as they are.
        """
        chosen = _best_host()
        row = (
            update(vm_runtimes)
            .where(
                vm_runtimes.c.vm_id.in_(ids),
                vm_runtimes.c.vm_state == VmState.STOPPED,
                vm_runtimes.c.vm_cmd.is_(None),
                chosen.is_not(None),
            )
            .values(
                vm_cmd=VmCmd.START,
                host_id=chosen,
                started_by=started_by,
            )
        )
        return await self._changed(row)

    async def without_host(self, ids: Collection[VmId]) -> bool:
        """Whether any of these VMs is stopped and waits for nothing: its start was wished in vain."""
        waits = (vm_runtimes.c.vm_state == VmState.STOPPED) & vm_runtimes.c.vm_cmd.is_(None)
        return bool(
            await self._connection.scalar(select(exists().where(vm_runtimes.c.vm_id.in_(ids), waits)))
        )

    async def wish_stop(self, ids: Collection[VmId], *, restart: bool) -> list[VmId]:
        """Ask for VMs to be stopped, and with `restart` to be started again; returns which were asked for.

        A start that nobody has taken yet is withdrawn, unless a restart is wished. For a stop under way
        the wish decides anew whether a start follows.
        """
        runtime = vm_runtimes.c
        waiting = and_(runtime.vm_state == VmState.STOPPED, runtime.vm_cmd == VmCmd.START)
        alive = runtime.vm_state.in_([VmState.STARTING, VmState.RUNNING, VmState.DEBUGGING])
        ending = runtime.vm_state.in_(ENDING)
        concerned = (
            or_(alive, ending)
            if restart
            else or_(alive, waiting, and_(ending, or_(runtime.restart, runtime.vm_cmd == VmCmd.STOP)))
        )
        row = (
            update(vm_runtimes)
            .where(runtime.vm_id.in_(ids), concerned)
            .values(
                vm_cmd=case((waiting, null()), else_=VmCmd.STOP),
                host_id=case((waiting, null()), else_=runtime.host_id),
                started_by=case((waiting, null()), else_=runtime.started_by),
                restart=restart,
            )
        )
        return await self._changed(row)

    async def wish_disconnect(self, ids: Collection[VmId]) -> list[VmId]:
        """Ask the sessions of VMs to end; those without a session are left alone (trap T41)."""
        row = (
            update(vm_runtimes)
            .where(vm_runtimes.c.vm_id.in_(ids), vm_runtimes.c.user_state != UserState.DISCONNECTED)
            .values(user_cmd=UserCmd.ABORT)
        )
        return await self._changed(row)

    async def _changed(self, row: Any) -> list[VmId]:
        return sorted(await self._connection.scalars(row.returning(vm_runtimes.c.vm_id)))


def _best_host() -> ColumnElement[int | None]:
    """The unblocked backend to which a new run goes: one that is up if there is one, then the emptiest.

    A node whose daemon has never run comes last: it may be a row that somebody added too early.
    """
    seen = host_runtimes.c.ok_ts.is_not(None)
    load = (
        select(func.count())
        .select_from(_assigned)
        .where(_assigned.c.host_id == hosts.c.id)
        .correlate(hosts)
        .scalar_subquery()
    )
    return (
        select(hosts.c.id)
        .join(host_runtimes)
        .where(hosts.c.backend, ~host_runtimes.c.blocked)
        .order_by(
            case((host_runtimes.c.state == HostState.RUNNING, 0), (seen, 1), else_=2),
            load,
            hosts.c.id,
        )
        .limit(1)
        .scalar_subquery()
    )


def _select() -> Select[Any]:
    to_next = and_(di_tags.c.osf_id == vms.c.osf_id, di_tags.c.tag == vms.c.di_tag)
    tagged = (
        select(func.max(tag_history.c.at))
        .where(tag_history.c.osf_id == vms.c.osf_id, tag_history.c.tag == vms.c.di_tag)
        .correlate(vms)
        .scalar_subquery()
    )
    return (
        select(
            vms,
            *(column for column in vm_runtimes.c if column is not vm_runtimes.c.vm_id),
            users.c.login.label("user"),
            _real_user.c.login.label("real_user"),
            osfs.c.name.label("osf"),
            osfs.c.backend.label("backend"),
            _host.c.name.label("host"),
            _l7r_host.c.name.label("l7r_host"),
            _running.c.version.label("di"),
            _next.c.version.label("next_di"),
            _next.c.id.label("next_di_id"),
            tagged.label("next_di_since"),
            _next.c.blocked.label("next_di_blocked"),
        )
        .join(vm_runtimes, vm_runtimes.c.vm_id == vms.c.id)
        .join(users, users.c.id == vms.c.user_id)
        .join(osfs, osfs.c.id == vms.c.osf_id)
        .outerjoin(_real_user, _real_user.c.id == vm_runtimes.c.real_user_id)
        .outerjoin(_host, _host.c.id == vm_runtimes.c.host_id)
        .outerjoin(_l7r_host, _l7r_host.c.id == vm_runtimes.c.l7r_host_id)
        .outerjoin(_running, _running.c.id == vm_runtimes.c.current_di_id)
        .outerjoin(di_tags, to_next)
        .outerjoin(_next, _next.c.id == di_tags.c.di_id)
    )


_SELECT = _select()
_BY_ID = _SELECT.where(vms.c.id == bindparam("vm"))
_RUNTIME_FIELDS = VmRuntime.__dataclass_fields__
_SETTINGS_FIELDS = Vm.__dataclass_fields__.keys() - {"runtime"}


def _vm(row: Row[Any]) -> Vm:
    values = row._mapping
    runtime = VmRuntime(**{name: values[name] for name in _RUNTIME_FIELDS})
    return Vm(runtime=runtime, **{name: values[name] for name in _SETTINGS_FIELDS})
