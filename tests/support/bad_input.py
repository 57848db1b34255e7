"""Bad input for `qa`: a world to try it on, and the proof that it changed nothing.

A `Bad` is one row of a table: the words of a call, the exit status it must get, and what its one line
on stderr must say. Rows share a furnished world that each test copies.
"""

from __future__ import annotations

import asyncio
import shlex
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import update

from appliance import config
from appliance.model import UserState, VmState
from appliance.storage.schema import vm_runtimes
from tests.support.qa import Installation, Said

REFUSED, USAGE, DAEMON_DOWN = 1, 2, 3


@dataclass(frozen=True)
class Bad:
    """One call that must be refused."""

    words: str
    """As on a shell's command line, without `qa`."""
    says: str
    """What the line on stderr holds."""
    status: int = REFUSED

    @property
    def argv(self) -> list[str]:
        """The words, taken apart as a shell does."""
        return shlex.split(self.words)

    def __str__(self) -> str:
        return self.words


def furnish(qa: Installation) -> None:
    """Two users (bob owns nothing), two OSFs (spare is empty), two DIs of the other, three VMs of alice.

    `web-1` is stopped, `web-2` runs DI 1 and has a session, `web-3` is wished started.
    """
    qa.ok("admin", "init", "--yes")
    qa.with_vm()
    qa.ok("user", "add", "login=bob", f"password-file={qa.password('other')}")
    qa.ok("osf", "add", "name=spare")
    for version in ("one", "two"):
        qa.ok("di", "add", f"path={qa.archive()}", "osf=desktop", f"version={version}")
    for name in ("web-2", "web-3"):
        qa.ok("vm", "add", f"name={name}", "user=alice", "osf=desktop")
    qa.ok("vm", "start", "-f", "name=web-3")
    asyncio.run(_run_web_2(qa))


async def _run_web_2(qa: Installation) -> None:
    async with qa.write() as tx:
        await tx.connection.execute(
            update(vm_runtimes)
            .where(vm_runtimes.c.vm_id == 2)
            .values(
                vm_state=VmState.RUNNING,
                vm_phase="running/monitoring",
                host_id=1,
                current_di_id=1,
                vm_address="10.9.0.5",
                user_state=UserState.CONNECTED,
                l7r_session="s",
            )
        )


@dataclass(frozen=True)
class Footprint:
    """Everything that a call might have changed: all rows of the database, all files of the world."""

    rows: tuple[str, ...]
    files: tuple[tuple[str, int, float], ...]


def footprint(qa: Installation) -> Footprint:
    """The world as it is now."""
    path = Path(qa.settings[config.DATABASE_URL].removeprefix("sqlite:///"))
    database = sqlite3.connect(path)
    try:
        rows = tuple(database.iterdump())
    finally:
        database.close()
    files = sorted(
        (str(file.relative_to(qa.directory)), file.lstat().st_size, file.lstat().st_mtime)
        for file in qa.directory.rglob("*")
        if file.is_file() and not file.name.startswith(path.name)
    )
    return Footprint(rows, tuple(files))


def check_refused(qa: Installation, bad: Bad) -> Said:
    """Make the call: it must fail as it should, say so once and clearly, and change nothing."""
    before = footprint(qa)
    said = qa(*bad.argv)
    assert said.status == bad.status, said
    check_told_clearly(said)
    assert bad.says in said.err
    assert footprint(qa) == before
    return said


def check_told_clearly(said: Said) -> None:
    """One `Error:` line; or, for wrong arguments, a line for each, their number, and the verb's help.

    A warning may stand before. Who names a verb that is none gets the list of verbs.
    """
    assert said.out == "", "a refusal prints no data"
    assert "Traceback" not in said.err
    lines = [line for line in said.err.splitlines() if not line.startswith("Warning: ")]
    if lines[0].startswith("Syntax error: "):
        wrong = [line for line in lines if line.startswith("Syntax error: ")]
        assert lines[len(wrong)] == f"{len(wrong)} error(s) encountered"
        assert "Usage: qa " in said.err
        return
    assert lines[0].startswith("Error: ")
    assert len(lines) == 1 or lines[1].startswith("Verbs of "), "one line"
    assert lines[0].isprintable()
