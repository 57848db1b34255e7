"""Repository of the five property tables: free keys on OSFs, DIs, users, VMs and hosts."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from appliance.model import DiId, OsfId, UserId, VmId
from appliance.storage.schema import di_properties, osf_properties, user_properties, vm_properties


class Properties:
    """What people attached to things."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def merged(
        self, *, osf_id: OsfId, di_id: DiId | None, user_id: UserId, vm_id: VmId
    ) -> dict[str, str]:
        """What holds for a VM; the later wins: OSF, DI, user, VM."""
        found: dict[str, str] = {}
        for table, owner in (
            (osf_properties, osf_id),
            (di_properties, di_id),
            (user_properties, user_id),
            (vm_properties, vm_id),
        ):
            owner_column = next(iter(table.primary_key.columns))
            rows = await self._connection.execute(
                select(table.c.key, table.c.value).where(owner_column == owner)
            )
            found.update({row.key: row.value for row in rows})
        return found
