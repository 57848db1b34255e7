"""An older database is migrated under no daemon, and a copy of it stays."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from appliance.config import Settings
from appliance.errors import ConflictError, SchemaVersionError
from appliance.ops.migration import bring_up_to_date
from appliance.ops.reset import daemon_kept_out
from appliance.storage import migrate
from tests.support.store import fresh_store, furnish, url

OLD = "0001"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings({"path.storage.root": str(tmp_path)})


@pytest.fixture
async def old(tmp_path: Path) -> Path:
    """A database of the first schema, with some rows."""
    async with fresh_store(tmp_path) as store, store.write() as tx:
        await furnish(tx)
    migrate.downgrade(url(tmp_path), OLD)
    return tmp_path / "qvd.db"


def files(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()} - {"hkd.lock"}


def hosts(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as database:
        return [name for (name,) in database.execute("SELECT name FROM hosts")]


def test_a_new_one_is_made(settings: Settings, tmp_path: Path) -> None:
    assert bring_up_to_date(settings) == [f"Database {tmp_path}/qvd.db made."]
    assert bring_up_to_date(settings) == []


def test_an_older_one_is_migrated_and_kept_as_it_was(settings: Settings, old: Path) -> None:
    (said,) = bring_up_to_date(settings)

    copy = old.with_name(f"qvd.db.schema-{OLD}")
    assert str(copy) in said
    assert copy.stat().st_mode & 0o777 == 0o600
    assert migrate.revision(f"sqlite:///{copy}") == OLD
    assert migrate.revision(f"sqlite:///{old}") == migrate.head()
    assert hosts(copy) == hosts(old) != []
    assert bring_up_to_date(settings) == []


def test_an_earlier_copy_is_not_lost(settings: Settings, old: Path) -> None:
    first = old.with_name(f"qvd.db.schema-{OLD}")
    first.write_text("precious")

    bring_up_to_date(settings)

    assert first.read_text() == "precious"
    assert migrate.revision(f"sqlite:///{first}.2") == OLD


def test_a_running_daemon_is_not_pulled_the_rug_from_under(settings: Settings, old: Path) -> None:
    with (
        daemon_kept_out(settings),
        pytest.raises(ConflictError, match="the daemon of this installation runs"),
    ):
        bring_up_to_date(settings)

    assert migrate.revision(f"sqlite:///{old}") == OLD
    assert not old.with_name(f"qvd.db.schema-{OLD}").exists()


def test_one_of_a_newer_program_is_left_alone(settings: Settings, tmp_path: Path) -> None:
    bring_up_to_date(settings)
    with closing(sqlite3.connect(tmp_path / "qvd.db", isolation_level=None)) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    before = files(tmp_path)

    with pytest.raises(SchemaVersionError):
        bring_up_to_date(settings)

    assert files(tmp_path) == before
