"""Repository of `hosts` with their runtime rows and counters."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, delete, func, insert, null, select, update

from appliance.errors import NotFoundError
from appliance.filters import Filter
from appliance.model import Host, HostCmd, HostId, HostState
from appliance.storage.connection import Connection
from appliance.storage.schema import host_counters, host_properties, host_runtimes, hosts, vm_runtimes
from appliance.storage.where import Keys, property_of, where

KEYS: Keys = {
    "id": hosts.c.id,
    "name": hosts.c.name,
    "address": hosts.c.address,
    "frontend": hosts.c.frontend,
    "backend": hosts.c.backend,
    "state": host_runtimes.c.state,
    "blocked": host_runtimes.c.blocked,
    "ok_ts": host_runtimes.c.ok_ts,
    "usable_ram": host_runtimes.c.usable_ram,
    "usable_cpu": host_runtimes.c.usable_cpu,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What a node's L7R has counted since the node was added (protocol.md 5.10)."""

    http_requests: int
    auth_attempts: int
    auth_ok: int
    nx_attempts: int
    nx_ok: int
    short_sessions: int


class Hosts:
    """The nodes."""

    def __init__(self, connection: Connection, at: datetime) -> None:
        self._connection = connection
        self._at = at

    async def get(self, host_id: HostId) -> Host:
        """One host.

        :raises NotFoundError: there is none with this id
        """
        found = await self.find(Filter.where(id=host_id))
        if not found:
            raise NotFoundError(f"there is no host with id {host_id}")
        return found[0]

    async def by_name(self, name: str) -> Host | None:
        """The host of this name, if there is one."""
        row = (await self._connection.execute(_hosts().where(hosts.c.name == name))).one_or_none()
        return None if row is None else _host(row)

    async def find(self, filter_: Filter | None = None) -> list[Host]:
        """The hosts that pass, by id."""
        passes = where(filter_, KEYS, property_of(host_properties, hosts.c.id))
        rows = await self._connection.execute(_hosts().where(passes).order_by(hosts.c.id))
        return [_host(row) for row in rows]

    async def add(self, name: str, address: str) -> HostId:
        """A new host with its runtime and counter rows; name and address must be free."""
        row = insert(hosts).values(name=name, address=address).returning(hosts.c.id)
        host_id = HostId((await self._connection.execute(row)).scalar_one())
        await self._connection.execute(insert(host_runtimes).values(host_id=host_id))
        await self._connection.execute(insert(host_counters).values(host_id=host_id))
        return host_id

    async def delete(self, ids: Collection[HostId]) -> int:
        """Remove hosts to which nothing refers; returns how many."""
        return (await self._connection.execute(delete(hosts).where(hosts.c.id.in_(ids)))).rowcount

    async def block(self, ids: Collection[HostId], *, blocked: bool) -> list[HostId]:
        """Keep new work from hosts, or let it in again; returns those for which this is new."""
        row = (
            update(host_runtimes)
            .where(host_runtimes.c.host_id.in_(ids), host_runtimes.c.blocked.is_not(blocked))
            .values(blocked=blocked)
        )
        return sorted(await self._connection.scalars(row.returning(host_runtimes.c.host_id)))

    async def counters(self, ids: Collection[HostId]) -> dict[HostId, Counters]:
        """What the L7Rs of these hosts have counted."""
        rows = await self._connection.execute(select(host_counters).where(host_counters.c.host_id.in_(ids)))
        return {
            HostId(row.host_id): Counters(**{f.name: row._mapping[f.name] for f in fields(Counters)})
            for row in rows
        }

    async def count(self, host_id: HostId, counter: str) -> None:
        """Add one to a counter, in the database itself (trap T11)."""
        column = host_counters.c[counter]
        await self._connection.execute(
            update(host_counters).where(host_counters.c.host_id == host_id).values({column: column + 1})
        )

    async def declare(self, host_id: HostId, state: HostState, *, pid: int | None, boot_id: str) -> None:
        """Say what the HKD of this host is doing, and since which boot."""
        await self._connection.execute(
            update(host_runtimes)
            .where(host_runtimes.c.host_id == host_id)
            .values(state=state, pid=pid, boot_id=boot_id, ok_ts=self._at)
        )

    async def measure(self, host_id: HostId, *, usable_cpu: float, usable_ram: float) -> None:
        """Say what this host has to give."""
        await self._connection.execute(
            update(host_runtimes)
            .where(host_runtimes.c.host_id == host_id)
            .values(usable_cpu=usable_cpu, usable_ram=usable_ram)
        )

    async def order(self, ids: Collection[HostId], cmd: HostCmd) -> None:
        """Write a command for the daemons of hosts."""
        await self._connection.execute(
            update(host_runtimes).where(host_runtimes.c.host_id.in_(ids)).values(cmd=cmd)
        )

    async def claim(self, host_id: HostId) -> HostCmd | None:
        """Take the command for the daemon of a host, if there is one: nobody else will take it."""
        there = (host_runtimes.c.host_id == host_id, host_runtimes.c.cmd.is_not(None))
        cmd = await self._connection.scalar(select(host_runtimes.c.cmd).where(*there))
        if cmd is not None:
            await self._connection.execute(update(host_runtimes).where(*there).values(cmd=null()))
        return cmd

    async def tick(self, host_id: HostId) -> bool:
        """A sign of life; false if the row is gone (trap T15)."""
        ticked = await self._connection.execute(
            update(host_runtimes).where(host_runtimes.c.host_id == host_id).values(ok_ts=self._at)
        )
        return ticked.rowcount == 1


def _hosts() -> Select[Any]:
    assigned = (
        select(func.count())
        .select_from(vm_runtimes)
        .where(vm_runtimes.c.host_id == hosts.c.id)
        .scalar_subquery()
    )
    return select(hosts, *_runtime_columns(), assigned.label("vms")).join(host_runtimes)


def _runtime_columns() -> list[Any]:
    return [column for column in host_runtimes.c if column is not host_runtimes.c.host_id]


def _host(row: Row[Any]) -> Host:
    return Host(
        id=HostId(row.id),
        name=row.name,
        address=row.address,
        backend=row.backend,
        frontend=row.frontend,
        state=row.state,
        blocked=row.blocked,
        pid=row.pid,
        ok_ts=row.ok_ts,
        usable_ram=row.usable_ram,
        usable_cpu=row.usable_cpu,
        boot_id=row.boot_id,
        vms=row.vms,
    )
