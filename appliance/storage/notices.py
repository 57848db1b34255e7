"""Repository of `notices`, the outbox of the host's hooks."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, update

from appliance.filters import Filter
from appliance.model import HookEvent, Notice, NoticeState
from appliance.storage.connection import Connection
from appliance.storage.schema import notices
from appliance.storage.where import Keys, where

KEYS: Keys = {
    "id": notices.c.id,
    "uid": notices.c.uid,
    "event": notices.c.event,
    "at": notices.c.at,
    "state": notices.c.state,
    "attempts": notices.c.attempts,
    "next_try": notices.c.next_try,
    "last_error": notices.c.last_error,
    "ended": notices.c.ended,
}


class Notices:
    """What the host's hooks are told, and have been told."""

    def __init__(self, connection: Connection, at: datetime) -> None:
        self._connection = connection
        self._at = at

    async def put(self, event: HookEvent, concerned: Sequence[str]) -> None:
        """Let a hook be told of an event, once for each JSON object of `concerned`."""
        if not concerned:
            return
        rows = [
            {"uid": str(uuid.uuid4()), "event": event, "at": self._at, "next_try": self._at, "concerned": one}
            for one in concerned
        ]
        await self._connection.execute(insert(notices), rows)

    async def find(self, filter_: Filter | None = None) -> list[Notice]:
        """The notices that pass, the oldest first."""
        rows = await self._connection.execute(
            select(notices).where(where(filter_, KEYS)).order_by(notices.c.id)
        )
        return [_notice(row) for row in rows]

    async def due(self, event: HookEvent) -> Notice | None:
        """The oldest notice of an event whose time has come."""
        row = (
            await self._connection.execute(
                select(notices)
                .where(notices.c.event == event, notices.c.ended.is_(None), notices.c.next_try <= self._at)
                .order_by(notices.c.id)
                .limit(1)
            )
        ).one_or_none()
        return None if row is None else _notice(row)

    async def next_tries(self) -> Mapping[HookEvent, datetime]:
        """For each event that has notices waiting, when the first of them is due."""
        rows = await self._connection.execute(
            select(notices.c.event, func.min(notices.c.next_try).label("next_try"))
            .where(notices.c.ended.is_(None))
            .group_by(notices.c.event)
        )
        return {row.event: row.next_try for row in rows}

    async def delivered(self, notice_id: int) -> None:
        """The hook has taken it."""
        await self._attempted(notice_id, state=NoticeState.DELIVERED, ended=self._at, last_error=None)

    async def failed(self, notice_id: int, error: str, *, next_try: datetime | None) -> None:
        """The hook has not taken it; it is told again at `next_try`, or with None no more."""
        if next_try is None:
            await self._attempted(notice_id, state=NoticeState.GIVEN_UP, ended=self._at, last_error=error)
        else:
            await self._attempted(notice_id, next_try=next_try, last_error=error)

    async def again(self, ids: Collection[int]) -> int:
        """Tell these at once, as if they had never been tried; returns how many had not been delivered."""
        done = await self._connection.execute(
            update(notices)
            .where(notices.c.id.in_(ids), notices.c.state != NoticeState.DELIVERED)
            .values(state=NoticeState.WAITING, attempts=0, next_try=self._at, ended=None)
        )
        return done.rowcount

    async def given_up(self, event: HookEvent) -> int:
        """How many notices of an event were given up."""
        number = await self._connection.scalar(
            select(func.count()).where(notices.c.event == event, notices.c.state == NoticeState.GIVEN_UP)
        )
        return number or 0

    async def drop_waiting(self, event: HookEvent) -> int:
        """Nobody wants to be told of an event; returns how many notices waited."""
        return (
            await self._connection.execute(
                delete(notices).where(notices.c.event == event, notices.c.ended.is_(None))
            )
        ).rowcount

    async def forget(self, before: datetime) -> int:
        """Remove what ended before this instant; returns how many there were."""
        return (await self._connection.execute(delete(notices).where(notices.c.ended < before))).rowcount

    async def _attempted(self, notice_id: int, **values: object) -> None:
        await self._connection.execute(
            update(notices).where(notices.c.id == notice_id).values(attempts=notices.c.attempts + 1, **values)
        )


def _notice(row: Row[Any]) -> Notice:
    return Notice(**row._mapping)
