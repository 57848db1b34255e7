"""Everything that is special about SQLite: pragmas, the mode of BEGIN, the look at foreign commits.

Write transactions begin IMMEDIATE: a deferred one that turns into a write fails at once with
SQLITE_BUSY, whatever the busy timeout says.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, Self

import aiosqlite
from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from appliance.errors import ConfigError, StoreError

BUSY_TIMEOUT_MS = 10_000
BEGIN_READ = "BEGIN"
BEGIN_WRITE = "BEGIN IMMEDIATE"


def parse_url(url: str) -> URL:
    """`database.url` as SQLAlchemy's.

    :raises ConfigError: it is not an SQLite URL
    """
    try:
        parsed = make_url(url)
    except ArgumentError as exc:
        raise ConfigError(f"database.url = {url!r} is not a URL", hint="write sqlite:///PATH") from exc
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        raise ConfigError(f"database.url = {url!r} is not an SQLite URL", hint="write sqlite:///PATH")
    return parsed.set(drivername="sqlite")


def database_file(url: str) -> Path:
    """The file behind an SQLite URL."""
    database = parse_url(url).database
    assert database is not None
    return Path(database)


def make_engine(url: str, *, lasting: bool = True) -> Engine:
    """An engine whose connections have foreign keys, WAL, and leave BEGIN to us.

    What is committed through it outlives a power cut if it is `lasting`; else only the end of any process.
    Its errors do not show the values of a statement: among them are keys and password hashes.
    """
    engine = create_engine(parse_url(url), hide_parameters=True, pool_reset_on_return=None, max_overflow=-1)
    event.listen(engine, "connect", prepare_connection)
    if not lasting:
        event.listen(engine, "connect", _do_not_wait_for_the_disk)
    return engine


def prepare_connection(connection: Any, _record: Any = None) -> None:
    """Set the pragmas of one connection and switch the driver's own BEGIN off."""
    connection.isolation_level = None
    _set(
        connection,
        f"busy_timeout = {BUSY_TIMEOUT_MS}",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
    )


def _do_not_wait_for_the_disk(connection: Any, _record: Any) -> None:
    _set(connection, "synchronous = NORMAL")


def _set(connection: Any, *pragmas: str) -> None:
    cursor = connection.cursor()
    for pragma in pragmas:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


class CommitWatch:
    """A held connection whose `data_version` moves with every commit of any other connection or process."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection
        self._seen = -1

    @classmethod
    async def open(cls, file: Path) -> Self:
        """Begin to watch the database in `file`.

        :raises StoreError: it cannot be opened
        """
        connection = aiosqlite.connect(file)
        try:
            await connection
            await connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        except BaseException as exc:
            connection.stop()  # or its thread would outlive us, and keep the process from ending
            if isinstance(exc, sqlite3.Error):
                hint = "run qa admin init"
                raise StoreError(f"the database {file} cannot be opened: {exc}", hint=hint) from exc
            raise
        return cls(connection)

    async def changed(self) -> bool:
        """Whether anything was committed since the last call; true at the first.

        :raises StoreError: the database cannot be read
        """
        try:
            async with self._connection.execute("PRAGMA data_version") as cursor:
                row = await cursor.fetchone()
        except sqlite3.Error as exc:
            raise StoreError(f"the database cannot be read: {exc}") from exc
        assert row is not None
        before, self._seen = self._seen, row[0]
        return before != self._seen

    async def close(self) -> None:
        """Stop watching."""
        await self._connection.close()
