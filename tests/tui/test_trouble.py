"""A daemon that goes and comes, a database that is absent, locked, replaced or spoilt: said, and outlived."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from appliance.control import ControlServer, Stream
from appliance.control_frames import FrameKind
from appliance.qa import samples
from tests.support.tui import seated
from tests.support.tui_office import Office, nothing_changes

MIB = 1 << 20
HOST = {
    "cpu": 0.375,
    "cores": 2,
    "memory_bytes": 512 * MIB,
    "memory_total_bytes": 4096 * MIB,
    "pool_bytes": 90 * MIB,
    "pool_total_bytes": 100 * MIB,
    "load": 0.456,
}


@asynccontextmanager
async def daemon(control: Path) -> AsyncIterator[None]:
    """The part of a daemon that tells what desktops use: desk-2 half a core."""

    async def tell(stream: Stream, request: Mapping[str, Any]) -> None:
        stream.offer(FrameKind.EVENT, {"host": HOST, "vms": {"3": [0.5, 300 * MIB]}, "more": False})
        await stream.receive()

    control.parent.mkdir(parents=True, exist_ok=True)
    async with asyncio.TaskGroup() as tasks, ControlServer(control, {"samples": tell}, tasks):
        yield


async def test_a_daemon_that_is_down_is_said_to_be_and_noticed_when_it_is_back(office: Office) -> None:
    async with seated(office) as seat:
        await seat.shown("daemon down")
        since = seat.app.site.daemon_down_since
        assert since is not None
        await seat.shown(f"(since {since.astimezone():%H:%M})")
        assert "50%" not in seat.text
        async with daemon(seat.app.site.control):
            await seat.shown("daemon up")
            await seat.shown("50%")
            await seat.press("1")
            await seat.shown("38% of 2 cores")
            await seat.shown("90M of 100M")
        await seat.shown("daemon down")
        await seat.shown("the daemon is down")
        again = seat.app.site.daemon_down_since
        assert again is not None
        assert again > since
        await seat.go("vms")
        assert "50%" not in seat.text, "what nobody tells any more is shown no more"
        await seat.point("desk-1")
        await seat.press("s")
        assert (await seat.done()).ok, "wishes need no daemon"
        assert office.names("vm_cmd = 'start'") == {"desk-1"}
        async with daemon(seat.app.site.control):
            await seat.shown("daemon up")


async def test_a_daemon_that_hangs_is_not_said_to_be_up(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "SILENT_S", -0.5)
    now = "strftime('%Y-%m-%d %H:%M:%f', 'now')"
    office.sql(f"UPDATE host_runtimes SET state = 'running', ok_ts = {now} WHERE host_id = 1")
    async with seated(office) as seat, daemon(seat.app.site.control):
        await seat.shown("daemon up")
        await seat.shown("daemon silent")
        await seat.go("hosts")
        await seat.until(lambda: "✗ silent" in seat.text and "daemon silent" in seat.text)
        monkeypatch.undo()
        await seat.shown("daemon up")
        await seat.unseen("✗ silent")


async def test_a_wish_that_waits_for_a_daemon_says_so(office: Office) -> None:
    async with seated(office) as seat:
        await seat.point("desk-1")
        await seat.press("s")
        outcome = await seat.done()
        assert outcome.result == "Started 1 VMs."
        await seat.until(lambda: "does not run on this host" in seat.notices)


async def test_a_database_that_comes_later_is_waited_for(office: Office) -> None:
    kept = office.directory / "kept.db"
    office.database.rename(kept)
    async with seated(office, None) as seat:
        await seat.shown("there is no database")
        for key in ("1", "3", "4", "6", "7", "8", "9", "2", "s", "x", "D", "slash", "escape"):
            await seat.press(key)
        kept.rename(office.database)
        await seat.until(lambda: len(seat.app.site.tally.vms) == 11)
        await seat.unseen("there is no database")
        await seat.go("vms")
        assert "desk-1" in seat.rows


async def test_a_database_that_is_taken_away_and_replaced_is_read_anew(
    office: Office, tmp_path: Path
) -> None:
    other = tmp_path / "other.db"
    shutil.copy(office.database, other)
    with closing(sqlite3.connect(other)) as connection, connection:
        connection.execute("UPDATE vms SET name = 'from-the-backup' WHERE name = 'desk-1'")
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    async with seated(office) as seat:
        await seat.point("desk-4")
        office.database.unlink()
        await seat.shown("there is no database")
        assert "desk-1" in seat.rows, "what was known stays readable"
        for extra in ("-wal", "-shm"):
            office.database.with_name(office.database.name + extra).unlink(missing_ok=True)
        other.rename(office.database)
        await seat.until(lambda: "from-the-backup" in seat.rows)
        await seat.unseen("there is no database")
        assert seat.here == "desk-4"
        await seat.point("from-the-backup")
        await seat.press("s")
        assert (await seat.done()).ok
        assert office.names("vm_cmd = 'start'") == {"from-the-backup"}
        await seat.until(lambda: seat.vm("from-the-backup").cmd == "start")


@pytest.mark.parametrize("column", ["waits_for", "vm_state"])
async def test_a_schema_that_is_not_ours_is_said_to_be(office: Office, column: str) -> None:
    async with seated(office) as seat:
        office.sql(f"ALTER TABLE vm_runtimes RENAME COLUMN {column} TO other")
        await seat.shown(f"the database cannot be read: no such column: r.{column}")
        for key in ("1", "3", "4", "5", "6", "7", "8", "2", "slash", "i", "d", "equals_sign", "1", "enter"):
            await seat.press(key)
        assert seat.app.is_running
        await seat.press("escape")
        await seat.until(lambda: "desk-1" in seat.rows)
        office.sql("UPDATE vm_runtimes SET user_ip = '10.0.3.9' WHERE vm_id = 2")
        await asyncio.sleep(0)
        office.sql(f"ALTER TABLE vm_runtimes RENAME COLUMN other TO {column}")
        await seat.unseen("cannot be read")
        await seat.until(lambda: seat.vm("desk-1").user_ip == "10.0.3.9")


async def test_rubbish_for_a_database_is_said_to_be(office: Office) -> None:
    async with seated(office) as seat:
        aside = office.database.with_name("aside.db")
        office.database.rename(aside)
        office.database.write_bytes(b"this is no database at all\n" * 200)
        await seat.until(lambda: "the database cannot be read" in seat.text)
        await seat.point("desk-1")
        await seat.press("s")
        await seat.until(lambda: seat.log and seat.log[-1].ok is False)
        assert "Traceback" not in seat.text
        office.database.unlink()
        aside.rename(office.database)
        await seat.unseen("cannot be read")
        await seat.press("s")
        await seat.until(lambda: seat.log[-1].ok)
        assert office.names("vm_cmd = 'start'") == {"desk-1"}


async def test_while_somebody_else_writes_a_wish_waits_and_the_screen_does_not(office: Office) -> None:
    async with seated(office) as seat:
        await seat.point("desk-1")
        with closing(sqlite3.connect(office.database, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            await seat.press("s")
            await seat.until(lambda: seat.log)
            await seat.press("down", "down", "3")
            await seat.until(lambda: "chiara" in seat.text)
            with nothing_changes(office):
                await seat.press("q")
                await seat.asked()
                await seat.shown("Leave while work is under way?")
                await seat.press("escape")
                await seat.answered()
            assert seat.log[-1].ok is None
            connection.execute("ROLLBACK")
        await seat.done()
        assert seat.log[-1].ok
        assert office.names("vm_cmd = 'start'") == {"desk-1"}


async def test_quitting_with_work_under_way_leaves_when_it_is_meant(office: Office) -> None:
    async with seated(office) as seat:
        await seat.point("desk-1")
        with closing(sqlite3.connect(office.database, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            await seat.press("s")
            await seat.until(lambda: seat.log)
            await seat.press("q")
            await seat.asked()
            seat.strike("y")
            await asyncio.sleep(0)
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            await seat.until(lambda: not seat.app.is_running)
    assert seat.app.return_code == 0
