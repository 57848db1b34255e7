"""A guest that says something on its serial line without end: the daemon and the others go on."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from appliance.runtime.console_capture import CAPTURE_BYTES
from scripts.trial import BIN, Trial
from tests.support.boot_sector import sector_image
from tests.support.failing import GRACE
from tests.support.kvm_desktop import MachineDesk, Site, resident_bytes
from tests.support.survival import phase

pytestmark = [pytest.mark.kvm, pytest.mark.timeout(600)]

RUNS_WITHIN_S = 240
ROUNDS = 3
GROWN_BYTES = 16 << 20


@pytest.fixture
def flood(quick: Site, tmp_path: Path) -> Iterator[MachineDesk]:
    """A VM that floods its line, for as long as the test takes, and one that rests and sends back words."""
    trial = quick.trial
    trial.qa("config", "set", "--yes", f"{GRACE}=3600")
    for vm, kind in (("flood", "flood"), ("neighbour", "quick")):
        trial.qa("osf", "add", f"name={vm}", "memory=64", "backend=kvm")
        trial.qa("di", "add", f"path={sector_image(tmp_path, kind)}", f"osf={vm}")
        trial.qa("vm", "add", f"name={vm}", "user=alice", f"osf={vm}")
    trial.qa("vm", "start", "-f", "name=flood")
    until_launched(MachineDesk(trial, "flood"))
    yield MachineDesk(trial, "flood")
    trial.qa("vm", "stop", "--force", "-f", "name=neighbour")
    for vm in ("flood", "neighbour"):
        for qemu in MachineDesk(trial, vm).inits():
            os.kill(qemu.pid, signal.SIGKILL)
        trial.wait_for_state(vm, "stopped", RUNS_WITHIN_S)
    trial.qa("config", "set", "--yes", f"{GRACE}=180")
    trial.qa("alarm", "clear", "--yes")


def test_a_guest_that_floods_its_line_keeps_nobody_waiting(flood: MachineDesk, tmp_path: Path) -> None:
    trial = flood.trial
    with watching(trial, "flood", tmp_path / "seen") as said, not_reading(trial, "flood", tmp_path / "idle"):
        trial.qa("vm", "start", "-f", "name=neighbour")
        until_launched(MachineDesk(trial, "neighbour"))
        heard, used = tmp_path / "heard", resident_bytes(trial)
        with heard.open("wb") as file, console(trial, "neighbour", file) as talking:
            assert talking.stdin is not None
            for number in range(ROUNDS):
                before, word = said(), f"word-{number}."
                trial.qa("config", "set", f"site.round={number}")
                assert f"{number}" in trial.qa("config", "get", "site.round").stdout
                talking.stdin.write(word.encode())
                talking.stdin.flush()
                trial.wait_for(word, lambda: word.encode() in heard.read_bytes(), RUNS_WITHIN_S)  # noqa: B023
                trial.wait_for("more of the flood", grown(said, before))
        trial.wait_for("more than is kept", grown(said, CAPTURE_BYTES), RUNS_WITHIN_S)
        assert resident_bytes(trial) - used < GROWN_BYTES
        kept = (trial.run / "consoles").glob(f"{flood.row()['id']}.tty*")
        assert 0 < sum(file.stat().st_size for file in kept) <= CAPTURE_BYTES

    with watching(trial, "flood", tmp_path / "tail") as shown:
        trial.wait_for("what the console showed last", shown)
    assert {*(tmp_path / "tail").read_text()} == {"x"}
    os.kill(flood.init().pid, signal.SIGKILL)
    row = trial.wait_for_state("flood", "stopped")
    assert row["failure_console"].endswith("xxxxxxxx")


def until_launched(desk: MachineDesk) -> None:
    """Wait until a VM is there and said to boot."""
    desk.trial.wait_for(
        "the guest", lambda: phase(desk) == "starting/awaiting-vma" and desk.inits(), RUNS_WITHIN_S
    )


@contextmanager
def watching(trial: Trial, vm: str, shown: Path) -> Iterator[Callable[[], int]]:
    """Somebody watches a console; the value tells how much of it there was to be seen."""
    with shown.open("wb") as file, console(trial, vm, file):
        yield lambda: shown.stat().st_size


@contextmanager
def not_reading(trial: Trial, vm: str, shown: Path) -> Iterator[None]:
    """Somebody watches a console, and does not look any more."""
    with shown.open("wb") as file, console(trial, vm, file) as watching:
        trial.wait_for("the console", lambda: shown.stat().st_size > 0)
        watching.send_signal(signal.SIGSTOP)
        yield


@contextmanager
def console(trial: Trial, vm: str, shown: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """`qa vm console`, until the block ends."""
    words = [str(BIN / "qa"), "--config", str(trial.config), "vm", "console", "-f", f"name={vm}"]
    running = subprocess.Popen(
        words, env=trial.environment, stdin=subprocess.PIPE, stdout=shown, stderr=subprocess.DEVNULL
    )
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


def grown(said: Callable[[], int], before: int) -> Callable[[], bool]:
    """Whether there is more than before."""
    return lambda: said() > before
