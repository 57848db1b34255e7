"""Repository of `events`, the audit log: written in the same transaction as the change itself."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import func, insert, select

from appliance.filters import Filter
from appliance.model import LogEntry
from appliance.storage.connection import Connection
from appliance.storage.schema import events
from appliance.storage.where import Keys, where

KEYS: Keys = {
    "id": events.c.id,
    "at": events.c.at,
    "by": events.c.by,
    "what": events.c.what,
    "object": events.c.object,
    "was": events.c.was,
    "now": events.c.now,
}


class EventLog:
    """Who changed what, from what, to what."""

    def __init__(self, connection: Connection, at: datetime) -> None:
        self._connection = connection
        self._at = at

    async def append(
        self,
        *,
        by: str,
        what: str,
        object: str,  # noqa: A002
        was: str | None = None,
        now: str | None = None,
    ) -> None:
        """Add a line: `what` is noun and verb ("vm start"), `object` names the thing."""
        await self._connection.execute(
            insert(events).values(at=self._at, by=by, what=what, object=object, was=was, now=now)
        )

    async def find(self, filter_: Filter | None = None, *, most: int | None = None) -> list[LogEntry]:
        """The lines that pass, the newest last; of more than `most`, the newest."""
        newest = select(events).where(where(filter_, KEYS)).order_by(events.c.id.desc()).limit(most)
        rows = (await self._connection.execute(newest)).all()
        return [LogEntry(**row._mapping) for row in reversed(rows)]

    async def last(self) -> int:
        """The number of the newest line; 0 if there is none."""
        return await self._connection.scalar(select(func.max(events.c.id))) or 0

    async def since(self, number: int) -> list[LogEntry]:
        """The lines after the one with this number."""
        rows = await self._connection.execute(
            select(events).where(events.c.id > number).order_by(events.c.id)
        )
        return [LogEntry(**row._mapping) for row in rows]
