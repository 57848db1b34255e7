"""A bad image under ten desktops, and a pool without room: who is told, who waits, who is blocked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.trial import Trial
from tests.support.desktop import leftovers
from tests.support.failing import GRACE, full_pool, until_all
from tests.support.quick_guest import mute_image, quick_image

pytestmark = [pytest.mark.host, pytest.mark.timeout(300)]


def test_one_bad_image_under_ten_vms(trial: Trial, tmp_path: Path) -> None:
    trial.qa("config", "set", "--yes", f"{GRACE}=2", "hkd.vm.starting.max=10")
    trial.start()
    trial.furnish(quick_image(tmp_path / "good.tar.gz"), vm="desk", memory=64)
    trial.qa("vm", "add", "name=more", "user=alice", "osf=small", "bulk=9")
    trial.qa("di", "add", f"path={mute_image(tmp_path / 'bad.tar.gz')}", "osf=small")
    trial.qa("di", "tag", "di_id=2", "tag=default")

    for failures in (1, 2):
        assert trial.listed("alarm") == []
        trial.qa("vm", "start", "--yes")
        for vm in until_all(trial, run=failures, vm_state="stopped", failures=failures):
            assert "the VMA gave no answer within 2 s" in vm["failure"]
            assert vm["failure_console"].splitlines()[-1] == "booted"
            assert (vm["failure_cause"], vm["blocked"]) == ("image", failures == 2)
    (alarm,) = trial.listed("alarm")
    assert (alarm["kind"], alarm["object"], alarm["count"]) == ("image", "di 2", 10)
    assert "does not boot and blocks 10 VMs" in alarm["text"]
    assert kept_roots(trial) >= {str(vm["id"]) for vm in trial.listed("vm")}
    assert list((trial.storage / "rootfs").iterdir()) == []

    trial.qa("di", "tag", "di_id=1", "tag=default")
    assert trial.listed("alarm") == []
    until_all(trial, blocked=False, failures=0, run=2)
    trial.qa("config", "set", "--yes", f"{GRACE}=100")
    trial.qa("vm", "start", "--yes")
    until_all(trial, vm_state="running", current_di_id=1, failure=None, run=3)


def kept_roots(trial: Trial) -> set[str]:
    """The VMs of which a root was put aside."""
    return {path.name.partition("-")[0] for path in (trial.storage / "kept").iterdir()}


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Trial]:
    """An installation on a small pool, impatient to try again."""
    with Trial(tmp_path / "trial") as made:
        made.settings["internal.hkd.start.delay.max"] = "2"
        made.settings["internal.hkd.start.delay.first"] = "0.5"
        made.lay_out(pool_size="512M")
        installation = made.marker.read_text()
        yield made
    assert leftovers(made, installation) == []


def test_a_full_pool_blocks_nobody_and_says_so(small: Trial, tmp_path: Path) -> None:
    small.start()
    small.furnish(quick_image(tmp_path / "good.tar.gz"), vm="desk", memory=64)
    small.qa("vm", "start", "-f", "name=desk")
    small.wait_for_state("desk", "running")
    with full_pool(small, small.storage / "homefs" / "1-fs", more=3):
        assert small.vm("desk")["vm_state"] == "running"
