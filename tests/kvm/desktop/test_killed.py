"""kill -9 of whatever stands around a guest, at any time: row and host agree afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.boot_sector import sector_image
from tests.support.desktop import Init, inits_of
from tests.support.kvm_desktop import MachineDesk, Site
from tests.support.survival import killed_at_moments, on_the_way, phase
from tests.support.traces import traces

pytestmark = [pytest.mark.kvm, pytest.mark.timeout(600)]

RUNS_WITHIN_S = 240
LAUNCHING, AWAITING, STOPPING = "starting/launching", "starting/awaiting-vma", "stopping/shutting-down"
NO_QEMU = "libvirtd does not start a domain"
NO_LIBVIRTD = ("libvirtd went away", "libvirtd is not reached")
ENDED = "the guest ended while it was booting"


@pytest.fixture(scope="module")
def hasty(quick: Site) -> Iterator[Site]:
    """Guests must end soon when they are asked to."""
    timeout = "internal.hkd.lxc.timeout.on_state.stopping"
    quick.trial.qa("config", "set", "--yes", f"{timeout}.shutdown=5", f"{timeout}.stop=3")
    yield quick
    quick.trial.qa("config", "set", "--yes", f"{timeout}.shutdown=60", f"{timeout}.stop=30")
    quick.trial.qa("alarm", "clear", "--yes")


@pytest.fixture(scope="module")
def victim(hasty: Site, tmp_path_factory: pytest.TempPathFactory) -> MachineDesk:
    """A VM that boots at once, never gets further than that, and does not obey its power button."""
    trial = hasty.trial
    trial.qa("osf", "add", "name=victims", "memory=64", "backend=kvm")
    trial.qa("di", "add", f"path={sector_image(tmp_path_factory.mktemp('deaf'), 'deaf')}", "osf=victims")
    trial.qa("vm", "add", "name=victim", "user=alice", "osf=victims")
    return MachineDesk(trial, "victim")


def test_a_daemon_killed_at_any_moment_leaves_one_qemu_or_none(quick: Site) -> None:
    desk = MachineDesk(quick.trial, "desk1")
    for _ in killed_at_moments(desk, (LAUNCHING, AWAITING)):
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
    trial.wait_for("the guest", lambda: phase(desk) == AWAITING)
    desk.init()
    try:
        quick.libvirtd.kill()
        trial.qa("vm", "stop", "--force", "-f", "name=sector")
        trial.wait_for_state("sector", "stopped", RUNS_WITHIN_S)
        assert (desk.inits(), roots(quick, desk)) == ([], [])
    finally:
        quick.libvirtd.start()


def test_a_qemu_killed_at_any_moment_leaves_nothing(hasty: Site, victim: MachineDesk) -> None:
    trial = hasty.trial
    with on_the_way(victim, "start", LAUNCHING):
        killed = first_qemu(victim)
        os.kill(killed.pid, signal.SIGKILL)
    row = until_told(victim)
    if row["failure"] == ENDED:  # the launch was over by then
        start_again(victim)
    else:
        assert row["failure"].startswith(NO_QEMU)
        assert (row["failure_cause"], row["blocked"], row["vm_state"]) == ("host", False, "starting")

    until_phase(victim, AWAITING)
    booting = victim.init()
    assert booting != killed
    os.kill(booting.pid, signal.SIGKILL)
    row = trial.wait_for_state("victim", "stopped")
    assert (row["failure"], row["failure_cause"]) == (ENDED, "image")
    assert left(hasty, victim) == []

    start_again(victim)
    until_phase(victim, AWAITING)
    stopping = victim.init()
    with on_the_way(victim, "stop", STOPPING):
        os.kill(stopping.pid, signal.SIGKILL)
    assert trial.wait_for_state("victim", "stopped")["failure"] is None
    assert left(hasty, victim) == []


def test_a_libvirtd_killed_in_a_launch_or_a_stop_agrees_with_the_row_afterwards(
    hasty: Site, victim: MachineDesk
) -> None:
    with on_the_way(victim, "start", LAUNCHING):
        qemu = first_qemu(victim)
        hasty.libvirtd.kill()
    try:
        victim.trial.wait_for("the outcome", lambda: phase(victim) != LAUNCHING)
        if phase(victim) == AWAITING:  # the launch was over by then
            assert victim.init() == qemu
        else:
            row = until_told(victim)
            assert row["failure"].startswith(NO_LIBVIRTD), row["failure"]
            assert (row["failure_cause"], row["blocked"], row["vm_state"]) == ("host", False, "starting")
            victim.trial.wait_for("the end of what was launched", lambda: qemu not in victim.inits())
    finally:
        hasty.libvirtd.start()
    until_phase(victim, AWAITING)
    victim.init()
    assert known(hasty, victim)

    with on_the_way(victim, "stop", STOPPING):
        hasty.libvirtd.kill()
    try:
        victim.trial.wait_for_state("victim", "stopped", RUNS_WITHIN_S)
        assert (victim.inits(), roots(hasty, victim)) == ([], [])
    finally:
        hasty.libvirtd.start()
    assert left(hasty, victim) == []


def test_a_guest_boots_and_ends_though_libvirtd_is_killed_each_time(hasty: Site) -> None:
    trial, desk = hasty.trial, MachineDesk(hasty.trial, "desk1")
    with on_the_way(desk, "start", AWAITING):
        hasty.libvirtd.kill()
    try:
        qemu = desk.init()
        trial.wait_for_state("desk1", "running", RUNS_WITHIN_S)
    finally:
        hasty.libvirtd.start()
    assert (desk.inits(), known(hasty, desk)) == ([qemu], True)
    assert trial.vm("desk1")["vm_state"] == "running"
    with on_the_way(desk, "stop", STOPPING):
        hasty.libvirtd.kill()
    try:
        row = trial.wait_for_state("desk1", "stopped", RUNS_WITHIN_S)
    finally:
        hasty.libvirtd.start()
    assert row["failure"] is None
    assert left(hasty, desk) == []


def start_again(desk: MachineDesk) -> None:
    """Start a VM whose failures are forgiven."""
    desk.trial.wait_for_state(desk.vm, "stopped")
    desk.trial.qa("vm", "unblock", "-f", f"name={desk.vm}")
    desk.trial.qa("vm", "start", "-f", f"name={desk.vm}")


def first_qemu(desk: MachineDesk) -> Init:
    """The guest's QEMU, as soon as there is one."""
    guest, until = desk.guest(), time.monotonic() + RUNS_WITHIN_S
    while not (found := inits_of(guest)):
        assert time.monotonic() < until, "no QEMU was launched"
    return found[0]


def until_phase(desk: MachineDesk, wanted: str) -> None:
    """Wait until the row says that a VM is there."""
    desk.trial.wait_for(wanted, lambda: phase(desk) == wanted, RUNS_WITHIN_S)


def until_told(desk: MachineDesk) -> dict[str, Any]:
    """Wait for a failure; the row that tells it."""
    desk.trial.wait_for("the failure", lambda: desk.row()["failure"], RUNS_WITHIN_S)
    return desk.trial.vm(desk.vm)


def known(site: Site, desk: MachineDesk) -> bool:
    """Whether libvirtd knows a VM's domain."""
    words = ["virsh", "--quiet", "--connect", site.libvirtd.uri, "list", "--all", "--name"]
    told = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout
    return desk.guest() in told.split()


def left(site: Site, desk: MachineDesk) -> list[str]:
    """What a host has of a VM that rests: nothing, if all is well."""
    found, vm = [*traces(desk.guest()), *map(str, roots(site, desk))], desk.row()["id"]
    links = ["ip", "-n", site.trial.netns, "-o", "link", "show"]
    shown = subprocess.run(links, capture_output=True, text=True, check=True, timeout=60).stdout
    found += [line for line in shown.splitlines() if f" qvd{vm}:" in line]
    found += [str(path) for path in (site.trial.run / "kvm").glob(f"{vm}*")]
    return [*found, *(["a domain"] if known(site, desk) else [])]


def roots(site: Site, desk: MachineDesk) -> list[Path]:
    """The roots of a VM."""
    return sorted((site.trial.storage / "overlays").glob(f"*-{desk.row()['id']}-overlay.qcow2"))
