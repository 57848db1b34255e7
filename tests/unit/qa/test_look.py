"""`qa vm cat` and `qa vm logs`: what is shown of a container's files, to whom, and what is not."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from pathlib import Path

import pytest
from sqlalchemy import update

from appliance.console_log import harmless
from appliance.errors import AdminError
from appliance.qa.look import read_by_root
from appliance.qa.main import main
from appliance.runtime.machine import Phase
from appliance.storage import guest_files
from appliance.storage.guest_files import GuestFiles, Tail
from appliance.storage.schema import vm_runtimes
from tests.support.machines import machine
from tests.support.qa import Installation
from tests.support.rows import vm_row


@pytest.fixture
def root(qa: Installation) -> Path:
    """The root of web-1, which has run here, with the log /var/log/syslog of 300 lines."""
    qa.ok("user", "add", "login=alice", f"password-file={qa.password('secret')}")
    for backend in ("lxc", "kvm", "nothing"):
        qa.ok("osf", "add", f"name={backend}", f"backend={backend}", "memory=64")
        name = {"lxc": "web-1"}.get(backend, backend)
        qa.ok("vm", "add", f"name={name}", "user=alice", f"osf={backend}")
    root = qa.storage / "rootfs/1-fs"
    (root / "var/log").mkdir(parents=True)
    (root / "var/log/syslog").write_text("".join(f"line {number}\n" for number in range(1, 301)))
    (qa.storage / "homefs/1-fs/alice").mkdir(parents=True)
    (qa.storage / "homefs/1-fs/alice/notes").write_text("hers\n")
    return root


@pytest.fixture
def log(root: Path) -> Path:
    return root / "var/log/syslog"


CAT = ("vm", "cat", "-f", "name=web-1")
LOGS = ("vm", "logs", "-f", "name=web-1")


def test_a_file_is_shown_as_far_as_one_wants(qa: Installation, log: Path) -> None:
    lines = log.read_text().splitlines(keepends=True)
    said = qa.ok(*CAT, "path=/var/log/syslog")
    assert said.out == "".join(lines[-200:])
    assert said.err == "These are its last 200 lines: lines=all shows up to 1 MiB.\n"
    said = qa.ok(*CAT, "path=/var/log/syslog", "lines=2")
    assert (said.out, said.err) == ("line 299\nline 300\n", "")
    said = qa.ok(*CAT, "path=/var/log/syslog", "lines=all")
    assert (said.out, said.err) == ("".join(lines), "")


def test_more_than_a_mebibyte_is_never_read(qa: Installation, log: Path) -> None:
    with log.open("ab") as stream:
        stream.truncate(1 << 40)
        stream.seek(0, os.SEEK_END)
        stream.write(b"\nthe end\n")
    said = qa.ok(*CAT, "path=/var/log/syslog", "lines=all")
    assert said.out == "the end\n"
    assert said.err == f"This is its end, 8 of {(1 << 40) + 9} bytes.\n"


def test_a_program_gets_what_is_there(qa: Installation, log: Path) -> None:
    log.write_bytes(b"caf\xe9 \x1b[31m\n")
    os.utime(log, (1_900_000_000, 1_900_000_000))
    assert qa.ok(*CAT, "path=/var/log/syslog", "-o", "json").json == {
        "id": 1,
        "name": "web-1",
        "path": "/var/log/syslog",
        "size_bytes": 11,
        "modified": "2030-03-17T17:46:40Z",
        "is_whole": True,
        "text": "caf\ufffd \x1b[31m\n",
    }


class Terminal(io.TextIOWrapper):
    """What a program takes for one."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        (io.TextIOWrapper, b"a\xff\x00\x1b]0;owned\x07b\x1b[2J\x9bc\tz"),
        (Terminal, "a\ufffdb\ufffdc\tz\n".encode()),
    ],
)
def test_a_pipe_gets_each_byte_and_a_terminal_nothing_that_acts(
    qa: Installation, log: Path, kind: type[io.TextIOWrapper], shown: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.write_bytes(b"a\xff\x00\x1b]0;owned\x07b\x1b[2J\x9bc\tz")
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", kind(written, encoding="utf-8"))
    assert main(["--config", str(qa.config), *CAT, "path=/var/log/syslog"]) == 0
    sys.stdout.flush()
    assert written.getvalue() == shown


@pytest.mark.parametrize(
    "act", ["\x1b]52;c;eA==\x07", "\x1b[6n", "\x9b6n", "\x1bP$q\x1b\\", "\u202e", "\x07", "\x08"]
)
def test_what_acts_is_taken_out(act: str) -> None:
    shown = harmless(f"before{act}after\r\n".encode())
    assert (shown.replace("6n", ""), shown.isascii()) == ("beforeafter\n", True)


def test_reading_changes_nothing_and_is_logged_if_it_is_the_users_own(qa: Installation, root: Path) -> None:
    (root / "etc").mkdir()
    (root / "etc/link").symlink_to("/home/alice/notes")
    before = times(qa)
    qa.ok(*CAT, "path=/var/log/syslog")
    assert qa.ok("event", "list", "-f", "what=vm cat", "-o", "json").json == []
    assert qa.ok(*CAT, "path=/home/alice/notes").out == "hers\n"
    assert qa.ok(*CAT, "path=/etc/link").out == "hers\n"
    rows = qa.ok("event", "list", "-f", "what=vm cat", "-o", "json").json
    assert [(row["object"], row["now"]) for row in rows] == [
        ("vm 1", "/home/alice/notes"),
        ("vm 1", "/etc/link"),
    ]
    assert times(qa) == before


def times(qa: Installation) -> dict[Path, int]:
    """When each file of the guest was changed."""
    places = (qa.storage / "rootfs", qa.storage / "homefs")
    return {path: path.lstat().st_mtime_ns for place in places for path in place.rglob("*")}


@pytest.mark.parametrize(
    ("words", "status", "reason"),
    [
        ((*CAT, "path=var/log/syslog"), 2, "write a full path"),
        ((*CAT, "path=/x", "lines=0"), 2, "1 or more"),
        ((*CAT, "path=/x", "lines=100001"), 2, "write a number from 1 to 100000"),
        (CAT, 2, "argument path is missing"),
        ((*CAT, "path=/x"), 1, "web-1 has no /x"),
        ((*CAT, "path=/var/log"), 1, "/var/log is a directory"),
        ((*CAT, "path=/run/x"), 1, "/run is in the guest's memory"),
        ((*CAT, "path=/var/log/syslog/x"), 1, "/var/log/syslog/x of web-1 cannot be read: Not a directory"),
        (("vm", "cat", "path=/x", "-f", "name=kvm"), 1, "kvm runs on kvm: only the files of containers"),
        (("vm", "logs", "-f", "name=nothing"), 1, "nothing runs on nothing: only the files of containers"),
        (("vm", "logs"), 1, "3 virtual machines match"),
    ],
)
def test_what_cannot_be_read_is_said(
    qa: Installation, root: Path, words: tuple[str, ...], status: int, reason: str
) -> None:
    said = qa(*words)
    assert (said.status, said.out) == (status, "")
    assert reason in said.err


def test_only_what_is_here_is_read(qa: Installation, root: Path) -> None:
    async def move() -> None:
        async with qa.write() as tx:
            host = await tx.hosts.add("node2", "127.0.0.2")
            runs = {"vm_state": "running", "host_id": host}
            await tx.connection.execute(update(vm_runtimes).where(vm_runtimes.c.vm_id == 1).values(**runs))

    asyncio.run(move())
    assert "web-1 runs on node2, and its files are there only (use qa on node2)" in qa(*LOGS).err


def test_a_stopped_vm_has_a_home_and_maybe_a_root(qa: Installation, root: Path) -> None:
    assert qa.ok(*LOGS).out
    root.rename(root.with_name("gone"))
    said = qa(*LOGS)
    assert (said.status, said.err) == (
        1,
        "Error: web-1 is stopped, and has no root here: a start makes one (qa vm start -f name=web-1)\n",
    )
    assert qa.ok(*CAT, "path=/home/alice/notes").out == "hers\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs somebody else to be")
def test_who_may_not_read_is_told_who_may(qa: Installation, log: Path) -> None:
    log.chmod(0o600)
    files = GuestFiles(log.parents[2], qa.storage / "homefs/1-fs")
    os.seteuid(65534)
    try:
        with (
            pytest.raises(AdminError, match=r"the files of desk7 may not be read: .* \(use qa as root\)"),
            read_by_root(vm_row(machine(Phase.MONITORING)), "/var/log/syslog"),
        ):
            files.tail("/var/log/syslog")
    finally:
        os.seteuid(0)


def test_logs_are_listed(qa: Installation, log: Path) -> None:
    (log.parent / "apt").mkdir()
    (log.parent / "apt/odd\x1b[2J").write_text("x")
    os.utime(log.parent / "apt/odd\x1b[2J", (1_800_000_000, 1_800_000_000))
    os.utime(log, (1_900_000_000, 1_900_000_000))
    assert qa.ok(*LOGS, "-o", "json").json == [
        {"path": "/var/log/syslog", "size_bytes": 2592, "modified": "2030-03-17T17:46:40Z"},
        {"path": "/var/log/apt/odd\x1b[2J", "size_bytes": 1, "modified": "2027-01-15T08:00:00Z"},
    ]
    listed = qa.ok(*LOGS).out.splitlines()
    assert listed[0].split() == ["Modified", "Bytes", "Path"]
    assert listed[2].split()[2:] == ["2592", "/var/log/syslog"]
    assert listed[3].split()[2:] == ["1", "/var/log/apt/odd", "[2J"]


def test_the_ends_of_the_newest_texts_are_shown(qa: Installation, log: Path) -> None:
    for number in range(9):
        for name, data in (
            (f"{number}.log", f"{number}\nof {number}"),
            (f"{number}.gz", "x"),
            (f"{number}.bin", "\0"),
        ):
            (log.parent / name).write_text(data)
            os.utime(log.parent / name, (1_800_000_000 + number, 1_800_000_000 + number))
    os.utime(log, (1_900_000_000, 1_900_000_000))
    (log.parent / "empty").touch()
    shown = qa.ok(*LOGS, "lines=1").out
    headings = [line.split()[1] for line in shown.splitlines() if line.startswith("==>")]
    assert headings == ["/var/log/syslog", *(f"/var/log/{number}.log" for number in (8, 7, 6, 5))]
    assert [line for line in shown.splitlines() if line and not line.startswith("==>")] == [
        "line 300",
        *(f"of {number}" for number in (8, 7, 6, 5)),
    ]
    rows = qa.ok(*LOGS, "lines=2", "-o", "json").json
    assert [(row["path"], row["lines"]) for row in rows[:2]] == [
        ("/var/log/syslog", ["line 299", "line 300"]),
        ("/var/log/8.log", ["8", "of 8"]),
    ]


def test_there_may_be_no_logs(qa: Installation, log: Path) -> None:
    log.unlink()
    assert (qa.ok(*LOGS, "-o", "json").json, qa.ok(*LOGS, "lines=3").out) == ([], "")
    log.parent.rmdir()
    assert "web-1 has no /var/log" in qa(*LOGS).err


def test_logs_that_are_the_users_own_are_read_with_a_line_in_the_audit_log(
    qa: Installation, log: Path
) -> None:
    (log.parent / "hers").mkdir()
    qa.ok(*LOGS, "lines=3")
    assert qa.listed("event", "what=vm logs") == []
    log.unlink()
    (log.parent / "hers").rmdir()
    log.parent.rmdir()
    log.parent.symlink_to("/home/alice")
    assert qa.ok(*LOGS, "lines=3").out.splitlines()[1:] == ["hers"]
    (row,) = qa.listed("event", "what=vm logs")
    assert (row["object"], row["now"]) == ("vm 1", "/var/log/notes")


def test_a_home_that_is_not_there_is_said_whatever_leads_there(qa: Installation, log: Path) -> None:
    log.unlink()
    log.parent.rmdir()
    log.parent.symlink_to("/home/alice")
    (qa.storage / "homefs/1-fs").rename(qa.storage / "homefs/gone")
    assert "web-1 is stopped, and has no home here: a start makes one" in qa(*LOGS).err
    assert "web-1 is stopped, and has no home here: a start makes one" in qa(*CAT, "path=/home/x").err


def test_more_logs_than_are_looked_at_are_noted(
    qa: Installation, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (log.parent / "other").write_text("x\n")
    assert qa.ok(*LOGS).err == qa.ok(*LOGS, "lines=1").err == ""
    monkeypatch.setattr(guest_files, "MOST_LOGS", 1)
    for words in ((), ("lines=1",), ("-o", "json")):
        assert "There is more below /var/log" in qa.ok(*LOGS, *words).err


def test_a_packed_log_is_not_even_read(qa: Installation, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (log.parent / "syslog.1.gz").write_text("x")
    read: list[str] = []
    real = GuestFiles.tail

    def tail(files: GuestFiles, path: str, lines: int | None = None, *, most: int) -> Tail:
        read.append(path)
        return real(files, path, lines, most=most)

    monkeypatch.setattr(GuestFiles, "tail", tail)
    qa.ok(*LOGS, "lines=1")
    assert read == ["/var/log/syslog"]


def test_lines_are_counted_whether_or_not_the_last_one_ends(qa: Installation, log: Path) -> None:
    log.write_text("\n".join(f"line {number}" for number in range(1, 301)))
    said = qa.ok(*CAT, "path=/var/log/syslog")
    assert said.err == "These are its last 200 lines: lines=all shows up to 1 MiB.\n"
