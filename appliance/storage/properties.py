"""Repository of the five property tables: free keys on OSFs, DIs, users, VMs and hosts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import delete, insert, select

from appliance.model import DiId, OsfId, UserId, VmId
from appliance.storage.connection import Connection
from appliance.storage.schema import (
    di_properties,
    host_properties,
    osf_properties,
    user_properties,
    vm_properties,
)


class Owner(StrEnum):
    """What may have properties."""

    HOST = "host"
    USER = "user"
    OSF = "osf"
    DI = "di"
    VM = "vm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Property:
    """One key of one owner."""

    owner_id: int
    key: str
    value: str


_TABLES = {
    Owner.HOST: host_properties,
    Owner.USER: user_properties,
    Owner.OSF: osf_properties,
    Owner.DI: di_properties,
    Owner.VM: vm_properties,
}


class Properties:
    """What people attached to things."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def merged(
        self, *, osf_id: OsfId, di_id: DiId | None, user_id: UserId, vm_id: VmId
    ) -> dict[str, str]:
        """What holds for a VM; the later wins: OSF, DI, user, VM."""
        found: dict[str, str] = {}
        for owner, owner_id in (
            (Owner.OSF, osf_id),
            (Owner.DI, di_id),
            (Owner.USER, user_id),
            (Owner.VM, vm_id),
        ):
            if owner_id is not None:
                found.update({one.key: one.value for one in await self.of(owner, [owner_id])})
        return found

    async def of(
        self, owner: Owner, ids: Collection[int], keys: Collection[str] | None = None
    ) -> list[Property]:
        """The properties of these owners, by owner and key; with `keys`, those alone."""
        table = _TABLES[owner]
        owner_id = next(iter(table.primary_key.columns))
        query = select(owner_id.label("owner_id"), table.c.key, table.c.value).where(owner_id.in_(ids))
        if keys is not None:
            query = query.where(table.c.key.in_(keys))
        rows = await self._connection.execute(query.order_by(owner_id, table.c.key))
        return [Property(**row._mapping) for row in rows]

    async def set(self, owner: Owner, ids: Collection[int], values: Mapping[str, str]) -> None:
        """Give every one of these owners these properties, over what they had under the same keys."""
        await self.delete(owner, ids, values)
        table = _TABLES[owner]
        name = next(iter(table.primary_key.columns)).name
        rows = [{name: one, "key": key, "value": value} for one in ids for key, value in values.items()]
        if rows:
            await self._connection.execute(insert(table), rows)

    async def delete(self, owner: Owner, ids: Collection[int], keys: Collection[str] | None = None) -> int:
        """Remove properties, without `keys` all of them; returns how many there were."""
        table = _TABLES[owner]
        row = delete(table).where(next(iter(table.primary_key.columns)).in_(ids))
        if keys is not None:
            row = row.where(table.c.key.in_(keys))
        return (await self._connection.execute(row)).rowcount
