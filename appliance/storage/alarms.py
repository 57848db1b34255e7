"""Repository of `alarms`: what somebody must look after, once for each kind and object."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select, update
from sqlalchemy.dialects.sqlite import insert

from appliance.filters import Filter
from appliance.model import Alarm, AlarmKind
from appliance.storage.connection import Connection
from appliance.storage.schema import alarms
from appliance.storage.where import Keys, where

KEYS: Keys = {
    "id": alarms.c.id,
    "kind": alarms.c.kind,
    "object": alarms.c.object,
    "text": alarms.c.text,
    "count": alarms.c.count,
    "raised": alarms.c.raised,
    "last": alarms.c.last,
    "cleared": alarms.c.cleared,
}


class Alarms:
    """The alarms."""

    def __init__(self, connection: Connection, at: datetime) -> None:
        self._connection = connection
        self._at = at

    async def raise_(self, kind: AlarmKind, object: str, text: str) -> bool:  # noqa: A002
        """Raise an alarm, or count it once more if it is open; whether it is a new one."""
        row = insert(alarms).values(
            kind=kind, object=object, text=text, raised=self._at, last=self._at, count=1
        )
        again = row.on_conflict_do_update(
            index_elements=[alarms.c.kind, alarms.c.object],
            index_where=alarms.c.cleared.is_(None),
            set_={"text": text, "last": self._at, "count": alarms.c.count + 1},
        )
        return bool((await self._connection.execute(again.returning(alarms.c.count))).scalar_one() == 1)

    async def clear(self, kind: AlarmKind, object: str) -> bool:  # noqa: A002
        """Its reason is gone; whether it was open."""
        done = await self._connection.execute(
            update(alarms)
            .where(alarms.c.kind == kind, alarms.c.object == object, alarms.c.cleared.is_(None))
            .values(cleared=self._at)
        )
        return done.rowcount > 0

    async def clear_all(self, kind: AlarmKind, *, but: Collection[str] = ()) -> None:
        """The reasons of all open alarms of a kind are gone, but for these objects."""
        await self._connection.execute(
            update(alarms)
            .where(alarms.c.kind == kind, alarms.c.object.not_in(but), alarms.c.cleared.is_(None))
            .values(cleared=self._at)
        )

    async def clear_these(self, ids: Collection[int]) -> int:
        """Somebody has looked after these; returns how many of them were open."""
        done = await self._connection.execute(
            update(alarms).where(alarms.c.id.in_(ids), alarms.c.cleared.is_(None)).values(cleared=self._at)
        )
        return done.rowcount

    async def find(self, filter_: Filter | None = None, *, open_only: bool = True) -> list[Alarm]:
        """The alarms that pass, the oldest first."""
        query = select(alarms).where(where(filter_, KEYS)).order_by(alarms.c.id)
        if open_only:
            query = query.where(alarms.c.cleared.is_(None))
        return [_alarm(row) for row in await self._connection.execute(query)]


def _alarm(row: Row[Any]) -> Alarm:
    return Alarm(**row._mapping)
