"""Repository of `operations`: long work as rows, so that others see it, and find what a killed one left."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import ColumnElement, Integer, cast, insert, select, true, update

from appliance.filters import Filter
from appliance.storage.connection import Connection
from appliance.storage.schema import operations
from appliance.storage.where import Keys, where


class Kind(StrEnum):
    """What is being done."""

    DI_ADD = "di add"
    DI_DEL = "di del"
    DI_DUPLICATE = "di duplicate"
    VM_GIVE = "vm give"


MAKES_IMAGES = (Kind.DI_ADD, Kind.DI_DUPLICATE)
ON_IMAGES = (*MAKES_IMAGES, Kind.DI_DEL)
CANCELLABLE = frozenset({Kind.DI_ADD})
"""What can be given up half done; the others are finished instead, by whoever comes next."""

KEYS: Keys = {
    "id": operations.c.id,
    "kind": operations.c.kind,
    "object_id": cast(operations.c.object, Integer),
    "owner": operations.c.owner,
    "begun": operations.c.begun,
    "progress": operations.c.progress,
    "ended": operations.c.ended,
    "result": operations.c.result,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One piece of long work."""

    id: int
    kind: Kind
    object_id: int
    owner: str
    begun: datetime
    plan: str | None = None
    """What whoever takes it up again must know."""
    owner_pid: int | None = None
    progress: float = 0.0
    """How far it is, from 0 to 1."""
    cancel: bool = False
    """Whether it is to be given up."""
    ended: datetime | None = None
    result: str | None = None


class Operations:
    """The long work."""

    def __init__(self, connection: Connection, at: datetime) -> None:
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
        return await self._found(operations.c.ended.is_(None), operations.c.kind.in_(kinds))

    async def objects(self, *kinds: Kind) -> set[int]:
        """Everything on which work of these kinds was ever begun, whatever came of it."""
        numbers = select(cast(operations.c.object, Integer)).where(operations.c.kind.in_(kinds)).distinct()
        return set(await self._connection.scalars(numbers))

    async def find(self, filter_: Filter | None = None, *, open_only: bool = True) -> list[Operation]:
        """The work that passes, by id; without `open_only` also what has ended."""
        passes = where(filter_, KEYS)
        return await self._found(passes, operations.c.ended.is_(None) if open_only else true())

    async def cancel(self, ids: Collection[int]) -> int:
        """Ask for these to be given up; returns how many have not ended yet."""
        done = await self._connection.execute(
            update(operations)
            .where(operations.c.id.in_(ids), operations.c.ended.is_(None))
            .values(cancel=True)
        )
        return done.rowcount

    async def wanted_cancelled(self, operation_id: int) -> bool:
        """Whether somebody asked for it to be given up; whoever does the work looks now and then."""
        return bool(
            await self._connection.scalar(select(operations.c.cancel).where(operations.c.id == operation_id))
        )

    async def _found(self, *passes: ColumnElement[bool]) -> list[Operation]:
        rows = await self._connection.execute(select(operations).where(*passes).order_by(operations.c.id))
        return [
            Operation(
                id=row.id,
                kind=Kind(row.kind),
                object_id=int(row.object),
                owner=row.owner,
                begun=row.begun,
                plan=row.plan,
                owner_pid=row.owner_pid,
                progress=row.progress,
                cancel=row.cancel,
                ended=row.ended,
                result=row.result,
            )
            for row in rows
        ]


DONE = "done"
KILLED = "killed"
