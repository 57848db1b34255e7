"""Looks at a database to which others write at random: what was pieced together is what is there."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from appliance.errors import StoreError
from appliance.storage.live import LiveReader, VmLine
from appliance.tui.tally import Tally
from benchmarks import tui_site

DESKTOPS = 40
ROUNDS = 60
WRITES = (
    "UPDATE vm_runtimes SET vm_state = 'zombie', vm_phase = 'zombie/reaping' "
    "WHERE vm_id = {vm} AND host_id IS NOT NULL",
    "UPDATE vm_runtimes SET user_ip = '10.0.3.{other}' WHERE vm_id = {vm}",
    "UPDATE vm_runtimes SET blocked = 1 - blocked, block_cause = iif(blocked, NULL, 'admin') "
    "WHERE vm_id = {vm}",
    "UPDATE vms SET name = 'renamed-{vm}-{number}' WHERE id = {vm}",
    "UPDATE vms SET di_tag = 'tag-{other}' WHERE id = {vm}",
    "UPDATE users SET login = 'login-{number}-' || id WHERE id = (SELECT user_id FROM vms WHERE id = {vm})",
    "UPDATE dis SET version = 'v-{number}' WHERE id = 1",
    "UPDATE di_tags SET di_id = di_id WHERE osf_id = 1",
    "DELETE FROM vms WHERE id = {vm} AND {number} % 3 = 0",
    "INSERT OR REPLACE INTO vm_properties VALUES ({vm}, 'key-{number}', 'x')",
    "UPDATE configs SET value = 'x' WHERE 0",
)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tui_site.make(tmp_path / "site", DESKTOPS).database


def there(database: Path) -> dict[int, VmLine]:
    """All desktops, read by somebody who has not looked before."""
    with closing(LiveReader(database)) as fresh:
        delta = fresh.look()
    assert delta is not None
    assert delta.whole
    return dict(delta.vms)


@pytest.mark.parametrize("seed", range(4))
def test_what_was_pieced_together_is_what_is_there(database: Path, seed: int) -> None:
    chance = random.Random(seed)
    known = Tally()
    parts = 0
    with closing(LiveReader(database)) as reader:
        for number in range(ROUNDS):
            with closing(sqlite3.connect(database)) as other, other:
                other.execute("PRAGMA foreign_keys = ON")
                for _ in range(chance.randint(1, 5)):
                    statement = chance.choice(WRITES)
                    vm, ip = chance.randint(1, DESKTOPS), chance.randint(1, 9)
                    if (
                        statement.startswith("INSERT")
                        and not other.execute("SELECT 1 FROM vms WHERE id = ?", (vm,)).fetchall()
                    ):
                        continue
                    other.execute(statement.format(vm=vm, other=ip, number=number))
                if chance.random() < 0.2:
                    other.rollback()
            if chance.random() < 0.3:
                continue  # nobody has looked; the next look finds both
            delta = reader.look()
            if delta is None:
                pass
            elif delta.whole:
                known = Tally(delta.vms)
            else:
                parts += 1
                known.take(delta)
            assert known.vms == there(database), number
    assert parts > 5, "everything was read anew each time"


def test_what_a_failed_look_has_not_read_is_read_by_the_next(database: Path) -> None:
    with closing(LiveReader(database)) as reader:
        first = reader.look()
        assert first is not None
        known = Tally(first.vms)
        with closing(sqlite3.connect(database)) as other, other:
            other.execute("UPDATE vm_runtimes SET user_ip = '10.0.3.77' WHERE vm_id = 7")
            other.execute("ALTER TABLE vm_runtimes RENAME COLUMN waits_for TO other")
        for _ in range(2):
            with pytest.raises(StoreError, match="waits_for"):
                reader.look()
        with closing(sqlite3.connect(database)) as other, other:
            other.execute("ALTER TABLE vm_runtimes RENAME COLUMN other TO waits_for")
        delta = reader.look()
        assert delta is not None
        known.take(delta)
        assert known.vms == there(database)
        assert known.vms[7].user_ip == "10.0.3.77"


def test_another_file_in_the_place_of_ours_is_noticed(database: Path) -> None:
    with closing(LiveReader(database)) as reader:
        assert not reader.is_replaced
        aside = database.with_name("aside.db")
        database.rename(aside)
        with pytest.raises(StoreError, match="any more"):
            _ = reader.is_replaced
        database.write_bytes(aside.read_bytes())
        assert reader.is_replaced
        database.unlink()
        aside.rename(database)
        assert not reader.is_replaced


def test_a_file_that_is_no_database_is_said_to_be_none(tmp_path: Path) -> None:
    file = tmp_path / "qvd.db"
    file.write_bytes(b"rubbish " * 1000)
    with pytest.raises(StoreError, match="not a database"):
        LiveReader(file)
