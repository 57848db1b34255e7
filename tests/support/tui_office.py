"""An office with desktops in every state, and what its database holds.

The office is made once for a run of tests, by `qa`, and copied for each: no test sees what another has done.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import io
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from appliance.qa.main import main
from tests.support.qa import Installation, Said

Tables = dict[str, list[tuple[Any, ...]]]
JOURNAL = {"changes", "sqlite_sequence"}
"""Tables that tell that something was written, not what there is."""
INSTANT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?")
FRONT = re.compile(r"\b(tui|qa):")
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

IMAGES = (
    ("office", "v1"),
    ("office", "v2"),
    ("lab", "v1"),
    ("lab", "v0"),
    ("lab", "v3"),
    ("office", "v3"),
    ("office", "v4"),
    ("lab", "v2"),
)
"""By their numbers from 1: 4 and 5 are in the trash, 7 and 8 are blocked; 2 and 3 are the default ones."""

RUNNING = "vm_state = 'running', vm_phase = 'running/monitoring', started_by = 'command', host_id = 1"
CONNECTED = (
    "user_state = 'connected', l7r_session = vm_id, user_ip = '10.0.3.4', "
    "user_state_ts = '2026-01-02 03:04:05'"
)
SCENES = {
    "desk-2": f"{RUNNING}, {CONNECTED}, current_osf_id = 1, current_di_id = 1, real_user_id = 1",
    "desk-3": "failure = 'the guest ended while it booted', failure_cause = 'image', failures = 2, "
    "blocked = 1, block_cause = 'image'",
    "desk-4": f"{RUNNING}, current_osf_id = 1, current_di_id = 1, blocked = 1, block_cause = 'admin'",
    "desk-5": "vm_state = 'zombie', vm_phase = 'zombie/reaping', host_id = 1, current_osf_id = 1, "
    "current_di_id = 2",
    "desk-6": "vm_state = 'starting', vm_phase = 'starting/awaiting-vma', host_id = 1, current_osf_id = 1, "
    "current_di_id = 2",
    "desk-8": f"{RUNNING}, {CONNECTED}, current_osf_id = 1, current_di_id = 2, real_user_id = 2",
}
"""What the desktops do that do not simply stand still: desk-0, desk-1, lab-0, lab-1 and lab-2 do."""


class Office(Installation):
    """Six users, three OSFs, eight images, eleven desktops, four hosts, an alarm, a few settings."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        shutil.copytree(_template(), directory, dirs_exist_ok=True)
        super().__init__(directory, capsys)

    def write_config(self, **changes: str) -> None:
        """With room for more than five desktops."""
        super().write_config(**{"vm__network__netmask": "24", **changes})

    @property
    def database(self) -> Path:
        """The file."""
        return self.storage / "qvd.db"

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Do one statement on the database, as another process would, and commit it."""
        with closing(sqlite3.connect(self.database, timeout=10)) as connection, connection:
            return connection.execute(statement, values).fetchall()

    def names(self, where: str) -> set[str]:
        """The desktops of which something holds."""
        return {
            row[0] for row in self.sql(f"SELECT name FROM vms JOIN vm_runtimes ON vm_id = id WHERE {where}")
        }

    def set_vm(self, name: str, assignments: str) -> None:
        """Let a desktop be as the HKD would write it."""
        self.sql(
            f"UPDATE vm_runtimes SET {assignments} WHERE vm_id = (SELECT id FROM vms WHERE name = ?)", name
        )

    def tables(self) -> Tables:
        """Everything that the database holds."""
        with closing(sqlite3.connect(self.database, timeout=10)) as connection:
            names = [
                row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            ]
            return {
                name: sorted(connection.execute(f'SELECT * FROM "{name}"').fetchall(), key=repr)
                for name in sorted(set(names) - JOURNAL)
            }

    def events(self, after: int = 0) -> list[tuple[str, str, str]]:
        """Lines of the audit log: by whom, what, on what."""
        return self.sql('SELECT "by", what, object FROM events WHERE id > ? ORDER BY id', after)

    @property
    def newest_event(self) -> int:
        """The number of the newest line of the audit log."""
        return int(self.sql("SELECT coalesce(max(id), 0) FROM events")[0][0])

    async def elsewhere(self, *words: str) -> Said:
        """Call `qa` as somebody else would, and insist on success."""
        return await asyncio.to_thread(self.ok, *words)


def comparable(tables: Tables) -> Tables:
    """The same without what differs from run to run: instants, random numbers, and which front it was."""

    def plain(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        value = UUID.sub("UUID", INSTANT.sub("INSTANT", value))
        return FRONT.sub("", value)

    return {name: [tuple(map(plain, row)) for row in rows] for name, rows in tables.items()}


@cache
def _template() -> Path:
    """A directory with the office, for copies."""
    directory = Path(tempfile.mkdtemp(prefix="qvd-office-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setattr(Office, "__init__", Installation.__init__)
        office = Office(directory, None)  # type: ignore[arg-type]

    def qa(*words: str) -> None:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = main(["--config", str(office.config), *words])
        assert status == 0, (words, said.getvalue())

    qa("admin", "init", "--yes")
    for login in ("alice", "bruno", "chiara", "dmitri", "eva", "fritz"):
        qa("user", "add", f"login={login}", f"password-file={office.password('secret')}")
    qa("user", "disable", "-f", "login in (dmitri,eva)")
    for osf in ("office", "lab", "empty"):
        qa("osf", "add", f"name={osf}", "memory=1g")
    for osf, version in IMAGES:
        qa("di", "add", f"path={office.archive()}", f"osf={osf}", f"version={version}")
    qa("di", "tag", "di_id=1", "tag=default")
    qa("di", "tag", "di_id=2", "tag=default")
    qa("di", "tag", "di_id=1", "tag=old")
    qa("di", "tag", "di_id=3", "tag=default")
    qa("di", "del", "-f", "id in (4,5)", "--yes")
    qa("di", "block", "-f", "version=v4")
    qa("di", "block", "-f", "osf=lab,version=v2")
    qa("vm", "add", "name=desk", "user=alice", "osf=office", "bulk=7")
    qa("vm", "add", "name=desk-8", "user=bruno", "osf=office")
    qa("vm", "add", "name=lab", "user=bruno", "osf=lab", "bulk=3")
    qa("vm", "propset", "room=12", "-f", "name=lab-1")
    for name in ("spare", "spare2", "spare3"):
        qa("host", "add", f"name={name}", f"address={name}.example")
    qa("host", "block", "-f", "name=spare3")
    qa("config", "set", "l7r.greeting=hello", "site.room=12", "vm.network.dns_server=10.9.0.1")
    for name, assignments in SCENES.items():
        office.set_vm(name, f"vm_state_ts = '2026-01-02 03:04:05', {assignments}")
    office.sql(
        "INSERT INTO alarms (kind, object, text, raised, last, count) VALUES "
        "('pool', 'host 1', 'the pool is full', '2026-01-02 03:04:05', '2026-01-02 03:04:05', 1)"
    )
    office.sql("PRAGMA wal_checkpoint(TRUNCATE)")
    return directory


@contextmanager
def nothing_changes(office: Office) -> Iterator[None]:
    """Insist that the database is afterwards as before, to the last row."""
    before = office.tables()
    yield
    assert office.tables() == before
