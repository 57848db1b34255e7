"""Brings a database to the schema of this program; used by `qa admin init` alone.

The daemon never migrates: it refuses a schema that is not its own. The triggers of the journal of changes
are no part of the migrations (`changes.py` says why); they are away while these run.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import NullPool

from appliance.errors import SchemaVersionError, StoreError
from appliance.storage import changes, schema
from appliance.storage.db import BEGIN_WRITE, database_file, parse_url, prepare_connection

SCRIPTS = Path(__file__).parent / "migrations"


def upgrade(url: str) -> bool:
    """Create the database behind `url` or migrate it, in one transaction; whether there was anything to do.

    Triggers of the journal that are missing or not as declared are put right in any case, and so is the
    version by which programs know the schema.

    :raises StoreError: it cannot be written
    :raises SchemaVersionError: it was made by a newer program
    """
    file = database_file(url)
    try:
        file.touch(mode=0o600, exist_ok=True)
        with begin(url) as connection:
            before = MigrationContext.configure(connection).get_current_revision()
            if before == head():
                return _stamp(connection) | changes.install(connection)
            changes.remove(connection)
            command.upgrade(alembic_config(connection), "head")
            _stamp(connection)
            changes.install(connection)
    except (OSError, DatabaseError, sqlite3.Error) as exc:
        reason = exc.orig if isinstance(exc, DatabaseError) else exc
        raise StoreError(f"the database {file} cannot be set up: {reason}") from exc
    except CommandError as exc:
        raise SchemaVersionError(
            f"the database {file} was made by another version of this program: {exc}",
            hint="use the program that made it, or a newer one",
        ) from exc
    return True


def revision(url: str) -> str | None:
    """The revision of the database behind `url`; None if there is none, or nothing in it.

    :raises StoreError: it cannot be read
    """
    file = database_file(url)
    if not file.exists():
        return None
    try:
        with _connected(url) as connection:
            return MigrationContext.configure(connection).get_current_revision()
    except (OSError, DatabaseError, sqlite3.Error) as exc:
        reason = exc.orig if isinstance(exc, DatabaseError) else exc
        raise StoreError(f"the database {file} cannot be read: {reason}") from exc


def copy(url: str, target: Path) -> None:
    """Copy the database behind `url` as it is at one moment, whoever uses it; readable for its owner alone.

    :raises StoreError: it cannot be copied; `target` is not there
    """
    file = database_file(url)
    fresh = target.with_name(f".{target.name}.new")
    try:
        fresh.unlink(missing_ok=True)
        fresh.touch(mode=0o600)
        with (
            contextlib.closing(sqlite3.connect(file)) as source,
            contextlib.closing(sqlite3.connect(fresh)) as destination,
        ):
            source.backup(destination)
        with fresh.open("rb") as stream:
            os.fsync(stream.fileno())
        fresh.rename(target)
    except (OSError, sqlite3.Error) as exc:
        fresh.unlink(missing_ok=True)
        raise StoreError(f"the database {file} cannot be copied to {target}: {exc}") from exc


def downgrade(url: str, revision: str) -> None:
    """Take the database back to an older schema, or with "base" to none.

    It has no triggers and no version then: `upgrade` of the program whose schema it is puts its own in place.
    """
    with begin(url) as connection:
        changes.remove(connection)
        connection.execute(text("DELETE FROM versions WHERE component = 'schema'"))
        command.downgrade(alembic_config(connection), revision)


def head() -> str | None:
    """The newest revision that this program knows."""
    return ScriptDirectory(str(SCRIPTS)).get_current_head()


def alembic_config(connection: Connection) -> Config:
    """Alembic's configuration, without a file: the scripts of this package on an open connection."""
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


@contextlib.contextmanager
def begin(url: str) -> Iterator[Connection]:
    """A synchronous write transaction on the database behind `url`."""
    with _connected(url) as connection:
        # SQLite checks foreign keys of rebuilt tables only when asked to, and cannot switch inside.
        connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
        connection.commit()
        connection.exec_driver_sql(BEGIN_WRITE)
        yield connection
        _check_foreign_keys(connection)
        connection.commit()


@contextlib.contextmanager
def _connected(url: str) -> Iterator[Connection]:
    engine = create_engine(parse_url(url).set(drivername="sqlite"), poolclass=NullPool)
    event.listen(engine, "connect", prepare_connection)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def _stamp(connection: Connection) -> bool:
    """Write down which schema programs find; whether that was to be done."""
    found = connection.scalar(text("SELECT version FROM versions WHERE component = 'schema'"))
    if found == schema.SCHEMA_VERSION:
        return False
    connection.execute(
        text("INSERT OR REPLACE INTO versions (component, version) VALUES ('schema', :version)"),
        {"version": schema.SCHEMA_VERSION},
    )
    return True


def _check_foreign_keys(connection: Connection) -> None:
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
    if broken is not None:
        raise StoreError(f"the table {broken[0]} would refer to rows that are not there")
