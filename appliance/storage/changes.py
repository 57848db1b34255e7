"""The journal of changes: SQLite itself notes in `changes` which object every write was about.

Whoever writes, by whatever way, need not think of it. Signs of life make no entries: they come every few
seconds and tell an administrator nothing new. `change_reader.py` reads what is noted.

The triggers are not part of a migration. Alembic makes tables anew, and their triggers are lost without a
word; one that names a column keeps it from being dropped. So they are taken away before migrations and put
back after.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, Table

from appliance.storage import schema
from appliance.storage.change_reader import Noun

KEPT = 65_536
"""How many entries are kept at least. Who falls further behind reads everything anew."""
PRUNE_EVERY = 1_024
"""After how many new entries the old ones go; so many more than `KEPT` are there at times."""
PREFIX = "changes_"
"""What the names of all triggers of the journal, and of no others, begin with."""


@dataclass(frozen=True, slots=True)
class Watch:
    """A table whose writes are noted: under which noun, with which of its columns as the object's id.

    Without such a column the id is 0. A write of `silent` columns alone makes no entry. Nor does one of the
    id: ids are given for good.
    """

    table: Table
    noun: Noun
    id: str | None
    silent: frozenset[str] = frozenset()


WATCHES = (
    Watch(schema.vms, Noun.VM, "id"),
    Watch(schema.vm_runtimes, Noun.VM, "vm_id", frozenset({"vma_ok_ts"})),
    Watch(schema.vm_properties, Noun.VM, "vm_id"),
    Watch(schema.users, Noun.USER, "id"),
    Watch(schema.user_properties, Noun.USER, "user_id"),
    Watch(schema.osfs, Noun.OSF, "id"),
    Watch(schema.osf_properties, Noun.OSF, "osf_id"),
    Watch(schema.dis, Noun.DI, "id"),
    Watch(schema.di_properties, Noun.DI, "di_id"),
    Watch(schema.di_tags, Noun.TAG, "osf_id"),
    Watch(schema.hosts, Noun.HOST, "id"),
    Watch(schema.host_runtimes, Noun.HOST, "host_id", frozenset({"ok_ts", "usable_ram", "usable_cpu"})),
    Watch(schema.host_properties, Noun.HOST, "host_id"),
    Watch(schema.configs, Noun.SETTING, None),
    Watch(schema.alarms, Noun.ALARM, "id"),
    Watch(schema.operations, Noun.OPERATION, "id", frozenset({"owner_pid", "plan"})),
)


def install(connection: Connection) -> bool:
    """Have exactly the triggers that this program declares; whether any was missing, foreign or another.

    The schema must be that of this program.
    """
    there, declared = _there(connection), dict(_declared())
    _drop(connection, (name for name, sql in there.items() if declared.get(name) != sql))
    missing = [sql for name, sql in declared.items() if there.get(name) != sql]
    for sql in missing:
        connection.exec_driver_sql(sql)
    return bool(missing) or there.keys() != declared.keys()


def remove(connection: Connection) -> None:
    """Take all triggers of the journal away, so that tables may be altered."""
    _drop(connection, _there(connection))


def _there(connection: Connection) -> dict[str, str]:
    """The triggers of the journal that the database has: name and SQL, as they were created."""
    rows = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
    return {name: sql for name, sql in rows if name.startswith(PREFIX)}


def _drop(connection: Connection, names: Iterable[str]) -> None:
    for name in names:
        connection.exec_driver_sql(f'DROP TRIGGER "{name}"')


def _declared() -> Iterator[tuple[str, str]]:
    for watch in WATCHES:
        hidden = watch.silent | {watch.id}
        seen = ", ".join(f'"{column.name}"' for column in watch.table.columns if column.name not in hidden)
        yield _note(watch, "insert", "INSERT", "NEW")
        yield _note(watch, "update", f"UPDATE OF {seen}", "NEW")
        yield _note(watch, "delete", "DELETE", "OLD")
    old = f"DELETE FROM changes WHERE seq <= NEW.seq - {KEPT}"  # noqa: S608
    yield _trigger("prune", f"INSERT ON changes WHEN NEW.seq % {PRUNE_EVERY} = 0", old)


def _note(watch: Watch, kind: str, when: str, row: str) -> tuple[str, str]:
    object_id = "0" if watch.id is None else f'{row}."{watch.id}"'
    noting = f"INSERT INTO changes (noun, object_id) VALUES ('{watch.noun}', {object_id})"  # noqa: S608
    return _trigger(f"{watch.table.name}_{kind}", f"{when} ON {watch.table.name}", noting)


def _trigger(name: str, after: str, statement: str) -> tuple[str, str]:
    """Its name, and the SQL that makes it, which SQLite keeps to the letter."""
    return f"{PREFIX}{name}", f"CREATE TRIGGER {PREFIX}{name} AFTER {after} BEGIN {statement}; END"
