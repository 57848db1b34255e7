"""Repository of `kept`: roots and homes on disk that wait for their end, and snapshots of homes."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Row, delete, or_, select, update
from sqlalchemy.dialects.sqlite import insert

from appliance.filters import Filter
from appliance.model import DiId, Kept, KeptKind, UserId, VmId
from appliance.storage.connection import Connection
from appliance.storage.schema import kept
from appliance.storage.where import Keys, where

KEYS: Keys = {
    "id": kept.c.id,
    "kind": kept.c.kind,
    "vm_id": kept.c.vm_id,
    "vm": kept.c.vm,
    "owner": kept.c.owner,
    "reason": kept.c.reason,
    "at": kept.c.at,
    "until": kept.c.until,
}


class KeptThings:
    """What is kept."""

    def __init__(self, connection: Connection, at: datetime) -> None:
        self._connection = connection
        self._at = at

    async def add(
        self,
        kind: KeptKind,
        path: Path,
        *,
        vm_id: VmId,
        vm: str,
        owner: str,
        reason: str,
        until: datetime | None,
        user_id: UserId | None = None,
        from_di_id: DiId | None = None,
        to_di_id: DiId | None = None,
    ) -> None:
        """Keep what is at `path` until then; known already, it stays as it was."""
        row = insert(kept).values(
            kind=kind,
            path=str(path),
            vm_id=vm_id,
            vm=vm,
            owner=owner,
            reason=reason,
            at=self._at,
            until=until,
            user_id=user_id,
            from_di_id=from_di_id,
            to_di_id=to_di_id,
        )
        await self._connection.execute(row.on_conflict_do_nothing(index_elements=[kept.c.path]))

    async def find(self, filter_: Filter | None = None) -> list[Kept]:
        """What passes, by id."""
        rows = await self._connection.execute(select(kept).where(where(filter_, KEYS)).order_by(kept.c.id))
        return [_kept(row) for row in rows]

    async def due(self) -> list[Kept]:
        """What has been kept for long enough, or was given up."""
        over = or_(kept.c.until <= self._at, kept.c.until <= kept.c.at)
        rows = await self._connection.execute(select(kept).where(over).order_by(kept.c.id))
        return [_kept(row) for row in rows]

    async def end_now(self, ids: Collection[int]) -> int:
        """Keep these no longer, whatever the calendar says; returns how many there were."""
        done = await self._connection.execute(update(kept).where(kept.c.id.in_(ids)).values(until=kept.c.at))
        return done.rowcount

    async def snapshots(self, vm_id: VmId) -> list[Kept]:
        """The snapshots of a VM's home that nobody has set an end to, the oldest first."""
        lasting = (kept.c.vm_id == vm_id, kept.c.kind == KeptKind.SNAPSHOT, kept.c.until.is_(None))
        rows = await self._connection.execute(select(kept).where(*lasting).order_by(kept.c.id))
        return [_kept(row) for row in rows]

    async def end_snapshots(self, vm_ids: Collection[VmId], *, until: datetime) -> int:
        """Set an end to the snapshots of these VMs' homes that have none; returns how many there were."""
        lasting = (kept.c.vm_id.in_(vm_ids), kept.c.kind == KeptKind.SNAPSHOT, kept.c.until.is_(None))
        end = until if until > self._at else kept.c.at
        done = await self._connection.execute(update(kept).where(*lasting).values(until=end))
        return done.rowcount

    async def serve(self, snapshot_id: int, to_di_id: DiId) -> None:
        """Say for which DI a snapshot is there after all."""
        await self._connection.execute(update(kept).where(kept.c.id == snapshot_id).values(to_di_id=to_di_id))

    async def forget_path(self, path: Path) -> None:
        """What was to be kept at `path` never came there."""
        await self._connection.execute(delete(kept).where(kept.c.path == str(path)))

    async def forget(self, ids: Collection[int]) -> None:
        """They are gone from the disk, or have become somebody's again."""
        await self._connection.execute(delete(kept).where(kept.c.id.in_(ids)))


def _kept(row: Row[Any]) -> Kept:
    return Kept(**row._mapping)
