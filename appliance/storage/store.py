"""Store: read and write transactions over the one database.

Only one transaction of this process writes at a time. It ends in a commit or a rollback. No cancellation
interrupts these, nor a statement, so that a caller who vanishes in the middle leaves no half transaction.
A transaction must never span an `await` on anything but the database. So one that knows beforehand all
that it will do can be done in one go (`Store.at_once`), at a fifth of the price.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self, TypeAlias, TypeVar

import sqlalchemy
from sqlalchemy import Engine, select
from sqlalchemy.exc import DatabaseError, OperationalError

from appliance.clock import Calendar
from appliance.errors import SchemaVersionError, StoreError
from appliance.model import LogEntry
from appliance.storage import schema
from appliance.storage.ageing import Ageing
from appliance.storage.alarms import Alarms
from appliance.storage.connection import Connection, Errands, at_once, here
from appliance.storage.db import BEGIN_READ, BEGIN_WRITE, CommitWatch, database_file, make_engine
from appliance.storage.hosts import Hosts
from appliance.storage.images import Images
from appliance.storage.kept import KeptThings
from appliance.storage.log import EventLog
from appliance.storage.notices import Notices
from appliance.storage.operations import Operations
from appliance.storage.osfs import Osfs
from appliance.storage.properties import Properties
from appliance.storage.runtimes import Runtimes
from appliance.storage.sessions import Sessions
from appliance.storage.settings import SettingRows
from appliance.storage.users import Users
from appliance.storage.vms import Vms
from appliance.threads import to_the_end

T = TypeVar("T")
Rehearsal: TypeAlias = list[LogEntry]
"""The lines of the audit log that would have been written."""


class Tx:
    """One transaction: the repositories, and the instant at which it began."""

    def __init__(self, connection: Connection, at: datetime) -> None:
        self.connection = connection
        self.at = at
        self.undo = False
        """Whether it is rolled back at its end, though nothing has failed."""

    @cached_property
    def settings(self) -> SettingRows:
        return SettingRows(self.connection)

    @cached_property
    def hosts(self) -> Hosts:
        return Hosts(self.connection, self.at)

    @cached_property
    def users(self) -> Users:
        return Users(self.connection)

    @cached_property
    def osfs(self) -> Osfs:
        return Osfs(self.connection)

    @cached_property
    def images(self) -> Images:
        return Images(self.connection, self.at)

    @cached_property
    def vms(self) -> Vms:
        return Vms(self.connection)

    @cached_property
    def runtimes(self) -> Runtimes:
        return Runtimes(self.connection, self.at)

    @cached_property
    def sessions(self) -> Sessions:
        return Sessions(self.connection, self.at)

    @cached_property
    def ageing(self) -> Ageing:
        return Ageing(self.connection, self.at)

    @cached_property
    def operations(self) -> Operations:
        return Operations(self.connection, self.at)

    @cached_property
    def properties(self) -> Properties:
        return Properties(self.connection)

    @cached_property
    def alarms(self) -> Alarms:
        return Alarms(self.connection, self.at)

    @cached_property
    def kept(self) -> KeptThings:
        return KeptThings(self.connection, self.at)

    @cached_property
    def notices(self) -> Notices:
        return Notices(self.connection, self.at)

    @cached_property
    def log(self) -> EventLog:
        return EventLog(self.connection, self.at)


class Store:
    """The database, opened."""

    def __init__(self, engine: Engine, hasty: Engine, file: Path, calendar: Calendar) -> None:
        self.rehearsal: Rehearsal | None = None
        """Where it is set, what is written is undone at the end of each transaction, and told here."""
        self._engine = engine
        self._hasty = hasty
        self._file = file
        self._calendar = calendar
        self._writing = asyncio.Lock()
        self._errands = Errands()

    @classmethod
    async def open(cls, url: str, calendar: Calendar) -> Self:
        """Open an initialised database.

        :raises StoreError: there is none, or it cannot be read
        :raises SchemaVersionError: its schema is not ours
        """
        file = database_file(url)
        try:
            there = file.exists()
        except OSError as exc:
            raise StoreError(f"the database {file} is out of reach: {exc.strerror}") from exc
        if not there:
            raise StoreError(f"there is no database {file}", hint="run qa admin init")
        store = cls(make_engine(url), make_engine(url, lasting=False), file, calendar)
        try:
            await store._check_version()
        except BaseException:
            await store.close()
            raise
        return store

    async def close(self) -> None:
        """Close every connection."""
        for engine in (self._engine, self._hasty):
            await self._errands(engine.dispose)
        self._errands.close()

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[Tx]:
        """A consistent view of one moment; nothing may be written."""
        async with self._transaction(self._engine, BEGIN_READ) as tx:
            yield tx

    @contextlib.asynccontextmanager
    async def write(self, *, lasting: bool = True) -> AsyncIterator[Tx]:
        """A transaction that commits when the block ends, and rolls back when it raises.

        One that is not `lasting` does not wait for the disk. It outlives any process, as every other does,
        but a power cut may undo it until the next lasting one: for what is true while the host is up.
        """
        engine = self._engine if lasting else self._hasty
        async with self._writing, self._transaction(engine, BEGIN_WRITE) as tx:
            if self.rehearsal is None:
                yield tx
                return
            before = await tx.log.last()
            yield tx
            self.rehearsal += await tx.log.since(before)
            tx.undo = True

    async def at_once(self, work: Callable[[Tx], Coroutine[Any, Any, T]], *, lasting: bool = True) -> T:
        """What `work` makes of a transaction that writes, done from begin to commit in one go in a thread.

        It awaits nothing but the repositories, and touches what other threads may touch.
        """
        assert self.rehearsal is None, "only transactions of `write` are rehearsed"
        engine = self._engine if lasting else self._hasty

        def whole() -> T:
            connection = begun(engine, BEGIN_WRITE)
            try:
                result = at_once(work(Tx(Connection(connection, here), self._calendar.now())))
            except BaseException:
                undone(connection)
                raise
            done(connection)
            return result

        async with self._writing:
            with self._explained():
                return await self._errands(whole)

    async def watch_commits(self) -> CommitWatch:
        """Follow the commits of every process; the caller closes it."""
        return await CommitWatch.open(self._file)

    @contextlib.asynccontextmanager
    async def _transaction(self, engine: Engine, begin: str) -> AsyncIterator[Tx]:
        with self._explained():
            connection = await self._begun(engine, begin)
            tx = Tx(Connection(connection, self._errands), self._calendar.now())
            try:
                yield tx
            except BaseException:
                await self._errands(partial(undone, connection))
                raise
            await self._errands(partial(undone if tx.undo else done, connection))

    async def _begun(self, engine: Engine, begin: str) -> sqlalchemy.Connection:
        """A transaction; one that has begun only when its caller was cancelled ends."""
        beginning = self._errands.begin(partial(begun, engine, begin))
        try:
            return await to_the_end(beginning)
        except asyncio.CancelledError:
            if not beginning.cancelled() and beginning.exception() is None:
                await self._errands(partial(undone, beginning.result()))
            raise

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except DatabaseError as exc:
            if type(exc) not in (DatabaseError, OperationalError):
                raise
            raise StoreError(f"the database {self._file} refuses: {exc.orig}") from exc

    async def _check_version(self) -> None:
        try:
            async with self.read() as tx:
                found = await tx.connection.scalar(
                    select(schema.versions.c.version).where(schema.versions.c.component == "schema")
                )
        except (DatabaseError, StoreError) as exc:
            raise StoreError(
                f"{self._file} is not an initialised database", hint="run qa admin init"
            ) from exc
        if found != schema.SCHEMA_VERSION:
            raise SchemaVersionError(
                f"the database has schema {found}, this program needs {schema.SCHEMA_VERSION}",
                hint="run qa admin init to migrate it",
            )


def begun(engine: Engine, begin: str) -> sqlalchemy.Connection:
    """A connection on which a transaction has begun."""
    connection = engine.connect()
    try:
        connection.exec_driver_sql(begin)
    except BaseException:
        connection.close()
        raise
    return connection


def done(connection: sqlalchemy.Connection) -> None:
    """Commit; a transaction that cannot be is undone."""
    try:
        connection.commit()
    except BaseException:
        connection.rollback()
        raise
    finally:
        connection.close()


def undone(connection: sqlalchemy.Connection) -> None:
    """Roll back."""
    try:
        connection.rollback()
    finally:
        connection.close()
