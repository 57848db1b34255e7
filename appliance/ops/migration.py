"""Brings the database to the schema of this program, with a copy of the old one beside it."""

from __future__ import annotations

from pathlib import Path

from appliance.config import DATABASE_URL, Settings
from appliance.ops.reset import daemon_kept_out
from appliance.storage import migrate
from appliance.storage.db import database_file


def bring_up_to_date(settings: Settings) -> list[str]:
    """Make the database, or migrate it; a sentence for each thing done.

    An older database is first copied, whole, to a file beside it that is named after its schema. No
    daemon may run meanwhile; its guests may.

    :raises ConflictError: the daemon runs
    :raises StoreError: the database cannot be written, or the copy cannot be made; nothing was changed
    :raises SchemaVersionError: it was made by a newer program
    """
    url = settings[DATABASE_URL]
    file = database_file(url)
    before = migrate.revision(url)
    if before is None:
        return [f"Database {file} made."] if migrate.upgrade(url) else []
    if before == migrate.head():
        return ["The journal of changes was put right."] if migrate.upgrade(url) else []
    with daemon_kept_out(settings):
        copy = free_name(file, before)
        migrate.copy(url, copy)
        try:
            migrate.upgrade(url)
        except BaseException:
            copy.unlink(missing_ok=True)  # The database is as it was.
            raise
    return [f"Database {file} migrated; as it was before, it is in {copy}."]


def free_name(file: Path, revision: str) -> Path:
    """A name for a copy of `file` beside it that nothing has yet: no earlier copy is lost."""
    number, name = 1, f"{file.name}.schema-{revision}"
    while (copy := file.with_name(name if number == 1 else f"{name}.{number}")).exists():
        number += 1
    return copy
