"""Repository of `events`, the audit log: written in the same transaction as the change itself."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import insert

from appliance.storage.connection import Connection
from appliance.storage.schema import events


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
