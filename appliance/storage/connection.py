"""One connection to the database, and where its statements run.

SQLAlchemy's synchronous engine does the work. Either each statement is an errand of its own to a thread
(`Errands`), so that a slow one holds nobody up; or a whole transaction runs in a thread already, and each
statement where it stands (`here`). The repositories do not know which: they await their statements.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar, cast, overload

import sqlalchemy
from sqlalchemy import CursorResult, Executable, ScalarResult
from sqlalchemy.sql.selectable import TypedReturnsRows

from appliance.threads import to_the_end

T = TypeVar("T")
Row = TypeVar("Row", bound="tuple[Any, ...]")
Parameters = Mapping[str, Any] | Sequence[Mapping[str, Any]]

THREADS = 8


class Errand(Protocol):
    """Has something done that speaks to the database."""

    async def __call__(self, work: Callable[[], T], /) -> T: ...


class Errands:
    """Runs errands in the threads of a database. One that was begun ends before a cancellation passes on."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="database")

    async def __call__(self, work: Callable[[], T], /) -> T:
        """The result of `work`."""
        return await to_the_end(self.begin(work))

    def begin(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Let `work` be done; nobody cancels what this returns."""
        return asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False)


async def here(work: Callable[[], T], /) -> T:
    """The `Errand` of whoever is in a thread of the database's already; it never suspends."""
    return work()


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that awaits nothing but statements that run `here`.

    :raises RuntimeError: it awaits something else
    """
    try:
        work.send(None)
    except StopIteration as end:
        return cast("T", end.value)
    work.close()
    raise RuntimeError("a transaction awaits something that is not the database")


class Connection:
    """What repositories need of a connection; every result is complete when it is returned."""

    def __init__(self, connection: sqlalchemy.Connection, errand: Errand) -> None:
        self._connection = connection
        self._errand = errand

    @overload
    async def execute(
        self, statement: TypedReturnsRows[Row], parameters: Parameters | None = None
    ) -> CursorResult[Row]: ...

    @overload
    async def execute(
        self, statement: Executable, parameters: Parameters | None = None
    ) -> CursorResult[Any]: ...

    async def execute(self, statement: Executable, parameters: Parameters | None = None) -> CursorResult[Any]:
        """Run a statement; with several sets of parameters, once for each."""
        return await self._errand(lambda: _complete(self._connection.execute(statement, parameters)))

    @overload
    async def scalar(
        self, statement: TypedReturnsRows[tuple[T]], parameters: Parameters | None = None
    ) -> T | None: ...

    @overload
    async def scalar(self, statement: Executable, parameters: Parameters | None = None) -> Any: ...

    async def scalar(self, statement: Executable, parameters: Parameters | None = None) -> Any:
        """The first column of the first row; None if there is none."""
        return (await self.execute(statement, parameters)).scalar()

    @overload
    async def scalars(
        self, statement: TypedReturnsRows[tuple[T]], parameters: Parameters | None = None
    ) -> ScalarResult[T]: ...

    @overload
    async def scalars(
        self, statement: Executable, parameters: Parameters | None = None
    ) -> ScalarResult[Any]: ...

    async def scalars(self, statement: Executable, parameters: Parameters | None = None) -> ScalarResult[Any]:
        """The first column of every row."""
        return (await self.execute(statement, parameters)).scalars()

    async def exec_driver_sql(self, statement: str) -> CursorResult[Any]:
        """Run a statement in SQLite's own words."""
        return await self._errand(lambda: _complete(self._connection.exec_driver_sql(statement)))


def _complete(result: CursorResult[Any]) -> CursorResult[Any]:
    """A result that reads nothing from the database any more, wherever it is looked at."""
    return cast("CursorResult[Any]", result.freeze()()) if result.returns_rows else result
