"""Every write that an administrator would see leaves its entry in the journal, and its reader tells of it."""

from __future__ import annotations

import ast
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from appliance.errors import SchemaVersionError
from appliance.storage import change_reader, changes, migrate, schema
from appliance.storage.change_reader import ChangeReader, Changes, Noun
from tests.support.store import fresh_store, furnish, url

UNWATCHED = {
    "installation": "is given once",
    "ssl_configs": "is in no list",
    "versions": "belongs to migrations",
    "host_counters": "counts every request",
    "vm_counters": "changes with the runtime row",
    "tag_history": "grows with the tags",
    "events": "grows at its end, and has numbers itself",
    "kept": "is shown on demand",
    "notices": "is delivered within seconds",
    "changes": "is the journal",
}
ROWS = {
    "vms": (
        "INSERT INTO vms (id, uuid, name, user_id, osf_id, subid_slot) VALUES (70, 'u', 'n', 1, 1, 70)",
        "UPDATE vms SET di_tag = 'head' WHERE id = 70",
        "DELETE FROM vms WHERE id = 70",
        (Noun.VM, 70),
    ),
    "vm_runtimes": (
        "INSERT INTO vm_runtimes (vm_id) VALUES (70)",
        "UPDATE vm_runtimes SET vm_state = 'starting', vma_ok_ts = NULL WHERE vm_id = 70",
        "DELETE FROM vm_runtimes WHERE vm_id = 70",
        (Noun.VM, 70),
    ),
    "users": (
        "INSERT INTO users (id, login, uid, gid) VALUES (71, 'bob', 4071, 4071)",
        "UPDATE users SET enabled = 0 WHERE id = 71",
        "DELETE FROM users WHERE id = 71",
        (Noun.USER, 71),
    ),
    "osfs": (
        "INSERT INTO osfs (id, name, memory) VALUES (72, 'o', 1)",
        "UPDATE osfs SET expire_warn_s = 1 WHERE id = 72",
        "DELETE FROM osfs WHERE id = 72",
        (Noun.OSF, 72),
    ),
    "dis": (
        "INSERT INTO dis (id, osf_id, path, version, sha256, size_bytes, created)"
        " VALUES (73, 1, 'p', 'v', '', 1, '2030-01-01')",
        "UPDATE dis SET retired = '2030-01-01', until = '2030-01-02' WHERE id = 73",
        "DELETE FROM dis WHERE id = 73",
        (Noun.DI, 73),
    ),
    "di_tags": (
        "INSERT INTO di_tags (id, di_id, osf_id, tag) VALUES (74, 1, 1, 'head')",
        "UPDATE di_tags SET fixed = 1 WHERE id = 74",
        "DELETE FROM di_tags WHERE id = 74",
        (Noun.TAG, 1),
    ),
    "hosts": (
        "INSERT INTO hosts (id, name, address) VALUES (75, 'h', 'a')",
        "UPDATE hosts SET frontend = 0 WHERE id = 75",
        "DELETE FROM hosts WHERE id = 75",
        (Noun.HOST, 75),
    ),
    "host_runtimes": (
        "INSERT INTO host_runtimes (host_id) VALUES (75)",
        "UPDATE host_runtimes SET state = 'running', ok_ts = '2030-01-01' WHERE host_id = 75",
        "DELETE FROM host_runtimes WHERE host_id = 75",
        (Noun.HOST, 75),
    ),
    "configs": (
        "INSERT INTO configs (key, value) VALUES ('a.b', '1')",
        "UPDATE configs SET value = '2' WHERE key = 'a.b'",
        "DELETE FROM configs WHERE key = 'a.b'",
        (Noun.SETTING, 0),
    ),
    "alarms": (
        "INSERT INTO alarms (id, kind, object, text, raised, last)"
        " VALUES (76, 'pool', 'x', '', '2030-01-01', '2030-01-01')",
        "UPDATE alarms SET cleared = '2030-01-02' WHERE id = 76",
        "DELETE FROM alarms WHERE id = 76",
        (Noun.ALARM, 76),
    ),
    "operations": (
        "INSERT INTO operations (id, kind, object, owner, begun)"
        " VALUES (77, 'di add', '1', '', '2030-01-01')",
        "UPDATE operations SET progress = 0.5 WHERE id = 77",
        "DELETE FROM operations WHERE id = 77",
        (Noun.OPERATION, 77),
    ),
    **{
        f"{noun}_properties": (
            f"INSERT INTO {noun}_properties ({noun}_id, key, value) VALUES (78, 'k', 'v')",
            f"UPDATE {noun}_properties SET value = 'w' WHERE {noun}_id = 78",
            f"DELETE FROM {noun}_properties WHERE {noun}_id = 78",
            (noun, 78),
        )
        for noun in (Noun.VM, Noun.USER, Noun.OSF, Noun.DI, Noun.HOST)
    },
}
"""For each table that is watched: how a row comes, changes and goes, and what the entry says each time."""
HEARTBEATS = (
    "UPDATE vm_runtimes SET vma_ok_ts = '2030-01-01'",
    "UPDATE host_runtimes SET ok_ts = '2030-01-01'",
    "UPDATE host_runtimes SET usable_ram = 1, usable_cpu = 1",
    "UPDATE operations SET owner_pid = 1",
    "UPDATE host_counters SET http_requests = http_requests + 1",
    "UPDATE vm_counters SET run_ok = run_ok + 1",
)


def opened(directory: Path) -> sqlite3.Connection:
    return sqlite3.connect(directory / "qvd.db", isolation_level=None)


@pytest.fixture
async def database(tmp_path: Path) -> Path:
    """Where a database is that has one of each."""
    async with fresh_store(tmp_path) as store, store.write() as tx:
        await furnish(tx)
    return tmp_path


@pytest.fixture
def writer(database: Path) -> Iterator[sqlite3.Connection]:
    """A connection that takes any row, whatever it refers to."""
    with closing(opened(database)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        yield connection


@pytest.fixture
def reader(database: Path) -> Iterator[ChangeReader]:
    with closing(opened(database)) as connection:
        yield ChangeReader(connection)


def entries(connection: sqlite3.Connection, after: int) -> list[tuple[str, int]]:
    rows = connection.execute("SELECT noun, object_id FROM changes WHERE seq > ? ORDER BY seq", (after,))
    return rows.fetchall()


def triggers(directory: Path) -> dict[str, str]:
    with closing(opened(directory)) as connection:
        return dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"))


def make_vms(connection: sqlite3.Connection, count: int) -> None:
    numbers = [(number,) for number in range(1000, 1000 + count)]
    connection.execute("BEGIN")
    connection.executemany(
        "INSERT INTO vms (id, uuid, name, user_id, osf_id, subid_slot) VALUES (?1, ?1, ?1, 1, 1, ?1)", numbers
    )
    connection.executemany("INSERT INTO vm_runtimes (vm_id) VALUES (?)", numbers)
    connection.execute("COMMIT")


def test_for_every_table_somebody_has_decided() -> None:
    watched = {watch.table.name for watch in changes.WATCHES}
    assert watched == ROWS.keys()
    assert watched | UNWATCHED.keys() == schema.metadata.tables.keys()
    assert not watched & UNWATCHED.keys()


def test_what_is_silent_is_a_column() -> None:
    for watch in changes.WATCHES:
        assert watch.silent <= set(watch.table.c.keys()), watch.table.name


@pytest.mark.parametrize("table", ROWS)
def test_each_kind_of_write_makes_its_entry(
    table: str, writer: sqlite3.Connection, reader: ChangeReader
) -> None:
    *statements, expected = ROWS[table]
    for statement in statements:
        before = reader.newest()
        assert writer.execute(statement).rowcount == 1, "the trigger's row does not count"
        assert entries(writer, before) == [expected], statement
        noun, object_id = expected
        assert reader.since(before) == Changes(before + 1, {noun: frozenset({object_id})})


@pytest.mark.parametrize("watch", changes.WATCHES, ids=lambda watch: watch.table.name)
def test_each_column_is_seen_or_declared_silent(watch: changes.Watch, writer: sqlite3.Connection) -> None:
    table = watch.table.name
    if not writer.execute(f"SELECT 1 FROM {table}").fetchone():
        writer.execute(ROWS[table][0])
    for column in watch.table.c:
        if column.name == watch.id:
            continue
        before = ChangeReader(writer).newest()
        writer.execute(f'UPDATE {table} SET "{column.name}" = "{column.name}"')
        assert bool(entries(writer, before)) != (column.name in watch.silent), column.name


@pytest.mark.parametrize("statement", HEARTBEATS)
def test_signs_of_life_make_no_entry(
    statement: str, writer: sqlite3.Connection, reader: ChangeReader
) -> None:
    writer.execute(ROWS["operations"][0])
    before = reader.newest()
    assert writer.execute(statement).rowcount == 1
    assert reader.newest() == before
    assert reader.since(before) == Changes(before, {})


async def test_the_repositories_leave_entries_too(database: Path, reader: ChangeReader) -> None:
    """Through `RETURNING`, upserts and cascades, as the program writes."""
    async with fresh_store(database) as store:
        before = reader.newest()
        async with store.write() as tx:
            await tx.settings.set({"l7r.port": "1"})
            await tx.settings.set({"l7r.port": "2"})
            assert await tx.users.add("bob", None)
            (host,) = await tx.hosts.find()
            assert await tx.hosts.tick(host.id)
        seen = reader.since(before)
        assert seen is not None
        assert seen.objects == {Noun.SETTING: {0}, Noun.USER: {2}}

        async with store.write() as tx:
            (vm,) = await tx.vms.find()
            assert await tx.vms.delete([vm.id]) == 1
        gone = reader.since(seen.seq)
        assert gone is not None
        assert gone.objects == {Noun.VM: {vm.id}}
        with closing(opened(database)) as connection:
            assert entries(connection, seen.seq) == [(Noun.VM, vm.id)] * 2, "the runtime row went with it"


def test_what_is_rolled_back_was_never_there(writer: sqlite3.Connection, reader: ChangeReader) -> None:
    before = reader.newest()
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("UPDATE vms SET di_tag = 'head'")
    assert reader.since(before) == Changes(before, {}), "not committed yet"
    writer.execute("ROLLBACK")
    assert reader.since(before) == Changes(before, {})
    writer.execute("UPDATE users SET enabled = 0")
    assert reader.since(before) == Changes(before + 1, {Noun.USER: frozenset({1})})


def test_many_writes_of_one_object_are_told_once(writer: sqlite3.Connection, reader: ChangeReader) -> None:
    before = reader.newest()
    for tag in ("a", "b", "c"):
        writer.execute("UPDATE vms SET di_tag = ?", (tag,))
    assert reader.since(before) == Changes(before + 3, {Noun.VM: frozenset({1})})


def test_an_empty_journal_is_at_nought(tmp_path: Path) -> None:
    migrate.upgrade(url(tmp_path))
    with closing(opened(tmp_path)) as connection:
        reader = ChangeReader(connection)
        assert (reader.newest(), reader.since(0)) == (0, Changes(0, {}))
        assert reader.since(1) is None
        connection.execute("INSERT INTO configs VALUES ('a', 'b')")
        assert reader.since(0) == Changes(1, {Noun.SETTING: frozenset({0})})


def test_the_journal_does_not_outgrow_its_bound(writer: sqlite3.Connection, reader: ChangeReader) -> None:
    beginning = reader.newest()
    make_vms(writer, 10_000)
    for _ in range(8):
        writer.execute("UPDATE vm_runtimes SET failures = failures + 1")
        oldest, count = writer.execute("SELECT min(seq), count(*) FROM changes").fetchone()
        assert count < changes.KEPT + changes.PRUNE_EVERY
    newest = reader.newest()
    assert newest > 100_000
    assert newest - oldest + 1 == count >= changes.KEPT, "the newest are there, without a gap"

    assert reader.since(beginning) is None
    assert reader.since(oldest - 2) is None
    whole = reader.since(oldest - 1)
    assert whole is not None
    assert whole.seq == newest
    assert len(whole.objects[Noun.VM]) == 10_001
    assert reader.since(newest) == Changes(newest, {})
    assert reader.since(newest + 1) is None, "of another database"

    writer.execute("DELETE FROM changes")
    assert reader.newest() == newest
    assert reader.since(newest) == Changes(newest, {})
    assert reader.since(newest - 1) is None


@pytest.mark.parametrize(
    "damage",
    [
        "DROP TRIGGER changes_vms_update",
        "DROP TRIGGER changes_prune",
        "CREATE TRIGGER changes_of_old AFTER INSERT ON versions BEGIN SELECT 1; END",
        "DROP TRIGGER changes_vms_update;"
        " CREATE TRIGGER changes_vms_update AFTER UPDATE OF name ON vms BEGIN SELECT 1; END",
    ],
)
def test_an_upgrade_puts_the_triggers_right(tmp_path: Path, damage: str) -> None:
    migrate.upgrade(url(tmp_path))
    declared = triggers(tmp_path)
    with closing(opened(tmp_path)) as connection:
        connection.execute("CREATE TRIGGER other AFTER INSERT ON versions BEGIN SELECT 1; END")
        connection.executescript(damage)
    assert migrate.upgrade(url(tmp_path)), "there was something to do"
    assert triggers(tmp_path).keys() - declared.keys() == {"other"}, "triggers that are not ours stay"
    assert {name: triggers(tmp_path)[name] for name in declared} == declared
    assert not migrate.upgrade(url(tmp_path))


@pytest.mark.parametrize("revision", ["0001", "0004", "0007"])
def test_migrations_that_make_tables_anew_lose_no_trigger(database: Path, revision: str) -> None:
    declared = triggers(database)
    migrate.downgrade(url(database), revision)
    assert triggers(database) == {}
    assert migrate.upgrade(url(database))
    assert triggers(database) == declared
    with closing(opened(database)) as connection:
        before = ChangeReader(connection).newest()
        connection.execute("UPDATE vms SET di_tag = 'head'")
        assert entries(connection, before) == [(Noun.VM, 1)]


def test_a_database_of_a_newer_program_keeps_its_triggers(tmp_path: Path) -> None:
    migrate.upgrade(url(tmp_path))
    with closing(opened(tmp_path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.execute("CREATE TRIGGER changes_new AFTER INSERT ON versions BEGIN SELECT 1; END")
    before = triggers(tmp_path)
    with pytest.raises(SchemaVersionError):
        migrate.upgrade(url(tmp_path))
    assert triggers(tmp_path) == before


def test_what_a_write_of_all_runtime_rows_costs(writer: sqlite3.Connection, reader: ChangeReader) -> None:
    """For the eye (`-s`): no limit of time holds on every machine."""

    def timed(statement: str) -> float:
        begun = time.perf_counter()
        writer.execute(statement)
        return time.perf_counter() - begun

    make_vms(writer, 10_000)
    update = "UPDATE vm_runtimes SET vm_state_ts = '2030-01-01', failures = failures + 1"
    timed(update)
    before = reader.newest()
    noted = min(timed(update) for _ in range(3))
    begun = time.perf_counter()
    seen = reader.since(before)
    read = time.perf_counter() - begun
    assert seen is not None
    assert len(seen.objects[Noun.VM]) == 10_001

    writer.execute("DROP TRIGGER changes_vm_runtimes_update")
    before = reader.newest()
    bare = min(timed(update) for _ in range(3))
    assert reader.newest() == before
    print(
        f"\n10,000 runtime rows: {bare * 1e3:.0f} ms bare, {noted * 1e3:.0f} ms noted,"
        f" {noted / bare:.1f} times that; 30,000 entries read in {read * 1e3:.0f} ms"
    )


def test_the_reader_needs_the_standard_library_alone() -> None:
    tree = ast.parse(Path(change_reader.__file__).read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert "sqlite3" in imported
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names
