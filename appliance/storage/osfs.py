"""Repository of `osfs`, the operating system flavours."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import Row, bindparam, delete, insert, select, update

from appliance.errors import NotFoundError
from appliance.filters import Filter
from appliance.model import PLAIN_AGEING, AgeingPolicy, BackendKind, Osf, OsfId
from appliance.storage.connection import Connection
from appliance.storage.schema import osf_properties, osfs
from appliance.storage.where import Keys, property_of, where

AGEING = tuple(AgeingPolicy.__dataclass_fields__)
"""The columns of a policy."""
KEYS: Keys = {
    "id": osfs.c.id,
    "name": osfs.c.name,
    "memory": osfs.c.memory,
    "cpus": osfs.c.cpus,
    "use_overlay": osfs.c.use_overlay,
    "user_storage_size": osfs.c.user_storage_size,
    "backend": osfs.c.backend,
    "processes": osfs.c.processes,
    "root_size": osfs.c.root_size,
    "io_weight": osfs.c.io_weight,
    **{name: osfs.c[name] for name in AGEING},
}


class Osfs:
    """The flavours."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def get(self, osf_id: OsfId) -> Osf:
        """One OSF.

        :raises NotFoundError: there is none with this id
        """
        row = (await self._connection.execute(_BY_ID, {"osf": osf_id})).one_or_none()
        if row is None:
            raise NotFoundError(f"there is no OSF with id {osf_id}")
        return _osf(row)

    async def by_name(self, name: str) -> Osf | None:
        """The OSF of this name, if there is one."""
        row = (await self._connection.execute(select(osfs).where(osfs.c.name == name))).one_or_none()
        return None if row is None else _osf(row)

    async def find(self, filter_: Filter | None = None) -> list[Osf]:
        """The OSFs that pass, by id."""
        passes = where(filter_, KEYS, property_of(osf_properties, osfs.c.id))
        rows = await self._connection.execute(select(osfs).where(passes).order_by(osfs.c.id))
        return [_osf(row) for row in rows]

    async def add(
        self,
        *,
        name: str,
        memory_mib: int,
        cpus: float | None,
        use_overlay: bool,
        user_storage_mib: int | None,
        backend: BackendKind,
        processes: int | None = None,
        root_mib: int | None = None,
        io_weight: int | None = None,
        ageing: AgeingPolicy = PLAIN_AGEING,
    ) -> OsfId:
        """A new OSF; its name must be free."""
        row = insert(osfs).values(
            name=name,
            memory=memory_mib,
            cpus=cpus,
            use_overlay=use_overlay,
            user_storage_size=user_storage_mib,
            backend=backend,
            processes=processes,
            root_size=root_mib,
            io_weight=io_weight,
            **asdict(ageing),
        )
        return OsfId((await self._connection.execute(row.returning(osfs.c.id))).scalar_one())

    async def edit(self, ids: Collection[OsfId], columns: Mapping[str, object]) -> int:
        """Overwrite columns of `osfs`; returns how many rows there were."""
        changed = await self._connection.execute(update(osfs).where(osfs.c.id.in_(ids)).values(**columns))
        return changed.rowcount

    async def delete(self, ids: Collection[OsfId]) -> int:
        """Remove OSFs to which nothing refers; returns how many."""
        return (await self._connection.execute(delete(osfs).where(osfs.c.id.in_(ids)))).rowcount


_BY_ID = select(osfs).where(osfs.c.id == bindparam("osf"))


def _osf(row: Row[Any]) -> Osf:
    return Osf(
        id=OsfId(row.id),
        name=row.name,
        memory_mib=row.memory,
        cpus=row.cpus,
        use_overlay=row.use_overlay,
        user_storage_mib=row.user_storage_size,
        backend=row.backend,
        processes=row.processes,
        root_mib=row.root_size,
        io_weight=row.io_weight,
        ageing=policy(row),
    )


def policy(row: Row[Any]) -> AgeingPolicy:
    """The policy that a row with its columns tells of."""
    return AgeingPolicy(**{name: row._mapping[name] for name in AGEING})
