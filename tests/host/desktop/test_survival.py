"""Guests outlive the daemon, whatever becomes of it, and are never started twice (protocol.md 5.1)."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts.trial import BIN, IN_NETNS, Trial, command, output
from tests.support.desktop import Desk, leftovers
from tests.support.quick_guest import quick_image
from tests.support.survival import killed_at_moments, outlives
from tests.support.witness import database

pytestmark = [pytest.mark.host, pytest.mark.timeout(300)]


@pytest.fixture
def running(desk: Desk) -> Desk:
    """The desktop's VM runs; nobody is connected."""
    return started(desk)


@pytest.fixture
def quick(trial: Trial, tmp_path: Path) -> Desk:
    """A running VM whose guest boots in a blink and has no windows, where nobody looks at any."""
    return with_quick_guest(trial, tmp_path)


@pytest.fixture
def neighbour(tmp_path: Path) -> Iterator[Desk]:
    """Another installation on this machine, with such a VM of the same number and name."""
    with Trial(tmp_path / "neighbour") as trial:
        trial.lay_out()
        installation = trial.marker.read_text()
        yield with_quick_guest(trial, tmp_path)
    assert leftovers(trial, installation) == []


def with_quick_guest(trial: Trial, folder: Path) -> Desk:
    """Begin an installation that is laid out, and start its one VM."""
    trial.start()
    trial.furnish(quick_image(folder / "quick.tar.gz"), memory=64)
    return started(Desk(trial, "desk1"))


def started(desk: Desk) -> Desk:
    """Start the VM, and wait until it runs."""
    desk.trial.qa("vm", "start", "-f", f"name={desk.vm}")
    desk.trial.wait_for_state(desk.vm, "running")
    return desk


def execute(desk: Desk, statement: str) -> None:
    """Change the database behind the daemon's back."""
    with database(desk) as connection:
        assert connection.execute(statement).rowcount == 1


def said(desk: Desk, begun: int) -> str:
    """What the daemon has said since its log was `begun` bytes long."""
    return desk.trial.log.read_bytes()[begun:].decode()


def stop(desk: Desk) -> None:
    """Stop the VM in good order."""
    desk.trial.qa("vm", "stop", "--force", "-f", f"name={desk.vm}")
    desk.trial.wait_for_state(desk.vm, "stopped")


@pytest.mark.parametrize("ending", [Trial.kill, Trial.stop])
def test_a_desktop_outlives_the_daemon(desk: Desk, ending: Callable[[Trial], None]) -> None:
    outlives(desk, ending)


def test_a_daemon_in_another_network_namespace_takes_the_guest_along(desk: Desk) -> None:
    first, second = desk.trial.netns, f"{desk.trial.netns}-second"
    desk.trial.make_netns(second)
    screen = desk.open_and_see()
    screen.remember("nomad")
    init, programs = desk.init(), desk.programs()
    for netns, left in ((second, first), (first, second)):
        desk.trial.kill()
        screen.ends_by_itself()
        desk.trial.start(netns=netns)
        screen = desk.open_and_see(netns=netns)
        assert "master" in output("ip", "-n", netns, "link", "show", "qvd1")
        assert output("ip", "-n", left, "link", "show", "qvd1") == ""
        assert desk.init() == init
        assert desk.programs() == programs
    screen.recalls("nomad")


def test_installations_leave_each_other_alone(quick: Desk, neighbour: Desk) -> None:
    ours, theirs = quick.init(), neighbour.init()
    assert quick.row()["id"] == neighbour.row()["id"]
    for daemon in (quick.trial, neighbour.trial):
        daemon.kill()
    quick.trial.start()
    assert (quick.init(), neighbour.init()) == (ours, theirs)
    neighbour.trial.start()
    assert (quick.init(), neighbour.init()) == (ours, theirs)
    stop(quick)
    assert (quick.inits(), neighbour.init()) == ([], theirs)
    quick.trial.kill()
    quick.trial.start()
    assert (quick.inits(), neighbour.init()) == ([], theirs)
    stop(neighbour)
    assert neighbour.inits() == []


def test_a_host_that_seems_rebooted_starts_only_what_is_gone(quick: Desk) -> None:
    init, run = quick.init(), quick.row()["run"]
    quick.trial.kill()
    execute(quick, "UPDATE host_runtimes SET boot_id = 'before'")
    quick.trial.start()
    assert quick.init() == init
    assert (quick.row()["vm_state"], quick.row()["run"]) == ("running", run)

    quick.trial.kill()
    execute(quick, "UPDATE host_runtimes SET boot_id = 'before'")
    command("kill", "-9", str(init.pid))
    quick.trial.wait_for("the guest's end", lambda: quick.inits() == [])
    quick.trial.start()
    quick.trial.wait_for_state(quick.vm, "running")
    assert quick.init() != init
    assert quick.row()["run"] == int(str(run)) + 1


def test_a_second_daemon_is_turned_down(quick: Desk) -> None:
    init = quick.init()
    trial = quick.trial
    assert trial.daemon is not None
    elsewhere = f"{trial.netns}-elsewhere"
    trial.make_netns(elsewhere)
    config = trial.directory / "second.conf"
    written = trial.config.read_text()
    config.write_text(written.replace(str(trial.run), str(trial.run / "second")))
    second = subprocess.run(
        [IN_NETNS, elsewhere, BIN / "qvd-appliance", "run", "--config", config],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    config.unlink()
    (line,) = second.stderr.splitlines()
    assert second.returncode == 1
    assert f"another appliance of this installation runs (pid {trial.daemon.pid})" in line
    assert quick.init() == init
    assert trial.alive()


@pytest.mark.parametrize("wish", ["NULL", "'start'"])
def test_a_guest_that_runs_though_its_row_says_stopped_is_adopted_loudly(running: Desk, wish: str) -> None:
    init = running.init()
    running.trial.kill()
    execute(
        running,
        "UPDATE vm_runtimes SET vm_state = 'stopped', vm_phase = 'stopped', current_di_id = NULL,"
        f" vm_address = NULL, vm_cmd = {wish}, host_id = CASE WHEN {wish} IS NULL THEN NULL ELSE host_id END",
    )
    begun = running.trial.log.stat().st_size
    running.trial.start()
    row = running.trial.wait_for_state(running.vm, "running")
    assert running.init() == init
    assert (row["vm_cmd"], row["di"]) == (None, running.trial.listed("di")[0]["version"])
    assert "WARNING" in said(running, begun)
    assert "found running though its row says stopped vm=1" in said(running, begun)
    screen = running.open_and_see()
    screen.leave()
    stop(running)
    assert running.inits() == []


def test_a_daemon_killed_at_any_moment_leaves_one_init_or_none(desk: Desk) -> None:
    for _ in killed_at_moments(desk):
        assert not (desk.trial.storage / "rootfs" / "1-fs").exists()
