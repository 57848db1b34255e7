"""Repository of `operations`: long work as rows, so that others see it, and find what a killed one left."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from appliance.storage.schema import operations


class Kind(StrEnum):
    """What is being done."""

    DI_ADD = "di add"
    DI_DEL = "di del"
    VM_GIVE = "vm give"


ON_IMAGES = (Kind.DI_ADD, Kind.DI_DEL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One piece of long work that has not ended."""

    id: int
    kind: Kind
    object_id: int
    owner: str
    begun: datetime
    plan: str | None = None
    """What whoever takes it up again must know."""


class Operations:
    """The long work."""

    def __init__(self, connection: AsyncConnection, at: datetime) -> None:
        self._connection = connection
        self._at = at

    async def begin(
        self, kind: Kind, object_id: int, *, owner: str, pid: int, plan: str | None = None
    ) -> int:
        """Say that work on an object begins; returns the operation's id."""
        row = insert(operations).values(
            kind=kind, object=str(object_id), owner=owner, owner_pid=pid, begun=self._at, plan=plan
        )
        return int((await self._connection.execute(row.returning(operations.c.id))).scalar_one())

    async def progress(self, operation_id: int, share: float) -> None:
        """Say how far it is, from 0 to 1."""
        await self._connection.execute(
            update(operations).where(operations.c.id == operation_id).values(progress=share)
        )

    async def end(self, operation_id: int, result: str) -> None:
        """Say that it ended, and how."""
        ended: dict[str, object] = {"ended": self._at, "result": result}
        if result == DONE:
            ended["progress"] = 1.0
        await self._connection.execute(
            update(operations).where(operations.c.id == operation_id).values(**ended)
        )

    async def has_ended(self, operation_id: int) -> bool:
        """Whether it is over, whatever came of it."""
        ended = select(operations.c.ended).where(operations.c.id == operation_id)
        return await self._connection.scalar(ended) is not None

    async def unfinished(self, *kinds: Kind) -> list[Operation]:
        """Work of these kinds that was begun and has not ended: under way, or killed."""
        rows = await self._connection.execute(
            select(operations)
            .where(operations.c.ended.is_(None), operations.c.kind.in_(kinds))
            .order_by(operations.c.id)
        )
        return [
            Operation(
                id=row.id,
                kind=Kind(row.kind),
                object_id=int(row.object),
                owner=row.owner,
                begun=row.begun,
                plan=row.plan,
            )
            for row in rows
        ]


DONE = "done"
KILLED = "killed"
