"""`qa` as a process: what it does with its streams, and the programs that it becomes."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
from sqlalchemy import update

from appliance import config
from appliance.model import VmState
from appliance.storage.schema import vm_runtimes
from tests.support.qa import Installation

pytestmark = pytest.mark.host

QA = "from appliance.qa.main import main; raise SystemExit(main())"


@pytest.fixture
def qa(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Installation:
    """An installation with the VM web-1, which runs at a loopback address."""
    installation = Installation(tmp_path, capsys)
    installation.ok("admin", "init", "--yes")
    installation.with_vm()
    runs(installation, vm_address="127.0.0.77")
    return installation


def runs(qa: Installation, **values: Any) -> None:
    """Be the HKD: the VM runs."""

    async def write() -> None:
        async with qa.write() as tx:
            await tx.connection.execute(
                update(vm_runtimes).values(vm_state=VmState.RUNNING, host_id=1, **values)
            )

    asyncio.run(write())


def start(
    qa: Installation, *words: str, stdout: int | IO[bytes] = subprocess.PIPE, **environment: str
) -> subprocess.Popen[str]:
    """`qa` as a process with some variables of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", QA, "--config", str(qa.config), *words],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )


def witness(directory: Path, name: str) -> str:
    """A path with a program `name` that says who it is and how it was called, and exits with 7."""
    programs = directory / "programs"
    programs.mkdir()
    (programs / name).write_text('#!/bin/sh\necho $$\nprintf "%s\\n" "$@"\nexit 7\n')
    (programs / name).chmod(0o755)
    return f"{programs}:{os.environ['PATH']}"


def test_ssh_takes_the_place_of_qa_with_the_settings_options(qa: Installation) -> None:
    qa.ok("config", "set", "internal.vm.port.ssh=2222", "admin.ssh.opt.LogLevel=ERROR", "--yes")
    qa.ok("config", "set", "admin.ssh.opt.UserKnownHostsFile=")
    path = witness(qa.directory, "ssh")
    process = start(qa, "vm", "ssh", "-f", "name=web-1", "--", "-l", "root", "up time", PATH=path)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (7, "")
    pid, *arguments = out.splitlines()
    assert int(pid) == process.pid
    assert arguments == [
        *("-p", "2222", "-o", "LogLevel=ERROR", "-o", "StrictHostKeyChecking=no"),
        *("127.0.0.77", "-l", "root", "up time"),
    ]


def test_the_real_ssh_understands_what_it_is_given(qa: Installation) -> None:
    process = start(qa, "vm", "ssh", "-f", "name=web-1", "--", "-l", "root", "-G")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    told = dict(line.split(" ", 1) for line in out.splitlines() if " " in line)
    assert (told["hostname"], told["port"], told["user"]) == ("127.0.0.77", "22", "root")
    assert told["stricthostkeychecking"] == "false"
    assert told["userknownhostsfile"] == "/dev/null"


def test_a_program_that_is_not_there_is_named(qa: Installation) -> None:
    (empty := qa.directory / "empty").mkdir()
    process = start(qa, "vm", "ssh", "-f", "name=web-1", PATH=str(empty))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert err == "Error: ssh cannot be run: No such file or directory (install openssh-client)\n"


@contextmanager
def on_kvm(qa: Installation) -> Iterator[Path]:
    """The VM is one of kvm, and shows its screen at the socket that is the value."""

    async def move() -> None:
        async with qa.write() as tx:
            await tx.connection.exec_driver_sql("UPDATE osfs SET backend = 'kvm'")

    asyncio.run(move())
    place = qa.settings[config.PATH_RUN] / "kvm" / "1" / "vnc"
    place.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as screen:
        screen.bind(str(place))
        yield place


def test_vnc_shows_the_screen_of_a_kvm_guest_at_its_socket(qa: Installation) -> None:
    path = witness(qa.directory, "vncviewer")
    with on_kvm(qa) as place:
        process = start(qa, "vm", "vnc", "-f", "name=web-1", "--", "-ViewOnly", PATH=path)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 7
        assert out.splitlines() == [str(process.pid), str(place), "-ViewOnly"]
        place.unlink()
        process = start(qa, "vm", "vnc", "-f", "name=web-1", PATH=path)
        assert process.communicate(timeout=60)[1] == "Error: web-1 is running, and shows no screen yet\n"


def test_a_viewer_that_is_not_there_is_named(qa: Installation) -> None:
    (empty := qa.directory / "empty").mkdir()
    with on_kvm(qa):
        process = start(qa, "vm", "vnc", "-f", "name=web-1", PATH=str(empty))
        said = "Error: vncviewer cannot be run: No such file or directory (apt-get install tigervnc-viewer)\n"
        assert process.communicate(timeout=60)[1] == said


def test_ssh_reaches_a_kvm_guest_as_any_other(qa: Installation) -> None:
    path = witness(qa.directory, "ssh")
    with on_kvm(qa):
        process = start(qa, "vm", "ssh", "-f", "name=web-1", "--", "uptime", PATH=path)
        out, _ = process.communicate(timeout=60)
        assert (process.returncode, out.splitlines()[-2:]) == (7, ["127.0.0.77", "uptime"])


COMPLETE = """
source /dev/stdin
compopt() { echo "$@"; }
COMP_WORDS=(qa "$@"); COMP_CWORD=$#
_qa
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["v"], ["vm"]),
        (["vm", "st"], ["start", "stop"]),
        (["-f", "id=1", "vm", "st"], ["start", "stop"]),
        (["vm", "add", "di"], ["-o nospace", "di_tag="]),
        (["vm", "list", "--fi"], ["--filter"]),
        (["vm", "list", "-o", "y"], ["yaml"]),
        (["vm", "list", "-f", "st"], [""]),
        (["vm", "add", "user", "=", "st"], [""]),
        (["ship", "st"], [""]),
    ],
)
def test_bash_completes_words(qa: Installation, typed: list[str], offered: list[str]) -> None:
    script = qa.ok("completion", "bash").out
    done = subprocess.run(
        ["bash", "-c", COMPLETE, "bash", *typed],
        input=script,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (done.stdout.splitlines(), done.stderr) == (offered, "")


def test_a_reader_that_leaves_is_no_error(qa: Installation) -> None:
    gone, ours = os.pipe()
    os.close(gone)
    with os.fdopen(ours, "wb", buffering=0) as stdout:
        process = start(qa, "vm", "list", stdout=stdout)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (1, "")


def test_a_full_disk_is_told_in_one_line(qa: Installation) -> None:
    with Path("/dev/full").open("wb") as stdout:
        process = start(qa, "vm", "list", stdout=stdout)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (1, "Error: No space left on device\n")


def test_letters_that_the_terminal_lacks_are_no_failure(qa: Installation) -> None:
    qa.ok("osf", "add", "name=büro")
    process = start(qa, "osf", "list", "-f", "name=b*", "-q", PYTHONIOENCODING="ascii")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "b\\xfcro" in out


def test_bytes_that_are_no_text_are_refused(qa: Installation) -> None:
    done = subprocess.run(
        [sys.executable, "-c", QA, "--config", str(qa.config), "vm", "list", "-f", b"name=\xff"],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"Error: 'name=\\udcff' is not UTF-8\n"
