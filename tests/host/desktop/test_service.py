"""The service as systemd runs it: in its sandbox, told to stop, told that the host goes down."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.config import read_file
from scripts.service import ROOT, SERVICE, Place, render
from scripts.trial import Trial
from tests.support.desktop import Desk, leftovers

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
