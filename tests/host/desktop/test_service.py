"""The service as systemd runs it: in its sandbox, told to stop, told that the host goes down."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.config import read_file
from scripts.service import ROOT, SERVICE, Place, render
from scripts.trial import LOGIN, Trial
from tests.support.desktop import Desk, leftovers
from tests.support.inside import inside
from tests.support.witness import database

pytestmark = [pytest.mark.host, pytest.mark.timeout(300)]


@pytest.fixture
def sandboxed(image: Path) -> Iterator[Desk]:
    """An appliance in the sandbox of its unit, with a desktop; not below /tmp, which the sandbox covers."""
    with tempfile.TemporaryDirectory(prefix="qvd-test-", dir="/var/lib") as directory:
        with Trial(Path(directory) / "trial") as trial:
            trial.lay_out()
            installation = trial.marker.read_text()
            unit = Path(directory) / SERVICE
            place = Place(checkout=ROOT, config=trial.config)
            unit.write_text(render(place, read_file(trial.config))[SERVICE])
            trial.around = [sys.executable, "-m", "tests.support.sandbox", str(unit)]
            trial.start()
            trial.furnish(image)
            trial.save_certificate()
            yield Desk(trial, "desk1")
        assert leftovers(trial, installation) == []


def in_the_place_of(pid: int, *words: str) -> bool:
    """Whether a command succeeds in the mount namespace of a process."""
    there = ["nsenter", f"--target={pid}", "--mount", *words]
    return subprocess.run(there, capture_output=True, check=False).returncode == 0


def test_in_its_sandbox_it_has_desktops_that_outlive_it(sandboxed: Desk) -> None:
    trial = sandboxed.trial
    screen = sandboxed.open_and_see()
    screen.run("umask", "0022")
    before = sandboxed.init()

    assert trial.daemon is not None
    daemon = trial.daemon.pid
    status = Path(f"/proc/{daemon}/status").read_text()
    assert "Seccomp:\t2" in status
    assert "NoNewPrivs:\t0" in status
    assert not in_the_place_of(daemon, "touch", "/etc/qvd-test")
    assert in_the_place_of(daemon, "touch", str(trial.storage / "qvd-test"))

    trial.stop()
    trial.start()

    assert sandboxed.init() == before
    sandboxed.open_and_see()
    trial.qa("vm", "stop", "--yes", "-f", f"name={sandboxed.vm}")
    trial.wait_for_state(sandboxed.vm, "stopped")
    assert sandboxed.inits() == []


@pytest.fixture
def systemctl(trial: Trial, tmp_path: Path) -> Path:
    """A systemctl first on the daemon's path; what is written into the file is the state of the system."""
    state = tmp_path / "system-state"
    state.write_text("running\n")
    program = tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\n[ "$*" = is-system-running ] && cat {state}\n')
    program.chmod(0o755)
    trial.environment["PATH"] = f"{program.parent}:{trial.environment['PATH']}"
    return state


def test_the_host_goes_down_and_its_desktops_come_back(systemctl: Path, desk: Desk) -> None:
    trial, note = desk.trial, f"/home/{LOGIN}-was-here"
    trial.qa("vm", "add", "name=idle", f"user={LOGIN}", "osf=small")
    trial.qa("vm", "start", "-f", f"name={desk.vm}")
    trial.wait_for_state(desk.vm, "running")
    before = desk.init()
    inside(before, "touch", note)
    daemon = trial.daemon
    assert daemon is not None
    assert "Umask:\t0077" in Path(f"/proc/{daemon.pid}/status").read_text()

    systemctl.write_text("stopping\n")
    daemon.terminate()

    assert daemon.wait(120) == 0
    assert desk.inits() == []
    assert (desk.row()["vm_state"], desk.row()["failure"]) == ("starting", None)
    assert trial.vm("idle")["vm_state"] == "stopped"

    with database(desk) as connection:
        connection.execute("UPDATE host_runtimes SET boot_id = 'another'")
    systemctl.write_text("starting\n")
    trial.start()
    trial.wait_for_state(desk.vm, "running")
    assert desk.init() != before
    inside(desk.init(), "ls", note)
    assert trial.vm("idle")["vm_state"] == "stopped"


def test_it_says_when_it_serves_and_when_it_stops(trial: Trial, tmp_path: Path) -> None:
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        trial.environment |= {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        trial.start()
        said = [manager.recv(4096).decode() for _ in range(4)]
        trial.stop()
        while not said[-1].startswith("STOPPING=1"):
            said.append(manager.recv(4096).decode())

    assert "READY=1\nSTATUS=serves as trial" in said[:2]
    assert said.count("WATCHDOG=1") >= 3
