"""The lines of desktops that a screen follows: all at first, then those that changed, whoever wrote."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from appliance.errors import StoreError
from appliance.storage.live import MANY, Delta, LiveReader
from benchmarks import tui_site


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tui_site.make(tmp_path / "site", 30).database


@pytest.fixture
def reader(database: Path) -> Iterator[LiveReader]:
    with closing(LiveReader(database)) as made:
        yield made


def write(database: Path, *statements: str) -> None:
    """What another process does, in one transaction."""
    with closing(sqlite3.connect(database)) as other, other:
        for statement in statements:
            other.execute(statement)


def look(reader: LiveReader) -> Delta:
    """What there is to be seen."""
    delta = reader.look()
    assert delta is not None
    return delta


def test_all_at_first_then_nothing_then_what_changed(database: Path, reader: LiveReader) -> None:
    first = look(reader)
    assert first.whole
    assert sorted(first.vms) == list(range(1, 31))
    assert reader.look() is None
    write(database, "UPDATE vm_runtimes SET waits_for = 'memory' WHERE vm_id IN (3, 17)")
    second = look(reader)
    assert (second.whole, sorted(second.vms), second.gone) == (False, [3, 17], frozenset())
    assert second.vms[17] == first.vms[17]._replace(waits_for="memory")
    write(database, "DELETE FROM vms WHERE id = 3", "UPDATE vms SET name = 'other' WHERE id = 4")
    third = look(reader)
    assert isinstance(third.gone, frozenset)
    assert (third.gone, sorted(third.vms), third.vms[4].name) == (frozenset({3}), [4], "other")
    assert reader.look() is None


def test_a_sign_of_life_is_no_news(database: Path, reader: LiveReader) -> None:
    look(reader)
    write(database, "UPDATE vm_runtimes SET vma_ok_ts = '2026-11-28 10:00:00' WHERE vm_id = 3")
    assert look(reader) == Delta(False, {})


def test_a_tag_concerns_all(database: Path, reader: LiveReader) -> None:
    first = look(reader)
    write(database, "UPDATE di_tags SET di_id = 1 WHERE osf_id = 1")
    second = look(reader)
    assert second.whole
    assert second.nouns == {"tag"}
    moved = [vm for vm in second.vms.values() if vm.next_di_id == 1]
    assert moved
    assert all(first.vms[vm.id].next_di_id == 2 for vm in moved)


def test_more_changes_than_rows_are_worth_asking_for_singly(tmp_path: Path) -> None:
    site = tui_site.make(tmp_path / "large", MANY + 10)
    with closing(LiveReader(site.database)) as reader:
        look(reader)
        write(site.database, f"UPDATE vm_runtimes SET waits_for = 'x' WHERE vm_id <= {MANY}")
        some = look(reader)
        assert (some.whole, len(some.vms)) == (False, MANY)
        write(site.database, f"UPDATE vm_runtimes SET waits_for = 'y' WHERE vm_id <= {MANY + 1}")
        everything = look(reader)
        assert (everything.whole, len(everything.vms)) == (True, MANY + 10)
        assert sum(vm.waits_for == "y" for vm in everything.vms.values()) == MANY + 1


def test_there_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no database"):
        LiveReader(tmp_path / "none.db")
