"""Migrations lead to the schema of this program, from nothing and back, and to no other."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from appliance.errors import SchemaVersionError, StoreError
from appliance.storage import migrate, schema
from appliance.storage.store import Store
from tests.support.store import StillCalendar, fresh_store, url

CHECK = re.compile(r"CONSTRAINT \S+ CHECK \((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)")


def tables(directory: Path, *, but: str = "") -> dict[str, str]:
    """What the database consists of, as SQL; without one type of it."""
    connection = sqlite3.connect(directory / "qvd.db")
    rows = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND type <> ?", (but,)
    ).fetchall()
    connection.close()
    return dict(rows)


def test_up_and_down_and_up(tmp_path: Path) -> None:
    assert migrate.upgrade(url(tmp_path))
    first = tables(tmp_path)
    assert not migrate.upgrade(url(tmp_path))
    migrate.downgrade(url(tmp_path), "base")
    assert tables(tmp_path).keys() <= {"alembic_version", "sqlite_sequence"}
    assert migrate.upgrade(url(tmp_path))
    assert tables(tmp_path) == first


def test_what_is_kept_stays_so_when_its_table_is_made_anew(tmp_path: Path) -> None:
    def rows() -> list[tuple[int, str]]:
        with closing(sqlite3.connect(tmp_path / "qvd.db")) as connection, connection:
            return connection.execute("SELECT id, kind FROM kept ORDER BY id").fetchall()

    def add(kind: str, number: str = "NULL") -> None:
        values = f"({number}, '{kind}', '/{kind}', 1, 'web-1', 'alice', '', '2030-01-01', '2030-01-02')"
        with closing(sqlite3.connect(tmp_path / "qvd.db")) as connection, connection:
            connection.execute(
                "INSERT INTO kept (id, kind, path, vm_id, vm, owner, reason, at, until) VALUES " + values
            )

    migrate.upgrade(url(tmp_path))
    migrate.downgrade(url(tmp_path), "0003")
    add("home", "7")
    assert migrate.upgrade(url(tmp_path))
    add("snapshot")
    assert rows() == [(7, "home"), (8, "snapshot")]
    migrate.downgrade(url(tmp_path), "0003")
    assert rows() == [(7, "home")]
    add("root")
    assert rows() == [(7, "home"), (9, "root")], "the number of a snapshot is not given again"


def test_the_migrations_end_at_the_schema(tmp_path: Path) -> None:
    migrate.upgrade(url(tmp_path))
    with migrate.begin(url(tmp_path)) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []


def test_the_migrations_make_every_constraint_of_the_schema(tmp_path: Path) -> None:
    """`compare_metadata` does not look at checks, so the two are compared as SQL, word for word."""
    migrate.upgrade(url(tmp_path))
    migrated = tables(tmp_path, but="trigger")
    direct = tmp_path / "direct"
    direct.mkdir()
    with migrate.begin(url(direct)) as connection:
        schema.metadata.create_all(connection)

    def clauses(sql: str) -> set[str]:
        """Columns and constraints, wherever a constraint is written: SQLite adds it with its column."""
        inside = " ".join(sql.split()).partition("(")[2].rpartition(")")[0]
        checks = {check.group() for check in CHECK.finditer(inside)}
        return checks | {clause.strip() for clause in CHECK.sub("", inside).split(", ")} - {""}

    created = tables(direct)
    assert created.keys() == migrated.keys() - {"alembic_version"}
    for name, sql in created.items():
        assert clauses(sql) == clauses(migrated[name]), name


def test_the_file_is_the_owners_alone(tmp_path: Path) -> None:
    migrate.upgrade(url(tmp_path))
    assert (tmp_path / "qvd.db").stat().st_mode & 0o777 == 0o600


async def test_another_schema_is_refused(tmp_path: Path) -> None:
    async with fresh_store(tmp_path) as store, store.write() as tx:
        await tx.connection.exec_driver_sql("UPDATE versions SET version = '99'")
    with pytest.raises(SchemaVersionError, match="99"):
        await Store.open(url(tmp_path), StillCalendar())


async def test_a_database_that_was_taken_back_is_refused_until_it_is_migrated(tmp_path: Path) -> None:
    migrate.upgrade(url(tmp_path))
    migrate.downgrade(url(tmp_path), "0007")
    with pytest.raises(SchemaVersionError, match="migrate it"):
        await Store.open(url(tmp_path), StillCalendar())
    assert migrate.upgrade(url(tmp_path))
    await (await Store.open(url(tmp_path), StillCalendar())).close()


async def test_a_version_that_is_missing_is_put_right(tmp_path: Path) -> None:
    migrate.upgrade(url(tmp_path))
    with closing(sqlite3.connect(tmp_path / "qvd.db")) as connection, connection:
        connection.execute("DELETE FROM versions")
    assert migrate.upgrade(url(tmp_path))
    assert not migrate.upgrade(url(tmp_path))
    await (await Store.open(url(tmp_path), StillCalendar())).close()


def test_reading_the_revision_waits_for_nobody_who_writes(tmp_path: Path) -> None:
    migrate.upgrade(url(tmp_path))
    with closing(sqlite3.connect(tmp_path / "qvd.db", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert migrate.revision(url(tmp_path)) == migrate.head()


def test_a_newer_database_is_left_alone(tmp_path: Path) -> None:
    migrate.upgrade(url(tmp_path))
    connection = sqlite3.connect(tmp_path / "qvd.db")
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    with pytest.raises(SchemaVersionError, match="another version"):
        migrate.upgrade(url(tmp_path))


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "qvd.db").write_text("this is no database, and long enough to be looked at as one" * 100)
    with pytest.raises(StoreError, match=r"qvd\.db"):
        migrate.upgrade(url(tmp_path))


def test_a_directory_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="missing"):
        migrate.upgrade(url(tmp_path / "missing"))


def test_every_migration_has_its_note() -> None:
    notes = (migrate.SCRIPTS / "NOTES.md").read_text()
    revisions = [file.name[:4] for file in (migrate.SCRIPTS / "versions").glob("*.py")]
    assert revisions
    assert all(f"**{revision}," in notes for revision in revisions)
