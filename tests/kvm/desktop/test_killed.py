"""kill -9 of whatever stands around a guest, at any time: row and host agree afterwards."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.boot_sector import sector_image
from tests.support.kvm_desktop import MachineDesk, Site
from tests.support.survival import killed_at_moments, phase

pytestmark = [pytest.mark.kvm, pytest.mark.timeout(600)]

MOMENTS = ("starting/launching", "starting/awaiting-vma")
RUNS_WITHIN_S = 240


def test_a_daemon_killed_at_any_moment_leaves_one_qemu_or_none(quick: Site) -> None:
    desk = MachineDesk(quick.trial, "desk1")
    for _ in killed_at_moments(desk, MOMENTS):
        assert roots(quick, desk) == []


def test_the_end_of_qemu_is_told_at_once(quick: Site) -> None:
    desk = MachineDesk(quick.trial, "desk1")
    quick.trial.qa("vm", "start", "-f", "name=desk1")
    quick.trial.wait_for_state("desk1", "running", RUNS_WITHIN_S)
    os.kill(desk.init().pid, signal.SIGKILL)
    row = quick.trial.wait_for_state("desk1", "stopped", 20)
    assert row["failure"] == "the guest ended by itself"
    assert (desk.inits(), roots(quick, desk)) == ([], [])


def test_a_start_without_libvirtd_waits_and_a_stop_does_not(quick: Site, tmp_path: Path) -> None:
    trial, desk = quick.trial, MachineDesk(quick.trial, "sector")
    trial.qa("osf", "add", "name=sectors", "memory=64", "backend=kvm")
    trial.qa("di", "add", f"path={sector_image(tmp_path, 'quick')}", "osf=sectors")
    trial.qa("vm", "add", "name=sector", "user=alice", "osf=sectors")
    try:
        quick.libvirtd.kill()
        trial.qa("vm", "start", "-f", "name=sector")
        trial.wait_for("the reason", lambda: trial.vm("sector")["waits_for"])
        row = trial.vm("sector")
        assert "libvirtd" in row["failure"]
        assert (row["failure_cause"], row["blocked"], row["vm_state"]) == ("host", False, "starting")
        assert desk.inits() == []
    finally:
        quick.libvirtd.start()
    trial.wait_for("the guest", lambda: phase(desk) == "starting/awaiting-vma")
    desk.init()
    try:
        quick.libvirtd.kill()
        trial.qa("vm", "stop", "--force", "-f", "name=sector")
        trial.wait_for_state("sector", "stopped", RUNS_WITHIN_S)
        assert (desk.inits(), roots(quick, desk)) == ([], [])
    finally:
        quick.libvirtd.start()


def roots(site: Site, desk: MachineDesk) -> list[Path]:
    """The roots of a VM."""
    return sorted((site.trial.storage / "overlays").glob(f"*-{desk.row()['id']}-overlay.qcow2"))
